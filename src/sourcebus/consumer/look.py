"""One lease on one object: re-check the version, then extract if it differs. Decides, but writes nothing."""

from __future__ import annotations

from sourcebus.clock import Clock
from sourcebus.connectors import Connector
from sourcebus.errors import ObjectGone, ObjectUnreadable
from sourcebus.model import JsonObject, Lease, Mode, Outcome, Source, Version


def _times(lease: Lease) -> JsonObject:
    return {
        "signal": lease.signal.value,
        "observed_at_ms": lease.observed_at_ms,
        "accepted_at_ms": lease.accepted_at_ms,
        "claimed_at_ms": lease.claimed_at_ms,
        "attempt": lease.attempt,
    }


def outcome_of(lease: Lease, what: str, at_ms: int, **more: object) -> Outcome:
    """An `Outcome` for this lease, its story line carrying when the signal was observed, stored and claimed.

    `note` names the story line of an outcome that is only a note.
    """
    if "note" in more:
        more["what"] = more.pop("note")
    fields = {name: more.pop(name) for name in ("version", "fingerprint", "documents") if name in more}
    return Outcome(lease.source_id, lease.object_ref, lease.fence, what, at_ms, detail=_times(lease) | more, **fields)  # pyright: ignore[reportArgumentType]  # the three named fields only


def look(lease: Lease, source: Source, connector: Connector, known: Version | None, clock: Clock) -> Outcome:
    """What the catalog should say of the object now. Raises `ConnectorError` where the source gave no answer.

    A shadow source is looked at, but what would have been extracted is only noted.
    """
    present = known if known is not None and known.state != "deleted" else None
    shadow = source.mode is Mode.SHADOW
    try:
        if present is not None or shadow:
            settled = _recheck(lease, connector, present, clock, shadow)
            if settled is not None:
                return settled
        return _extract(lease, connector, clock)
    except ObjectGone:
        return _gone(lease, clock, present, shadow)
    except ObjectUnreadable as error:
        version = error.version if error.version is not None else connector.version(lease.object_ref)
        if version is None:
            return _gone(lease, clock, present, shadow)
        detail = {"reason": error.reason, "error": error.detail}
        return outcome_of(lease, "unreadable", clock.now_ms(), version=version, fingerprint=error.fingerprint, **detail)


def _recheck(lease: Lease, connector: Connector, present: Version | None, clock: Clock, shadow: bool) -> Outcome | None:
    """The outcome if the version alone decides it; None if the object has to be extracted."""
    ref = lease.object_ref
    fingerprint = connector.fingerprint(ref)  # before the version, so that it never vouches for bytes not looked at
    version = connector.version(ref)
    if version is None:
        return _gone(lease, clock, present, shadow)
    if present is not None and version == present.version:
        return outcome_of(lease, "unchanged", clock.now_ms(), version=version, fingerprint=fingerprint)
    return outcome_of(lease, "note", clock.now_ms(), note="would_extract", seen=version) if shadow else None


def _extract(lease: Lease, connector: Connector, clock: Clock) -> Outcome:
    began_ms = clock.monotonic_ms()
    extraction = connector.extract(lease.object_ref)
    return outcome_of(
        lease,
        "indexed",
        clock.now_ms(),
        version=extraction.version,
        fingerprint=extraction.fingerprint,
        documents=extraction.documents,
        extract_ms=round(clock.monotonic_ms() - began_ms, 1),
        parts=len(extraction.documents),
    )


def _gone(lease: Lease, clock: Clock, present: Version | None, shadow: bool) -> Outcome:
    if present is None:
        return outcome_of(lease, "note", clock.now_ms(), note="gone", detail="it did not exist any more when it was looked at")
    if shadow:
        return outcome_of(lease, "note", clock.now_ms(), note="would_delete")
    return outcome_of(lease, "deleted", clock.now_ms(), version="", word="the source says that it does not exist")
