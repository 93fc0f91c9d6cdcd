"""The values that travel between the rooms. All are immutable; none does any I/O.

Times are milliseconds since the Unix epoch where the name ends in ``_ms``, aware UTC `datetime` elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

JsonObject = dict[str, Any]

WHOLE_SOURCE = ""
"""The `object_ref` of a scan event that means the whole source."""

SUBSCRIPTION = "\0subscription"
"""The `object_ref` of a scan event that means the source's subscription at its provider: see that it lives."""

DEFAULT_WORKSPACE = "default"

MAX_ID_BYTES = 512
"""Longest source, workspace or bucket id, in UTF-8 bytes."""

MAX_REF_BYTES = 4096
"""Longest object reference, in UTF-8 bytes (PATH_MAX; longer than any provider's id)."""


class ChangeKind(StrEnum):
    """What the signal says happened. Only a hint: the consumer looks at the object itself."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    SCAN = "scan"
    """Something below `object_ref` (a scope, or the whole source) changed: list the delta."""


class Signal(StrEnum):
    """Where an event came from. Reconcile events are backfill, manual ones jump the bucket, the rest are live."""

    WEBHOOK = "webhook"
    POLL = "poll"
    WATCH = "watch"
    MANUAL = "manual"
    RECONCILE = "reconcile"


class Mode(StrEnum):
    """Whether a source's events are extracted (`live`) or only recorded beside a sweep (`shadow`)."""

    LIVE = "live"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """One change signal: an idempotent claim ("go and look"), not a work item.

    `observed_at` is when the change was noticed; None means "now", by the bus's clock. `version` is a hint and may be
    wrong. `trace` is a W3C ``traceparent`` that the extraction continues.
    """

    source_id: str
    object_ref: str
    change_kind: ChangeKind = ChangeKind.UPDATED
    observed_at: datetime | None = None
    signal: Signal = Signal.WEBHOOK
    version: str | None = None
    trace: str | None = None


class Lease(NamedTuple):
    """The right to process one object until `deadline_ms`. Handed out by `Bus.claim`, given back by ack or nack.

    `fence` grows with every lease of the bus, also across a loss of Redis: a write guarded by it can never be
    overwritten by an older lease. `attempt` is 1 for the first try. `accepted_at_ms` is when the bus stored the first
    of the signals that this lease answers, `observed_at_ms` when the newest of them was noticed.
    """

    source_id: str
    object_ref: str
    change_kind: ChangeKind
    signal: Signal
    fence: int
    attempt: int
    observed_at_ms: int
    accepted_at_ms: int
    claimed_at_ms: int
    deadline_ms: int
    version: str | None
    trace: str | None
    field: bytes
    """The bus's own name for the object; callers pass it back untouched."""
    newer: bool = False
    """Of a scan that goes on with a pass begun by an earlier lease: signals have come since that are newer than the pass."""


@dataclass(frozen=True, slots=True)
class QuotaLeft:
    """What a provider says is left: so many units (requests, mostly) until `left_ms` milliseconds from now."""

    units: float
    left_ms: float


@dataclass(frozen=True, slots=True)
class Quota:
    """What a source's API allows.

    `rate` in units per second (None: unlimited), `burst` in units, `concurrency` in calls at the same time. `bucket`
    names a quota shared by several sources (one credential, one tenant); None: the source has its own.
    """

    rate: float | None = None
    burst: float = 1.0
    concurrency: int = 64
    bucket: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A place that documents come from. `config` belongs to the connector; `secret` never leaves the process.

    `hook_token` is the unguessable end of its hook's address, where its provider cannot sign. None in `quota`, `window_ms`,
    `poll_interval_s` or `reconcile_interval_s` means: what the connector recommends.
    """

    id: str
    connector: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    workspace: str = DEFAULT_WORKSPACE
    quota: Quota | None = None
    window_ms: int | None = None
    poll_interval_s: float | None = None
    reconcile_interval_s: float | None = None
    mode: Mode = Mode.LIVE
    paused: bool = False
    weight: float = 1.0
    secret: str | None = field(default=None, repr=False)
    hook_token: str | None = field(default=None, repr=False)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a connector's listing: this object is here (or, with kind DELETED, the feed says it is gone).

    `version` is the strong version (etag, hash, revision) where the listing gives it. `fingerprint` is a cheap token
    (size, times, inode): equal to the one stored at the last indexing it proves the object unchanged; None proves nothing.
    """

    object_ref: str
    change_kind: ChangeKind = ChangeKind.UPDATED
    version: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """Yielded by `Connector.changes` between changes: all before it may be stored under `value`.

    `complete` says that since the pass began every object of the scope has been yielded, so what was not is absent.
    A pass that fails before it says so deletes nothing.
    """

    value: str | None
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Pass:
    """A complete listing that was cut and goes on from `cursor`, which is of the connector's `version`.

    `began_at_ms` is when its first lease was claimed, `caught_up_at_ms` when the changes that were told meanwhile were last
    asked for, both by the bus's clock. What it finds is emitted as `signal`. `counts` is what it has found so far, as JSON.
    `no` names what it has seen (0: not stored yet).
    """

    cursor: str | None
    version: int
    signal: Signal
    began_at_ms: int
    caught_up_at_ms: int
    counts: JsonObject = field(default_factory=dict[str, Any])
    no: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """How the listing of a scope stands: the `cursor` of its next delta (None: list everything), of the connector's
    `version`, and the complete listing under way, if one is. `epoch` tells whether it still counts when it is written."""

    source_id: str
    scope: str
    epoch: tuple[int, int]
    cursor: str | None
    version: int
    under_way: Pass | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request that a provider sent to a source's hook, as it came off the wire.

    `headers` has names in lower case, repeated ones joined by ", "; `query` the first value of each parameter; `body` the raw
    bytes, which is what signatures are over. `url` is the public address it was sent to, where the installation knows it.
    """

    method: str
    headers: Mapping[str, str]
    body: bytes
    received_at_ms: int
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    url: str = ""


SECRET_HERE = "{secret}"
"""Stands in a subscription's ``to_do`` for its secret, which is stored encrypted and apart."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A provider's promise to send deliveries until `expires_at_ms` (None: until it is cancelled).

    `id` is the provider's own. `secret` is what its deliveries prove themselves by, encrypted at rest and never shown;
    `state` is whatever else the connector needs to renew or cancel it, as JSON, and may be shown. Its ``to_do``, a text, is
    what a person still has to do at the provider; it is shown with the subscription. Where it says `SECRET_HERE` the secret is
    filled in, for whoever sits at the server's own command line and nobody else.
    """

    id: str
    expires_at_ms: int | None = None
    secret: str | None = field(default=None, repr=False)
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer that a provider's handshake asks for, byte for byte."""

    body: bytes = b""
    status: int = 200
    media_type: str = "text/plain"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Content:
    """An object's content as it came in a delivery, for sources that cannot be asked. `body` None: the object is gone.

    `order` grows with each state of the object where the provider says which came first (a sequence, a time): what comes
    late does not replace what is newer. None: the last to arrive is the newest.
    """

    object_ref: str
    version: str
    body: bytes | None
    title: str = ""
    media_type: str = "text/plain"
    order: float | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What a verified delivery says.

    `changes`: objects, or scopes (kind SCAN) where the provider only says that something changed. They are stored before
    the delivery is answered. `reply` answers a handshake; None means 202 once everything is stored.
    `contents` are contents to keep, before the changes are stored (see `UsesDepot` in `connectors.base`).
    `delivery_id` is the same for a delivery that is sent again (None: the provider gives none). `lost` are subscriptions that
    the provider has ended, `renew` those that it wants renewed now, `keep` one that this delivery has confirmed or brought.
    `note` says, for people, what it was where nothing follows from it (a ping, an event of no interest).
    """

    changes: Sequence[Change] = ()
    contents: Sequence[Content] = ()
    reply: Reply | None = None
    delivery_id: str | None = None
    lost: Sequence[str] = ()
    renew: Sequence[str] = ()
    keep: Subscription | None = None
    note: str = ""

    @property
    def lasts(self) -> bool:
        """Whether anything beside its changes is to be stored."""
        return bool(self.keep is not None or self.lost or self.renew or self.contents)


@dataclass(frozen=True, slots=True)
class DeliveryLine:
    """One line of a source's deliveries log: what came, what it was taken for and what followed.

    `result` is a word of `sourcebus.intake.deliveries.RESULTS`, `detail` a small JSON object for people. `headers` and `query`
    have their secrets masked. `delivery` is the whole request, encrypted at rest; None where it was not kept: there is no key
    to encrypt it with, or its body is too long. `id` is given by the catalog.
    """

    source_id: str
    at_ms: int
    method: str
    result: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body_bytes: int
    duration_ms: float
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    delivery: Delivery | None = field(default=None, repr=False)
    id: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A searchable text. `part` tells several documents of one object apart (an attachment's name); "" for the only one."""

    text: str
    title: str = ""
    part: str = ""
    media_type: str = "text/plain"
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Extraction:
    """What `Connector.extract` read: the documents, and the version of exactly those bytes."""

    documents: Sequence[Document]
    version: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """What the catalog knows of an object: the version last settled, by which lease, and when.

    `state` is ``indexed``, ``unreadable`` (this version was looked at and cannot be extracted) or ``deleted``
    (a tombstone that keeps an older lease from bringing the object back).
    """

    version: str
    fingerprint: str | None
    fence: int
    settled_at_ms: int
    state: str = "indexed"


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One line of an object's story, as `sourcebus why` shows it. `detail` is a small JSON object."""

    at_ms: int
    what: str
    detail: JsonObject


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one lease ended, for the catalog to write in one transaction: the version, its documents and the story line.

    `what`: ``indexed`` (documents replace the old ones), ``deleted`` (documents removed, tombstone kept), ``unreadable``
    (documents removed, version kept), ``unchanged`` (nothing but fingerprint and story), ``note`` (story only: a failure,
    a scan).
    """

    source_id: str
    object_ref: str
    fence: int
    what: str
    at_ms: int
    version: str | None = None
    fingerprint: str | None = None
    documents: Sequence[Document] = ()
    detail: JsonObject = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `snippet` marks the matches with ``<mark>`` and is HTML-escaped otherwise."""

    source_id: str
    object_ref: str
    title: str
    snippet: str
    version: str
    indexed_at: datetime
    score: float


def from_ms(at_ms: float) -> datetime:
    """Milliseconds since the epoch as an aware UTC datetime."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def to_ms(at: datetime) -> int:
    """An aware datetime as milliseconds since the epoch."""
    return round(at.timestamp() * 1000)
