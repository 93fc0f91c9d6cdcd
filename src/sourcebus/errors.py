"""Every exception that sourcebus raises on purpose.

Expected answers (an object that did not change, a refresh over its cap, a lost lease) are values, not
exceptions. An exception means that the caller cannot get what was asked for::

    SourcebusError
    ├── InvalidInput            what the caller sent cannot be used; names the field and the fix
    │   └── UnknownSource       no source with that id
    ├── Unverified              a delivery does not prove that it comes from its provider
    ├── Conflict                it exists already, or its state does not allow this
    ├── BusError                the event bus
    │   ├── BusUnavailable      Redis cannot be reached, is loading, or refuses writes
    │   └── ContractError       a script and its caller disagree (a packaging mistake, never bad input)
    ├── CatalogError            the SQL side
    │   ├── CatalogUnavailable  the database cannot be reached or stays locked
    │   └── StorageFull         the disk or the database has no room left
    ├── SinkError               a place outside did not take the documents; they will be sent again
    └── ConnectorError          a connector could not do its work; `retry` says whether trying again helps
        ├── ObjectGone          the object does not exist any more (404, 410): a confirmed delete
        ├── ObjectUnreadable    this object cannot be extracted (binary, too large, no permission, broken)
        ├── SourceUnavailable   the whole source does not answer now (root missing, 5xx, time-out)
        ├── Throttled           the provider says wait (429 and its cousins); costs no attempt
        ├── NeedsAuth           credentials are missing, expired or refused
        ├── CursorExpired       the feed cannot go on from this cursor: list everything anew
        └── SubscriptionLost    the provider does not know this subscription any more: subscribe anew
"""

from __future__ import annotations


class SourcebusError(Exception):
    """Base of everything raised here on purpose."""


class InvalidInput(SourcebusError):
    """What was sent cannot be used.

    `field` is the path of the offending field (``events[3].source_id``, ``quota.rate``), `problem` what is wrong
    with it, `fix` what to send instead.
    """

    def __init__(self, field: str, problem: str, fix: str = "") -> None:
        self.field, self.problem, self.fix = field, problem, fix
        super().__init__(f"{field}: {problem}" + (f"; {fix}" if fix else ""))


class UnknownSource(InvalidInput):
    """No source is registered under this id."""

    def __init__(self, source_id: str, field: str = "source_id") -> None:
        self.source_id = source_id
        super().__init__(field, f"there is no source {source_id!r}", "add it first: sourcebus source add")


class Unverified(SourcebusError):
    """A delivery does not prove that it comes from its provider, or is too old to be believed. Says why, never the secret."""


class Conflict(SourcebusError):
    """The thing exists already, or its present state does not allow the request."""


class BusError(SourcebusError):
    """The event bus cannot do what was asked."""


class BusUnavailable(BusError):
    """Redis cannot be reached, is still loading its data, or refuses writes. Nothing was stored."""


class ContractError(BusError):
    """A Lua script and its Python caller disagree. A packaging mistake, never the caller's input."""


class CatalogError(SourcebusError):
    """The SQL side cannot do what was asked."""


class CatalogUnavailable(CatalogError):
    """The database cannot be reached, or stayed locked beyond the busy time-out. Nothing was written."""


class StorageFull(CatalogError):
    """The disk or the database has no room left. Nothing was written; the event stays pending."""


class SinkError(SourcebusError):
    """A place outside of sourcebus did not take the outcomes it was sent. They will come again."""


class ConnectorError(SourcebusError):
    """A connector could not do its work. `retry` is False where trying again cannot help until the object changes."""

    retry = True


class ObjectGone(ConnectorError):
    """The source says that the object does not exist (404, 410, ENOENT): a confirmed delete."""


class ObjectUnreadable(ConnectorError):
    """This object cannot be extracted as it is. `reason` is a short stable word: ``binary``, ``too_large`` …

    It is an answer about this version, so it is recorded as such and not tried again until the object changes.
    """

    retry = False

    def __init__(self, reason: str, detail: str, *, version: str | None = None, fingerprint: str | None = None) -> None:
        self.reason, self.detail, self.version, self.fingerprint = reason, detail, version, fingerprint
        super().__init__(f"{reason}: {detail}")


class SourceUnavailable(ConnectorError):
    """The whole source does not answer now: its root is missing, the network is down, it sends 5xx."""


class Throttled(ConnectorError):
    """The provider asks to wait. `retry_after_ms` is its own figure in milliseconds, None where it gave none."""

    def __init__(self, detail: str, retry_after_ms: int | None = None) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(detail)


class NeedsAuth(ConnectorError):
    """Credentials are missing, expired or refused. A person has to act."""


class CursorExpired(ConnectorError):
    """The provider's change feed cannot go on from this cursor (410, a reset). The scope is listed anew, as a whole."""


class SubscriptionLost(ConnectorError):
    """The provider does not know the subscription any more. A new one is made, and the source is scanned."""
