"""Every step of a run as a JSON line, and their digest: two runs of one world give the same, to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256


class Trace:
    """`sink` takes each line, with its end; None: only the digest is kept."""

    def __init__(self, at_ms: Callable[[], float], sink: Callable[[str], object] | None) -> None:
        self._at_ms, self._sink = at_ms, sink
        self._hash = sha256()
        self.lines = 0

    def line(self, did: str, **what: object) -> None:
        text = json.dumps({"at": round(self._at_ms(), 3), "did": did, **what}, separators=(",", ":")) + "\n"
        self.lines += 1
        self._hash.update(text.encode())
        if self._sink:
            self._sink(text)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()
