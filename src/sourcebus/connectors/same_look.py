"""One answer for the questions of one look: fingerprint, version and content of an object are asked for one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Found = TypeVar("Found")
Made = TypeVar("Made")

_ORDER: Final = ("fingerprint", "version", "extract")


@dataclass(slots=True)
class Looked(Generic[Found, Made]):
    """What was `found` at `ref` (None: nothing), for the `call` that asked last. `made` is what that call made of it, for the
    next one."""

    call: str
    ref: str
    at_s: float
    found: Found | None
    made: Made | None = None


class SameLook(Generic[Found, Made]):
    """Spares the second request for an object that this thread has just asked about.

    Only an earlier call of the same look is taken at its word (fingerprint before version before extract), and for `reuse_s`
    only: a call out of that order begins a look of its own, and so does any call for an object that was not there, because
    it may be back.
    """

    def __init__(self, fetch: Callable[[str], Found | None], reuse_s: float) -> None:
        self._fetch, self._reuse_s = fetch, reuse_s
        self._thread = threading.local()

    def ask(self, call: str, ref: str) -> Looked[Found, Made]:
        """The object as an earlier call of this look has found it, else as it is now. Raises what `fetch` raises."""
        looked: Looked[Found, Made] | None = getattr(self._thread, "looked", None)
        self._thread.looked = None
        if looked is None or not self._goes_on(looked, call, ref):
            looked = Looked(call, ref, time.monotonic(), self._fetch(ref))
        looked.call = call
        if looked.found is not None and call != _ORDER[-1]:
            self._thread.looked = looked
        return looked

    def _goes_on(self, looked: Looked[Found, Made], call: str, ref: str) -> bool:
        in_order = _ORDER.index(looked.call) < _ORDER.index(call)
        return looked.ref == ref and in_order and time.monotonic() - looked.at_s < self._reuse_s
