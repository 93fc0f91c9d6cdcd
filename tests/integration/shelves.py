"""A simulated provider with a source on it, and a worker that is run by hand: for the tests of intake's asking side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sourcebus.bus import SourceStats
from sourcebus.model import Source
from sourcebus.runtime import Runtime
from sourcebus.testing.providers.shelf import Shelf

PATIENCE_S = 20.0


@dataclass
class Bench:
    """The source "s" of a runtime, which reads a shelf."""

    runtime: Runtime
    shelf: Shelf

    def add(self, source_id: str = "s", secret: str | None = None, **config: Any) -> None:
        self.runtime.sources.add(Source(source_id, "shelf", {"url": self.shelf.url, **config}, secret=secret))

    def work(self, source_id: str = "s", until: Callable[[], bool] = lambda: False) -> None:
        """Works until nothing of the source is pending or in flight, or until `until`. Keeps house as a worker does."""
        deadline = time.monotonic() + PATIENCE_S
        shift = self.runtime.shift()
        try:
            while not until():
                self.runtime.housekeeping()
                shift.run()
                stats = self.stats(source_id)
                if not stats.pending and not stats.in_flight:
                    return
                assert time.monotonic() < deadline, f"still at work: {stats}, {self.state(source_id)}"
        finally:
            shift.close()

    def once(self) -> None:
        """One slice of a worker."""
        shift = self.runtime.shift()
        try:
            shift.run()
        finally:
            shift.close()

    def stats(self, source_id: str = "s") -> SourceStats:
        (stats,) = self.runtime.bus.stats([source_id])
        assert stats
        return stats

    def state(self, source_id: str = "s") -> dict[str, Any]:
        return self.runtime.catalog.state(source_id)

    def indexed(self, source_id: str = "s") -> dict[str, str]:
        """Reference → version of what is indexed."""
        found = self.runtime.catalog.objects(source_id)
        return {ref: version.version for ref, version in found}

    def on_shelf(self) -> dict[str, str]:
        return {ref: str(rev) for ref, (rev, _text) in self.shelf.objects.items()}

    def asked(self, path: str) -> int:
        """How often the provider was asked for this path, since the last `forget`."""
        return sum(asked.path.startswith(path) for asked in self.shelf.asked)

    def forget(self) -> None:
        self.shelf.asked.clear()

    def story(self, ref: str = "", source_id: str = "s") -> list[str]:
        return [line["what"] for line in self.runtime.desk.why(source_id, ref)]
