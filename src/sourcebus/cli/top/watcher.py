"""The thread that looks at the bus again and again, and the newest of what it saw."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from sourcebus.cli.terminal import visible
from sourcebus.cli.top.figures import Looker, Picture
from sourcebus.clock import duration

_REST = 9
"""Looking takes at most a tenth of the time, so that a bus of very many sources has other things to do."""


_AGAIN_S = 1.0
"""A bus that does not answer is asked again this soon."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The newest picture, when it was asked for (`time.monotonic`), and why the look after it failed ("": it did not)."""

    picture: Picture | None = None
    at_s: float = 0.0
    took_s: float = 0.0
    failure: str = ""

    def age_s(self, now_s: float) -> float:
        return now_s - self.at_s

    def next_s(self, every_s: float) -> float:
        """Seconds from one look to the next."""
        return max(every_s, (1 + _REST) * self.took_s)

    def failing(self, every_s: float, now_s: float) -> str:
        """Why this is not of now, "" while it is. Silence counts as failing soon, long before a time limit ends it."""
        if self.failure or self.picture is None:
            return self.failure
        patience_s = max(3.0, 3 * self.next_s(every_s))
        silent_s = self.age_s(now_s)
        return f"no word for {duration(silent_s)}" if silent_s > patience_s else ""


class Watcher:
    """`newest` is replaced as a whole, so it can be read at any time."""

    def __init__(self, looker: Looker, every_s: float) -> None:
        self._looker, self._every_s = looker, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looks at the bus", daemon=True)
        self.newest = Seen()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits a moment only: a look that hangs must not keep the terminal from its owner."""
        self._stop.set()
        self._thread.join(0.5)

    def _run(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                picture = self._looker.look()
            except Exception as error:  # noqa: BLE001  it is shown, and the next look may go well
                self.newest = Seen(self.newest.picture, self.newest.at_s, self.newest.took_s, visible(str(error)))
            else:
                self.newest = Seen(picture, began_s, time.monotonic() - began_s)
            pause_s = self.newest.next_s(self._every_s) if not self.newest.failure else _AGAIN_S
            self._stop.wait(max(0.0, pause_s - (time.monotonic() - began_s)))
