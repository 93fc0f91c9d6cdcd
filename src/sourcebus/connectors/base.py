"""What a connector is: the few calls through which sourcebus talks to one kind of source.

A connector lists (`changes`), says which version an object has now (`version`) and reads it (`extract`). It knows nothing
of Redis, SQL or Celery. It is built once per process and source and then called from several threads at the same time.

Failures are the `ConnectorError` branch of `sourcebus.errors`. Any other exception counts as a fault that may pass: the
event is tried again later.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from sourcebus.errors import InvalidInput
from sourcebus.model import WHOLE_SOURCE, Change, Content, Cursor, Delivery, Extraction, Heard, Quota, QuotaLeft, Subscription


@dataclass(frozen=True, slots=True)
class Recommended:
    """What holds for a source that does not set it itself.

    `quota` is what the outside API allows, `window_ms` the dedup window, `poll_interval_s` the time between two listings while
    nothing pushes, `reconcile_interval_s` the time between two complete ones beside working webhooks. `cost` is what one
    claim is charged in the quota's units before its true cost is known (see `Costly`).
    """

    quota: Quota = field(default_factory=Quota)
    window_ms: int = 30_000
    poll_interval_s: float = 600.0
    reconcile_interval_s: float = 21_600.0
    cost: float = 1.0


class Connector(abc.ABC):
    """One kind of source. Subclass it, or wrap what exists already with `connector_from`.

    An object is named by its `object_ref`: any non-empty text of at most `MAX_REF_BYTES` that means the same object in every
    process and after every restart.
    """

    name: str
    """The connector's name in ``POST /v1/sources`` and in the entry-point group."""

    recommended: Recommended = Recommended()

    cursor_version: int = 1
    """Raised when this connector's cursors mean something else than before: what is stored is then listed anew."""

    needs_secret_path: bool = False
    """Of a connector that hears: its provider cannot sign, so a delivery has to come to an address nobody can guess. The
    gateway answers any other like one that does not exist."""

    webhook_media_types: Sequence[str] = ()
    """Of a connector that hears: the only media types that a delivery with a body may have; () for any."""

    replay_horizon_s: float = 345_600.0
    """Of a connector that hears: for how long a `Heard.delivery_id` is remembered. Four days: longer than any provider of
    ours repeats a delivery by itself (GitHub lets one redeliver by hand for three)."""

    @classmethod
    @abc.abstractmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """A connector for one source. Checks the config, without talking to the source.

        Raises `InvalidInput` whose `field` starts with ``config`` and names the offending key; unknown keys are refused.
        """

    @abc.abstractmethod
    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """List what changed below `scope` since `cursor` (None: since ever), and the cursors to go on from.

        A source that cannot tell what changed lists everything that is there. The pass ends with a `Cursor`. Only with
        ``complete=True`` in it does absence mean anything: every object of the scope was yielded in this pass. A source that
        does not answer raises `SourceUnavailable`; it never passes for an empty one. A feed that cannot go on from `cursor`
        raises `CursorExpired` before it yields anything.

        A feed of many pages yields a `Cursor` after each: a pass may be cut there (its quota is spent, its worker stops)
        and is then taken up from that cursor, also where it began with None. A pass that says ``complete`` at its end
        says so of all its parts.

        A `Change` of kind SCAN hands a scope over to a pass of its own: a mailbox or folder that is new, gone, replaced, or
        whose deletes the feed of the whole cannot name.
        """

    @abc.abstractmethod
    def version(self, ref: str) -> str | None:
        """The object's strong version now: etag, revision, content hash. None: the source confirms that it is gone.

        Two different contents never share a version, so a modification time alone is none. Equal to the `Extraction.version`
        of the same content. Not to know (time-out, refused) is a `ConnectorError`, never None.
        """

    @abc.abstractmethod
    def extract(self, ref: str) -> Extraction:
        """Read the object: its documents, and the version of exactly what was read.

        Raises `ObjectGone` where the source confirms that it is gone, `ObjectUnreadable` where this version cannot be
        extracted, else `SourceUnavailable`, `Throttled`, `NeedsAuth`.
        """

    def fingerprint(self, ref: str) -> str | None:
        """The cheap token that a listing would give this object now; None where there is none, or it proves nothing yet.

        Asked *before* `version`, it may be stored with that version.
        """
        del ref
        return None

    def scope_prefix(self, scope: str) -> str:
        """The objects of a scope are those whose reference starts with this."""
        return scope

    def close(self) -> None:  # noqa: B027 - most connectors hold nothing
        """Let go of connections and files. May be called twice."""


@runtime_checkable
class Watches(Protocol):
    """A connector whose source can push: the filesystem's events, a long poll, a socket."""

    def watch(self, stop: threading.Event, *, step_ms: int) -> Iterator[Sequence[Change]]:
        """Wait for changes and yield them in batches, until `stop` is set.

        What changes within `step_ms` comes in one batch. A `Change` of kind SCAN asks for a listing of the scope that its
        `object_ref` names: whenever a watch begins, was interrupted, or lost events. Between the first batch and the end of
        the iteration every change is covered, by its own `Change` or by such a scan.
        """
        ...


@runtime_checkable
class Metered(Protocol):
    """A connector whose provider says what is left of the quota with its answers."""

    def quota_left(self) -> QuotaLeft | None:
        """What the newest answer said, once: None until the next one says it again. Called between two extractions, by the
        thread that extracts."""
        ...


@runtime_checkable
class Costly(Protocol):
    """A connector whose calls cost different numbers of the quota's units."""

    def take_cost(self) -> float:
        """What the calling thread has spent since it last asked, in units."""
        ...


@runtime_checkable
class Batched(Protocol):
    """A connector that can answer for many objects by one look at the source: a repository's head, a table of contents."""

    def begin_batch(self) -> None:
        """Called by a thread that has just claimed objects of this source, before it asks for the first of them. What the
        thread asks until it calls this again may be answered by anything learned after this call, instead of anew."""
        ...


@runtime_checkable
class Hears(Protocol):
    """A connector whose provider sends webhooks."""

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """What a delivery to the source's hook says. `subscriptions` are the source's living ones, newest first.

        Proves the raw bytes first, in constant time, against every live secret; only then parses. Raises `Unverified`,
        or `InvalidInput` for a proven body that makes no sense. Runs in the gateway while the provider waits: it talks to
        nobody. There are two exceptions: a signing key that has to be fetched, and is kept; and a proven handshake that is
        answered by a call (SNS). Where these fail it raises the `ConnectorError`, and the provider sends it again.
        """
        ...


@runtime_checkable
class Subscribes(Protocol):
    """A connector that asks its provider to send webhooks, and has to keep asking. Used together with `Hears`."""

    def subscribe(self, hook_url: str) -> Subscription:
        """Have deliveries sent to `hook_url`, which answers the provider's handshake during this call.

        Called again where there is a subscription already: the new one takes over, the old one lives until it ends.
        """
        ...

    def renew(self, subscription: Subscription, hook_url: str) -> Subscription:
        """A longer life for it: the same one, or its successor under a new id. Raises `SubscriptionLost`."""
        ...

    def unsubscribe(self, subscription: Subscription) -> None:
        """Cancel it. One that the provider does not know is cancelled already."""
        ...


class Depot(Protocol):
    """Where the contents of one source are kept: what it would answer if it could be asked."""

    def get(self, ref: str) -> Content | None:
        """The newest state of an object; None if there never was one."""
        ...

    def refs(self) -> Iterator[tuple[str, str]]:
        """Reference and version of every object that is there."""
        ...


@runtime_checkable
class UsesDepot(Protocol):
    """A connector whose objects come whole in its deliveries (`Heard.contents`), and are read from a depot afterwards."""

    def use_depot(self, depot: Depot) -> None:
        """Called once, before the connector is asked for anything."""
        ...


def refuse_unknown(config: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise `InvalidInput` naming the first key of `config` that is not allowed, and those that are."""
    for key in config:
        if key not in allowed:
            fix = "allowed: " + (", ".join(allowed) or "none")
            raise InvalidInput(f"config.{key}", "is not a setting of this connector", fix)
