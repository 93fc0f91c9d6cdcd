"""What stands behind a source's hook: its connector, its subscriptions, what proves a delivery, and what becomes of it.

The gateway reads requests and writes answers; here is decided what a delivery means. Everything a provider sends ends in
`Intake.accept`, like every other signal.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sourcebus.bus import Bus
from sourcebus.catalog import Catalog
from sourcebus.clock import Clock
from sourcebus.connectors import Connector, Hears
from sourcebus.errors import Conflict, InvalidInput, UnknownSource
from sourcebus.intake.accept import Intake
from sourcebus.intake.batcher import Batcher, Parcel
from sourcebus.intake.deliveries import DeliveryLog, show
from sourcebus.model import Delivery, DeliveryLine, Heard, JsonObject, Signal, Source, SourceChanged, Subscription, from_ms

_LOOKED_MS = 1_000
"""How long what was looked up is believed."""

_FRESH_MS = 100
"""What was looked up less long ago is not looked up again because a delivery was not proven by it."""

_MOST_UNKNOWN = 10_000
_SHORTEST_SECRET = 6
_SHOWN_OBJECTS = 20


class Bound(Protocol):
    """A source and its connector."""

    @property
    def source(self) -> Source: ...

    @property
    def connector(self) -> Connector: ...


@dataclass(frozen=True, slots=True)
class Hook:
    """A source's hook as it was at `looked_ms` (monotonic). `secrets` are the texts that must never be shown."""

    source_id: str
    connector: Connector
    subscriptions: Sequence[Subscription]
    token: str | None
    secrets: Sequence[str]
    looked_ms: float

    @property
    def hears(self) -> bool:
        return isinstance(self.connector, Hears)

    @property
    def keep_ms(self) -> int:
        """How long a delivery's id is remembered."""
        return round(self.connector.replay_horizon_s * 1000)

    def admits(self, token: str | None) -> bool:
        """Whether an address that ends in `token` is this hook's. In constant time."""
        if token is None:
            return not self.connector.needs_secret_path
        expected = self.token or ""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), expected.encode()) and bool(expected)

    def judge(self, delivery: Delivery) -> Heard:
        """What the connector takes it for. Raises `Unverified`, `InvalidInput`, or what a connector may raise."""
        return cast("Hears", self.connector).parse_webhook(delivery, self.subscriptions)


class Hooks:
    """The hooks of all sources. `bind` asks the catalog for a source as it is now; `heard` is told of every delivery that
    says something of its subscription, before it is answered."""

    def __init__(
        self,
        catalog: Catalog,
        bus: Bus,
        intake: Intake,
        clock: Clock,
        bind: Callable[[str], Bound],
        heard: Callable[[str, Heard], None],
        *,
        most_seen: int,
        keep_logged: int,
    ) -> None:
        self._catalog, self._bus, self._intake, self._clock = catalog, bus, intake, clock
        self._bind, self._heard = bind, heard
        self._lock = threading.Lock()
        self._hooks: dict[str, Hook] = {}
        self._unknown: dict[str, float] = {}
        self._batcher = Batcher(bus, intake, most_seen)
        self.log = DeliveryLog(catalog, keep_logged)

    def cached(self, source_id: str) -> Hook | None:
        """The hook if it was looked up within the last second, without asking anybody. UnknownSource if that found none."""
        now_ms = self._clock.monotonic_ms()
        hook = self._hooks.get(source_id)
        if hook is not None and now_ms - hook.looked_ms < _LOOKED_MS:
            return hook
        if now_ms - self._unknown.get(source_id, float("-inf")) < _LOOKED_MS:
            raise UnknownSource(source_id)
        return None

    def look(self, source_id: str) -> Hook:
        """The hook as the catalog has it now. UnknownSource, CatalogUnavailable, InvalidInput (a config refused now)."""
        looked_ms = self._clock.monotonic_ms()
        try:
            bound = self._bind(source_id)
            subscriptions = self._catalog.subscriptions(source_id)
        except UnknownSource:
            with self._lock:
                self._hooks.pop(source_id, None)
                if len(self._unknown) >= _MOST_UNKNOWN:
                    self._unknown.clear()
                self._unknown[source_id] = looked_ms
            raise
        source = bound.source
        secrets = _texts(source.secret, source.hook_token, *(one.secret for one in subscriptions))
        hook = Hook(source_id, bound.connector, tuple(subscriptions), source.hook_token, secrets, looked_ms)
        with self._lock:
            self._hooks[source_id] = hook
            self._unknown.pop(source_id, None)
        return hook

    def may_have_changed(self, hook: Hook) -> bool:
        """Whether it was looked up long enough ago that another look could prove what this one did not."""
        return self._clock.monotonic_ms() - hook.looked_ms > _FRESH_MS

    def settle(self, source_id: str, heard: Heard) -> None:
        """What a delivery brings beside its changes is stored, and what it says of its subscription is acted upon. To be called
        before `submit`, so that whoever looks at the changes finds the contents."""
        if heard.contents and not self._came_before(source_id, heard):
            self._catalog.depot(source_id).put(heard.contents)
        if heard.keep is not None or heard.lost or heard.renew:
            self._heard(source_id, heard)
            with self._lock:
                self._hooks.pop(source_id, None)  # the next delivery is judged by the subscriptions as they are now

    def _came_before(self, source_id: str, heard: Heard) -> bool:
        """A delivery that is sent again must not put an old content in the place of a newer one."""
        return heard.delivery_id is not None and self._bus.remembered([(source_id, heard.delivery_id)]) == [True]

    def submit(
        self, hook: Hook, heard: Heard, received_at_ms: int, told: Callable[[Sequence[Parcel]], object], waiter: object
    ) -> bool:
        """Has the delivery's changes stored. False where too much waits already; then `told` is not called."""
        events = events_of(hook.source_id, heard, received_at_ms)
        return self._batcher.submit(Parcel(hook.source_id, events, heard.delivery_id, hook.keep_ms, told, waiter))

    def redeliver(self, line_id: int) -> JsonObject:
        """Looks at a delivery of the log once more, as of the time when it came: its clock check holds as it did then, its
        proof is checked against the secrets of now, and that it was stored before does not matter.

        `InvalidInput` where there is no such line, `Conflict` where the request was not kept, and what `Hook.judge` raises.
        """
        line = self._catalog.delivery(line_id)
        if line is None:
            raise InvalidInput(
                "id", f"there is no delivery {line_id} (any more)", "list them: sourcebus deliveries list SOURCE"
            )
        if line.delivery is None:
            raise Conflict("the request was not kept: it is too long, or there is no SOURCEBUS_SECRET_KEY that opens it")
        hook = self.look(line.source_id)
        began_ms = self._clock.monotonic_ms()
        heard = hook.judge(line.delivery)
        self.settle(line.source_id, heard)
        events = events_of(line.source_id, heard, line.delivery.received_at_ms)
        if events:
            self._intake.accept(events)
        detail = {"redelivered": str(line_id), **detail_of(heard)}
        took_ms = self._clock.monotonic_ms() - began_ms
        self.log.note(line.source_id, line.delivery, "stored" if events else "nothing", detail, took_ms, hook.secrets)
        return {"id": str(line_id), "source_id": line.source_id, "stored": len(events), "note": heard.note}

    def show(self, line: DeliveryLine) -> JsonObject:
        """A line of the log as JSON, without the source's secrets wherever they turn up in it."""
        return show(line, self.look(line.source_id).secrets)

    def close(self) -> None:
        """Stores what waits, the lines of the log too."""
        self._batcher.close()
        self.log.close()


def events_of(source_id: str, heard: Heard, received_at_ms: int) -> list[SourceChanged]:
    """The events that a delivery's changes are."""
    if not heard.changes:
        return []
    at = from_ms(received_at_ms)
    return [
        SourceChanged(source_id, change.object_ref, change.change_kind, at, Signal.WEBHOOK, change.version)
        for change in heard.changes
    ]


def detail_of(heard: Heard) -> JsonObject:
    """What followed from a delivery, for its line in the log."""
    detail: JsonObject = {}
    if heard.changes:
        first = heard.changes[:_SHOWN_OBJECTS]
        detail = {
            "events": len(heard.changes),
            "objects": [f"{change.change_kind.value} {change.object_ref}" for change in first],
        }
    optional = {
        "delivery_id": heard.delivery_id,
        "note": heard.note,
        "subscriptions_lost": list(heard.lost),
        "subscriptions_to_renew": list(heard.renew),
        "subscription": heard.keep.id if heard.keep else None,
    }
    return detail | {name: value for name, value in optional.items() if value}


def _texts(*secrets: str | None) -> tuple[str, ...]:
    """Every text in these secrets, also inside of JSON, longest first, that is long enough to be told from other text."""
    found: set[str] = set()

    def gather(value: Any) -> None:
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, (dict, list)):
            inner = cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
            for one in inner:
                gather(one)

    for secret in secrets:
        gather(secret)
        if secret and secret.lstrip()[:1] in ("{", "["):
            with suppress(ValueError, RecursionError):
                gather(json.loads(secret))
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST_SECRET), key=len, reverse=True))
