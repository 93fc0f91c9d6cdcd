"""How a source stands, and why it is not running now: decided here from what the bus has stored, and said
here in plain words.

Every screen and answer (`sourcebus status`, `sourcebus top`, the page, ``/v1/status``) says it by these words, so that a
source which its own gate holds back and one which lacks a worker look different everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sourcebus.bus.scripts import layouts
from sourcebus.clock import duration

REASONS: Final = ("tokens", "provider_pause", "out_of_reach", "cap", "window_or_backoff", "no_worker", "workers_busy", "paused")
"""Why what is pending does not run. The first five are the source's own gates, the next two a want of workers."""

WAITED: Final = ("tokens", "provider_pause", "cap", "window", "no_worker")
"""What waiting is counted by. ``window`` is any delay of single objects, ``no_worker`` any time ready and not claimed."""

COUNTED_AS: Final[Mapping[str, str]] = {
    "tokens": "tokens",
    "provider_pause": "provider_pause",
    "out_of_reach": "provider_pause",
    "cap": "cap",
    "window_or_backoff": "window",
    "no_worker": "no_worker",
    "workers_busy": "no_worker",
}
"""Reason → the name in `WAITED` under which its time is counted. Being paused by a person is not counted."""

_IN_READY, _IN_WAIT, _WHY_PAUSE = 1, 2, 2  # place.lua's numbers
_WHYS = ("", "tokens", "provider_pause", "cap")  # by place.lua's numbers
_RECOVERY_MS = 600_000  # place.lua's: a halved rate is whole again after this long without a 429


@dataclass(frozen=True, slots=True)
class SourceStats:
    """How a source stands. `state`: idle, ready, waiting or blocked; `reason`, one of `REASONS` or "", says why what is pending
    does not run (``provider_pause``: the provider said wait; ``out_of_reach``: it gave no answer); `until_ms` is when that
    ends, where it is known. `cap` calls may run at once, of all sources of the bucket where it is `shared`. `tokens` in units
    (None: unlimited), below zero in debt. `oldest_due_ms` is when the oldest ready signal was stored. The counters are
    all-time, also `waited_ms`: for how long the source (its bucket, but for ``window``) had work that could not run, by the
    names of `WAITED`; ``window`` is added up over objects. `service_ms` is a mean; `now_ms` is the bus's time."""

    source_id: str
    state: str
    reason: str
    until_ms: int | None
    pending: int
    live: int
    backfill: int
    manual: int
    delayed: int
    in_flight: int
    cap: int
    shared: bool
    dead: int
    oldest_due_ms: int | None
    tokens: float | None
    accepted: int
    merged: int
    claimed: int
    acked: int
    nacked: int
    reaped: int
    throttled: int
    reruns: int
    overflowed: int
    service_ms: float
    learned_share: float
    waited_ms: Mapping[str, int]
    now_ms: int

    @property
    def left_s(self) -> float | None:
        """Seconds until `until_ms`, by the bus's time."""
        return None if self.until_ms is None else max(0, self.until_ms - self.now_ms) / 1000

    @property
    def oldest_due_s(self) -> float | None:
        """For how many seconds, by the bus's time, the oldest ready signal has waited."""
        return None if self.oldest_due_ms is None else max(0, self.now_ms - self.oldest_due_ms) / 1000

    @property
    def why(self) -> str:
        """Why it is not running now, or that it is, in plain words."""
        return in_words(self.state, self.reason, self.left_s, in_flight=self.in_flight, cap=self.cap, shared=self.shared)


def standing(
    source: Mapping[str, float],
    bucket: Mapping[str, float],
    now_ms: float,
    *,
    next_due_ms: int | None,
    consumers: int,
    waiting: int,
) -> tuple[str, str, int | None]:
    """State, reason and until when (ms, where that is known) of a source, from its and its bucket's stored values.

    `next_due_ms`: when the first delayed object of the source is due, None if unknown. A time that has come is no reason any
    more: where nobody works, nobody moves what was waiting for it, and it is the worker that is wanting.
    """
    ready = source["n0"] + source["n1"] + source["n2"]
    if source["paused"]:
        return "blocked", "paused", None
    if not ready and not source["delayed"]:
        if not source["in_flight"]:
            return "idle", "", None
        return "ready", "" if consumers else "no_worker", None  # leases outlive no consumer: these wait to be reaped
    if not ready and (next_due_ms is None or next_due_ms > now_ms):
        return "waiting", "window_or_backoff", next_due_ms
    if source["away"] > now_ms:
        reason = "out_of_reach" if source["away"] >= bucket["pause"] else "provider_pause"
        return "waiting", reason, int(max(source["away"], bucket["pause"]))
    if int(bucket["where"]) == _IN_WAIT and bucket["at"] > now_ms:
        return "waiting", "provider_pause" if int(bucket["why"]) == _WHY_PAUSE else "tokens", int(bucket["at"])
    if not consumers:  # before the cap: leases that nobody extends fill it until somebody reaps them
        return "ready", "no_worker", None
    if bucket["in_flight"] >= bucket["cap"]:
        return "blocked", "cap", None
    return "ready", "" if waiting else "workers_busy", None


def learned_share(bucket: Mapping[str, float], now_ms: float) -> float:
    """The share of its configured rate that a bucket may use now; below 1 for ten minutes after a 429."""
    return min(1.0, bucket["factor"] + max(0.0, now_ms - bucket["factor_at"]) / _RECOVERY_MS)


def in_words(state: str, reason: str, left_s: float | None, *, in_flight: int, cap: int, shared: bool) -> str:
    """Why a source is not running now, or that it is: ``waits for tokens, 3 s``. `left_s`: how long still, where known."""
    left = "" if left_s is None else f", {duration(left_s)}"
    match reason:
        case "paused":
            return "paused by a person" + ("; what was begun is finished" if in_flight else "")
        case "no_worker":
            return "ready, no worker is running"
        case "cap" if shared:
            return f"{_and_runs(in_flight)}its shared bucket is at its cap of {cap}"
        case "cap":
            return f"{_and_runs(in_flight)}at its cap of {cap}"
        case "workers_busy" if in_flight:
            return "running; no worker is free for more"
        case "workers_busy":
            return "ready, no worker is free"
        case "tokens":
            return f"{_and_runs(in_flight)}waits for tokens{left}"
        case "provider_pause":
            return f"{_and_runs(in_flight)}provider said wait{left}"
        case "out_of_reach":
            return f"{_and_runs(in_flight)}out of reach, tries again in {duration(left_s or 0)}"
        case "window_or_backoff":
            return f"{_and_runs(in_flight)}window or back-off{left}"
        case _ if in_flight:
            return "running"
        case _:
            return "nothing to do" if state == "idle" else "about to run"


def _and_runs(in_flight: int) -> str:
    return "running; " if in_flight else ""


def unpack_stats(
    source_id: str,
    stored: bytes,
    oldest_ms: int,
    now_ms: int,
    *,
    next_due_ms: int | None,
    consumers: int,
    waiting: int,
) -> SourceStats:
    """What inspect.lua answers for a source, as statistics; the last three as in `standing`."""
    s, b = unpack_source(stored)
    state, reason, until_ms = standing(s, b, now_ms, next_due_ms=next_due_ms, consumers=consumers, waiting=waiting)
    share = learned_share(b, now_ms)
    tokens = b["burst"] - max(0.0, b["tat"] - now_ms) * b["rate"] * share if b["rate"] else None
    settled = s["acked"] + s["nacked"]
    return SourceStats(
        source_id=source_id,
        state=state,
        reason=reason,
        until_ms=until_ms,
        pending=int(s["n0"] + s["n1"] + s["n2"] + s["delayed"]),
        live=int(s["n1"]),
        backfill=int(s["n0"]),
        manual=int(s["n2"]),
        delayed=int(s["delayed"]),
        in_flight=int(s["in_flight"]),
        cap=int(b["cap"]),
        shared=bool(b["shared"]),
        dead=int(s["dead"]),
        oldest_due_ms=oldest_ms if oldest_ms >= 0 else None,
        tokens=tokens,
        accepted=int(s["accepted"]),
        merged=int(s["merged"]),
        claimed=int(s["claimed"]),
        acked=int(s["acked"]),
        nacked=int(s["nacked"]),
        reaped=int(s["reaped"]),
        throttled=int(s["throttled"]),
        reruns=int(s["reruns"]),
        overflowed=int(s["overflowed"]),
        service_ms=s["service"] / settled if settled else 0.0,
        learned_share=share,
        waited_ms=_waited(s, b, now_ms),
        now_ms=now_ms,
    )


def _waited(source: Mapping[str, float], bucket: Mapping[str, float], now_ms: float) -> dict[str, int]:
    """The stored totals grow when a place is left, so what has been waited in the present one comes on top."""
    waited = {
        "tokens": bucket["w_tokens"],
        "provider_pause": bucket["w_pause"] + source["w_away"],
        "cap": bucket["w_cap"],
        "window": source["w_window"],
        "no_worker": bucket["w_worker"],
    }
    here = "no_worker" if int(bucket["where"]) == _IN_READY else _WHYS[int(bucket["why"])]
    if here:
        waited[here] += max(0.0, now_ms - bucket["since"])
    return {reason: int(ms) for reason, ms in waited.items()}


def unpack_source(stored: bytes) -> tuple[dict[str, float], dict[str, float]]:
    """A source's own values and its bucket's, by their names in ``layout.lua``."""
    named: dict[str, dict[str, float]] = {}
    at = 0
    for letter in "SBCN":
        layout = layouts()[letter]
        named[letter] = dict(zip(layout.fields, struct.unpack_from(layout.format, stored, at), strict=True))
        at += layout.size
    return named["S"] | named["C"] | named["N"], named["B"]
