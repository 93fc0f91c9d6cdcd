"""What `sourcebus up` shows: lines, and below them one line of progress that is drawn anew."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sourcebus.cli.terminal import visible

if TYPE_CHECKING:
    from rich.live import Live

_PLAIN_EVERY_S = 5.0
"""Where no terminal is, progress is a line every so many seconds."""


class Screen:
    """Thread-safe. On a terminal the progress line stays at the bottom; in a log file it is a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._plain_at = 0.0
        self._plain_text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress(None)

    def line(self, text: str = "", style: str = "") -> None:
        """One finished line."""
        text = "\n".join(visible(part) for part in text.split("\n"))
        with self._lock:
            if self._live is not None:
                from rich.text import Text

                self._live.console.print(Text(text, style=style), soft_wrap=True)
            elif self._terminal and style:
                from rich.console import Console
                from rich.text import Text

                Console(highlight=False).print(Text(text, style=style), soft_wrap=True)
            else:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()

    def progress(self, text: str | None) -> None:
        """What is under way, replacing what was; None when it is over."""
        with self._lock:
            if self._terminal:
                self._draw(text)
            elif text is not None and text != self._plain_text and time.monotonic() - self._plain_at >= _PLAIN_EVERY_S:
                self._plain_at, self._plain_text = time.monotonic(), text
                self.line(text)

    def _draw(self, text: str | None) -> None:
        if text is None:
            if self._live is not None:
                self._live.stop()
                self._live = None
            return
        from rich.spinner import Spinner
        from rich.text import Text

        row = Spinner("dots", Text(visible(text)))
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(row, console=Console(highlight=False), refresh_per_second=8, transient=True)
            self._live.start()
        else:
            self._live.update(row)
