"""How fresh a source is kept, as pure policy: when it is listed as a whole, how much one listing may spend at once.

Nothing here reads a clock or does any I/O. Times are seconds or milliseconds as the names say; units are those of a quota.
"""

from __future__ import annotations

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
