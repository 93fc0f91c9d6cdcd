"""Single keys from a terminal, which is given back as it was."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

_SEQUENCE: Final = re.compile(rb"\x1b(\[[0-9;]*[A-Za-z~]|O?[ -~]|$)")
"""What an arrow or a function key sends: it holds letters that nobody typed."""


class Keys:
    """While entered, keys come one by one and are not echoed; Ctrl-C stays a signal. Without a terminal there are none."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._was: list[Any] = []

    def __enter__(self) -> Self:
        if self._input is not None:
            self._was = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
            mine = termios.tcgetattr(self._input)
            mine[6][termios.VSUSP] = b"\x00"  # a stopped view would leave its screen and this mode to the shell
            termios.tcsetattr(self._input, termios.TCSANOW, mine)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._input is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._input, termios.TCSAFLUSH, self._was)

    @property
    def help(self) -> str:
        return "q quit · s sort" if self._input is not None else "Ctrl-C quits"

    def pressed(self, within_s: float) -> str:
        """The letters that come within this time, as soon as there are any. "q" where the terminal is gone."""
        if self._input is None:
            time.sleep(within_s)
            return ""
        if not select.select([self._input], [], [], within_s)[0]:
            return ""
        try:
            typed = os.read(self._input, 64)
        except OSError:
            return "q"
        if not typed:
            return "q"
        return _SEQUENCE.sub(b"", typed).decode("ascii", "ignore")
