"""What the bus answers with, and how a lease or an object's record is unpacked. How a source stands: `standing`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sourcebus.bus.keys import OBJECT, SCOPE, decode_ref, encode_ref
from sourcebus.bus.scripts import layouts
from sourcebus.errors import InvalidInput
from sourcebus.model import MAX_REF_BYTES, ChangeKind, JsonObject, Lease, Signal, SourceChanged, from_ms

KINDS = (ChangeKind.CREATED, ChangeKind.UPDATED, ChangeKind.DELETED, ChangeKind.SCAN)
SIGNALS = (Signal.WEBHOOK, Signal.POLL, Signal.WATCH, Signal.MANUAL, Signal.RECONCILE)
KIND_CODE = {kind: code for code, kind in enumerate(KINDS)}
SIGNAL_CODE = {signal: code for code, signal in enumerate(SIGNALS)}
_NEWER = 4  # core.lua's flag
STATES = ("absent", "ready", "delayed", "in_flight", "cooling")

_PAYLOAD = struct.Struct(layouts()["P"].format)
_RECORD = struct.Struct(layouts()["R"].format)
_SINCE = struct.Struct(layouts()["T"].format)
_LEASED = struct.Struct("<" + "".join(layouts()[part].codes for part in "RXTP"))
_SETTLEMENT = struct.Struct("<ddd")


class Settle(StrEnum):
    """How a lease may end without success; see `Bus.nack`."""

    FAILED = "failed"
    HOPELESS = "hopeless"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Emitted:
    """What became of signals that are now stored: `accepted` start a claim of their own, `merged` join one that is
    pending, `deferred` wait for the end of the window or of the extraction under way, `overflowed` were folded into one
    scan of their source. `invite` are the invitations to publish (none for those who run no Celery)."""

    accepted: int
    merged: int
    deferred: int
    overflowed: int
    invite: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """Leases, or how long to wait: `next_due_ms` is None when nothing is due at all. `waiting`: this consumer counts as
    waiting and will be woken. `invite` are invitations to publish: more is ready than one consumer takes."""

    leases: list[Lease]
    now_ms: int
    waiting: bool
    next_due_ms: int | None
    invite: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """Per lease: True where it was the living one, False where it had been lost, so that nothing was changed."""

    done: list[bool]
    invite: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Answer to a manual refresh. `status`: queued, running (one more follows), provider_pause, paused or capped; the last
    is a refusal. `until_ms` is when a capped one becomes possible, or the provider's pause ends; else None."""

    status: str
    until_ms: int | None
    invite: tuple[int, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.status != "capped"


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one round of housekeeping did. A changed `epoch` means that Redis lost its data."""

    epoch: int
    promoted: int
    reaped: int
    polls: int
    invite: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of a source's live signals: changes that were `announced` by one and `missed` by all, over the sliding
    window; the same since the evidence was last begun anew; when one was last heard (ms), how long the usual gap is, and how
    many missed changes have been found since."""

    announced: int
    missed: int
    announced_since: int
    missed_since: int
    last_ms: int | None
    gap_ms: int | None
    unheard: int

    @property
    def coverage(self) -> float | None:
        """The share of changes that were announced. None: there were none."""
        return self.announced / (self.announced + self.missed) if self.announced + self.missed else None


def unpack_heard(stored: Mapping[bytes, bytes]) -> Heard:
    """What tally.lua has stored."""
    counted = {name.decode(): int(float(value)) for name, value in stored.items()}
    slots = [(name[0], value) for name, value in counted.items() if name[1:].isdecimal()]
    return Heard(
        sum(value for kind, value in slots if kind == "a"),
        sum(value for kind, value in slots if kind == "m"),
        counted.get("announced", 0),
        counted.get("missed", 0),
        counted.get("heard"),
        counted.get("gap"),
        counted.get("unheard", 0),
    )


@dataclass(frozen=True, slots=True)
class Vitals:
    """The bus's time, its live consumers, how many of them wait for work, and when housekeeping was done last (None: never)."""

    now_ms: int
    consumers: int
    waiting: int
    ticked_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event whose attempts are used up, with the last error. A newer change of the object is not held up by it."""

    id: str
    source_id: str
    object_ref: str
    change_kind: ChangeKind
    signal: Signal
    attempts: int
    error: str
    accepted_at_ms: int
    died_at_ms: int

    def as_json(self) -> JsonObject:
        """As ``GET /v1/dead-letters`` and ``sourcebus dlq`` show it; times are RFC 3339 in UTC."""
        return {
            "id": self.id,
            "source_id": self.source_id,
            "object_ref": self.object_ref,
            "change_kind": self.change_kind.value,
            "signal": self.signal.value,
            "attempts": self.attempts,
            "error": self.error,
            "accepted_at": _utc(self.accepted_at_ms),
            "died_at": _utc(self.died_at_ms),
        }


@dataclass(frozen=True, slots=True)
class Peek:
    """What the bus knows of one object now. `state`: absent, ready, delayed, in_flight or cooling; `at_ms` is when a delayed
    one is due or a cooling one may run again; `dirty`: a newer change came while it is in flight."""

    state: str
    attempts: int
    since_ms: int | None
    at_ms: int | None
    dirty: bool
    dead_letter: str | None


def _utc(at_ms: int) -> str:
    return from_ms(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def key_of(object_ref: str, kind: ChangeKind) -> bytes:
    """An object's name within its source; scopes have a namespace of their own."""
    return (SCOPE if kind is ChangeKind.SCAN else OBJECT) + encode_ref(object_ref)


def pack_event(event: SourceChanged, at: int | None = None) -> tuple[bytes, bytes]:
    """Key and payload of one signal. InvalidInput names the field; `at` is the event's place in its batch."""
    where = "" if at is None else f"events[{at}]."
    key = key_of(event.object_ref, event.change_kind)
    if len(key) > MAX_REF_BYTES + 1:
        raise InvalidInput(f"{where}object_ref", f"is {len(key) - 1} bytes long", f"use at most {MAX_REF_BYTES}")
    if len(key) == 1 and event.change_kind is not ChangeKind.SCAN:
        raise InvalidInput(f"{where}object_ref", "is empty", 'only change_kind "scan" may leave it empty, for the whole source')
    observed_ms = event.observed_at.timestamp() * 1000 if event.observed_at else 0.0
    tail = b""
    if event.version or event.trace:
        version = encode_ref(event.version or "")[:512]
        tail = struct.pack("<H", len(version)) + version + encode_ref(event.trace or "")[:128]
    return key, _PAYLOAD.pack(KIND_CODE[event.change_kind], SIGNAL_CODE[event.signal], observed_ms) + tail


def _split_tail(tail: bytes) -> tuple[str | None, str | None]:
    (size,) = struct.unpack_from("<H", tail)
    version, trace = tail[2 : 2 + size], tail[2 + size :]
    return version.decode("utf-8", "replace") or None, trace.decode("utf-8", "replace") or None


def unpack_lease(source_id: str, field: bytes, key_at: int, packed: bytes, deadline_ms: int) -> Lease:
    """A claim's field (whose key begins at `key_at`) and record as a lease."""
    _, _, attempts, flags, fence, claimed, _, _, _, since, kind, signal, observed = _LEASED.unpack_from(packed)
    version, trace = _split_tail(packed[_LEASED.size :]) if len(packed) > _LEASED.size else (None, None)
    return Lease(
        source_id,
        field[key_at + 1 :].decode("utf-8", "surrogatepass"),
        KINDS[kind],
        SIGNALS[signal],
        int(fence),
        attempts,
        int(observed or since),
        int(since),
        int(claimed),
        deadline_ms,
        version,
        trace,
        field,
        bool(flags & _NEWER),
    )


def pack_settlement(fence: int, cost: float, service_ms: float) -> bytes:
    """How a lease ended well, as ack.lua reads it."""
    return _SETTLEMENT.pack(fence, cost, service_ms)


def unpack_peek(packed: bytes, dead_letter: bytes) -> Peek:
    letter = dead_letter.decode() or None
    if not packed:
        return Peek("absent", 0, None, None, False, letter)
    state, _lane, attempts, _flags, at = _RECORD.unpack_from(packed)
    match STATES[int(state)]:
        case "in_flight":
            leased: tuple[Any, ...] = _LEASED.unpack_from(packed)
            return Peek("in_flight", attempts, int(leased[9]), None, bool(leased[8]), letter)
        case "cooling":
            return Peek("cooling", 0, None, int(at), False, letter)
        case now:
            (since,) = _SINCE.unpack_from(packed, _RECORD.size)
            return Peek(now, attempts, int(since), int(at) or None, False, letter)


def unpack_dead_letter(
    letter_id: bytes, source: bytes, field: bytes, kind: int, signal: int, attempts: int, error: bytes, since: int, died: int
) -> DeadLetter:
    return DeadLetter(
        letter_id.decode(),
        decode_ref(source),
        decode_ref(field[field.index(b":") + 2 :]),
        KINDS[kind],
        SIGNALS[signal],
        attempts,
        error.decode("utf-8", "replace"),
        since,
        died,
    )
