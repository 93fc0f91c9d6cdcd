"""How fresh a source is kept, as pure policy: when it is listed and how, what one listing may spend, whether webhooks can be
relied on, when a subscription is renewed.

Nothing here reads a clock or does any I/O. Times are seconds or milliseconds as the names say; units are those of a quota.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sourcebus.model import Quota, Signal

_LENT_S = 1.0


def may_spend(quota: Quota) -> float:
    """Units that one listing may spend before it is cut and waits for its turn: the burst, or what the rate brings in a second.

    The bucket lets a claim begin when it has the tokens for one call. What a listing spends beyond is a debt that every other
    call on the bucket waits for, so it is no more than what the bucket could have lent to anybody at once.
    """
    return float("inf") if quota.rate is None else max(quota.burst, quota.rate * _LENT_S)


def complete_is_due(signal: Signal, last_ms: float | None, now_ms: float, reconcile_interval_s: float) -> bool:
    """Whether a listing of a whole source that could go on from its cursor should begin anew, as a complete one.

    A delta tells what the feed tells; only a complete listing finds what the feed lost and no webhook announced. It comes once
    per `reconcile_interval_s`, on the scan that is on a timer anyway, never on one that a webhook or a watch asks for. A
    reconcile scan that comes early for another reason (a watch was interrupted) is content with the delta.
    """
    if signal in (Signal.WEBHOOK, Signal.WATCH):
        return False
    if last_ms is None:
        return True
    share = 0.5 if signal is Signal.RECONCILE else 1.0
    return now_ms - last_ms >= reconcile_interval_s * 1000 * share


# --- subscriptions ------------------------------------------------------------------------------------------------------

LOOK_AFTER_MS = 86_400_000
"""A subscription without an end is looked after this often all the same."""

_RENEW_AT = (0.62, 0.70)
_RETRY_MS, _MOST_RETRY_MS = 10_000, 3_600_000


def renew_at_ms(made_at_ms: int, expires_at_ms: int | None, chance: float) -> int | None:
    """When to renew: at about two thirds of its life, so that a third of it is left to try again. `chance` (0 to 1) spreads
    what was subscribed together. None: it does not end."""
    if expires_at_ms is None:
        return None
    least, most = _RENEW_AT
    return made_at_ms + round(max(0, expires_at_ms - made_at_ms) * (least + chance * (most - least)))


def retry_upkeep_ms(failures: int, chance: float) -> int:
    """How long to wait after so many failures in a row: 10 s, doubled each time, an hour at most, minus up to a third."""
    return round(min(_MOST_RETRY_MS, _RETRY_MS * 2 ** (failures - 1)) * (1 - chance / 3))


# --- how a source is heard, and how often it is listed ------------------------------------------------------------------


class Feeding(StrEnum):
    """How changes of a source become known."""

    POLL = "poll"
    """It is listed on a timer; nobody pushes, or it has not been proven yet."""
    PUSH = "push"
    """Webhooks tell, and slow complete listings find what they did not."""
    FALLBACK = "fallback"
    """Webhooks should tell and cannot be relied on now: it is listed as if there were none."""


ENOUGH = 20
"""So many changes must have been seen before their share means anything."""

LEAST_COVERAGE = 0.9
"""Below this share of announced changes webhooks are not relied on."""

_SILENT_GAPS, _SILENT_CHANGES, _SILENT_SCANS = 10, 5, 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a source's webhooks. `hears`: its connector understands them. `wanted`: it is to be subscribed.

    `subscribed`: a subscription lives. `by_hand`: a person has set them up at the provider. `announced` and `missed` count
    changes since the last switch; `unheard` those missed since something was last heard, `silent_ms` ago (None: never), where
    the usual gap is `gap_ms` (None: not known yet); `quiet_scans` listings in a row have found some and nothing was heard.
    """

    hears: bool
    wanted: bool = False
    subscribed: bool = False
    by_hand: bool = False
    announced: int = 0
    missed: int = 0
    unheard: int = 0
    silent_ms: float | None = None
    gap_ms: float | None = None
    quiet_scans: int = 0


def judge_feeding(now: Feeding, seen: Evidence) -> tuple[Feeding, str]:
    """How the source is to be fed, and why in plain words ("": nothing new to say).

    From a fallback it comes back only when enough changes have proven its webhooks good again.
    """
    if not seen.hears:
        return Feeding.POLL, ""
    if seen.wanted and not seen.subscribed:
        return (Feeding.POLL, "") if now is Feeding.POLL else (Feeding.FALLBACK, "its subscription has ended")
    total = seen.announced + seen.missed
    share = seen.announced / total if total else 0.0
    proven = total >= ENOUGH and share >= LEAST_COVERAGE
    if total >= ENOUGH and not proven:
        return _unless_polled(now, f"only {share:.0%} of its changes were announced")
    silent = seen.silent_ms is not None and seen.gap_ms is not None and seen.silent_ms > _SILENT_GAPS * seen.gap_ms
    # What one listing finds may all be from a time when the rest was heard; what the next finds is not.
    if silent and seen.unheard >= _SILENT_CHANGES and seen.quiet_scans >= _SILENT_SCANS:
        return _unless_polled(now, f"nothing was heard while {seen.unheard} changes were found")
    trusted = seen.subscribed or seen.by_hand
    if proven or (trusted and now is not Feeding.FALLBACK):
        return Feeding.PUSH, ""
    return now, ""


def _unless_polled(now: Feeding, reason: str) -> tuple[Feeding, str]:
    return (Feeding.POLL, "") if now is Feeding.POLL else (Feeding.FALLBACK, reason)


_POLL_SPAN = 10.0
_SCAN_SHARE = 4.0
_LEAST_POLL_S = 1.0


def next_poll_s(present_s: float, most_s: float, *, found: int, took_s: float, failed: bool = False) -> float:
    """Seconds until the next poll of a source whose configured interval is `most_s`, after one that `found` changes.

    It is halved while changes are found and grows by half while none are, between a tenth of the configured interval (and four
    times what a listing takes, so that it never lists all the time) and the configured interval, which is the bound that
    staleness is promised by. After a failure it doubles. 0 stays 0: never.
    """
    if most_s <= 0:
        return 0.0
    factor = 2.0 if failed else 0.5 if found else 1.5
    least_s = max(_LEAST_POLL_S, most_s / _POLL_SPAN, _SCAN_SHARE * took_s)
    return min(most_s, max(least_s, (present_s or most_s) * factor))


JITTER = 1.1
"""The bus spreads polls by a tenth."""


def staleness_bound_s(interval_s: float, scan_s: float, queue_s: float) -> float | None:
    """Within so many seconds a change that nobody announces is found: the longest wait for a listing, the listing, and the wait
    for a worker. None: it is never listed."""
    return interval_s * JITTER + scan_s + queue_s if interval_s > 0 else None


_SLOTS_PER_INTERVAL = 2.0
_FALLBACK_S = 600.0


def coverage_slot_ms(poll_interval_s: float, reconcile_interval_s: float) -> float:
    """How long one slot of the coverage's window is: of 16, so that it reaches over eight reconcile intervals."""
    return max(1_000.0, (reconcile_interval_s or poll_interval_s or 3_600.0) * 1000 / _SLOTS_PER_INTERVAL)


def intervals_of(feeding: Feeding, poll_interval_s: float, reconcile_interval_s: float) -> tuple[float, float]:
    """The longest poll interval and the reconcile interval, in seconds, of a source that is fed so.

    A source that is never polled while its webhooks work (0) still has to be while they do not.
    """
    if feeding is Feeding.FALLBACK and poll_interval_s <= 0:
        return min(_FALLBACK_S, reconcile_interval_s or _FALLBACK_S), reconcile_interval_s
    return poll_interval_s, reconcile_interval_s
