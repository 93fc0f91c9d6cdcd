"""Adding, changing and removing sources: keeps the catalog, the bus and the first scan in step.

The catalog says which sources there are; the bus is told. Should Redis lose its data, `recover_all` tells it again and has
every source looked through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from secrets import token_urlsafe
from typing import Any, cast

import structlog

from sourcebus.bus import Bus
from sourcebus.catalog import Catalog
from sourcebus.connectors import Connector, Hears, Recommended
from sourcebus.errors import BusError, Conflict, InvalidInput, UnknownSource
from sourcebus.freshness import Feeding, intervals_of
from sourcebus.intake.subscriptions import Subscriptions, hook_url
from sourcebus.model import (
    DEFAULT_WORKSPACE,
    MAX_ID_BYTES,
    WHOLE_SOURCE,
    ChangeKind,
    JsonObject,
    Mode,
    Quota,
    Signal,
    Source,
    SourceChanged,
)

_log = structlog.get_logger(__name__)

_SETTABLE = (
    "connector",
    "config",
    "workspace",
    "quota",
    "window_ms",
    "poll_interval_s",
    "reconcile_interval_s",
    "mode",
    "weight",
    "secret",
    "paused",
)
_QUOTA_FIELDS = tuple(field.name for field in fields(Quota))

_PAGE = 500
_TOKEN_BYTES = 32


class Sources:
    """The sources of this installation. `create` makes a connector from name, config and secret, and checks them.
    `public_url` is where providers reach the gateway."""

    def __init__(
        self,
        catalog: Catalog,
        bus: Bus,
        create: Callable[[str, Mapping[str, Any], str | None], Connector],
        invite: Callable[[Sequence[int]], None],
        accept: Callable[[Sequence[SourceChanged]], object],
        subscriptions: Subscriptions,
        *,
        public_url: str,
    ) -> None:
        self._catalog, self._bus, self._create, self._invite, self._accept = catalog, bus, create, invite, accept
        self._subscriptions, self._public_url = subscriptions, public_url

    def add(self, source: Source) -> Source:
        """Stores a new source and has it looked through. `InvalidInput` names the field, `Conflict` if the id is taken.

        If the bus does not answer, the source is taken out again, so that an error means: not added.
        """
        connector = self._check(source)
        stored = self._catalog.add_source(_with_token(source, connector))
        try:
            self._register(stored, connector.recommended)
            self.scan(stored.id)
            self._subscriptions.begin(stored.id, connector)
        except BusError:
            self._catalog.remove_source(stored.id)
            raise
        return stored

    def change(self, source_id: str, /, **changes: Any) -> Source:
        """Changes the named fields, given as in the JSON of ``PATCH /v1/sources/{id}``; null means the default."""
        present = self._catalog.source(source_id)
        if "id" in changes and changes["id"] != source_id:
            raise InvalidInput("id", "cannot be changed", "remove the source and add it under its new id")
        wanted = self._fields(changes, required=False)
        changed = replace(present, **wanted)
        connector = self._check(changed)
        stored = self._catalog.update_source(_with_token(changed, connector))
        self._register(stored, connector.recommended)
        if changed.config != present.config or changed.secret != present.secret:
            self._look_through(source_id)
            self._subscriptions.begin(source_id, connector, anew=True)
        return stored

    def remove(self, source_id: str) -> int:
        """Forgets a source, its documents and what is pending. Answers how many objects it had."""
        self._subscriptions.end(self._catalog.source(source_id))
        self._bus.unregister(source_id)
        return self._catalog.remove_source(source_id)

    def hook_url(self, source: Source) -> str | None:
        """The address that its provider has to send to, with its unguessable part where it has one; None: it hears nothing."""
        try:
            connector = self._check(source)
        except InvalidInput:  # its config is refused by now; a person sees that elsewhere
            return None
        if not isinstance(connector, Hears):
            return None
        return hook_url(self._public_url, source.id, source.hook_token if connector.needs_secret_path else None)

    def new_hook(self, source_id: str) -> Source:
        """Gives the hook a new address; the old one is not answered any more. Conflict where it has no unguessable part."""
        source = self._catalog.source(source_id)
        if not self._check(source).needs_secret_path:
            raise Conflict(
                f"deliveries to {source_id!r} are signed, so its hook's address is no secret; change its secret instead"
            )
        return self._catalog.update_source(replace(source, hook_token=token_urlsafe(_TOKEN_BYTES)))

    def pause(self, source_id: str) -> Source:
        """Nothing of it is extracted until `resume`; signals are stored."""
        return self.change(source_id, paused=True)

    def resume(self, source_id: str) -> Source:
        return self.change(source_id, paused=False)

    def release(self, source_id: str) -> int:
        """Lets the deletes that are held be applied by a new pass. Answers how many were held."""
        held = cast("JsonObject", self._catalog.state(source_id).get("held") or {})
        if held:
            self._catalog.set_state(source_id, release=True)
            self._look_through(source_id)
        return int(held.get("count", 0))

    def drop(self, source_id: str) -> int:
        """Keeps the objects whose deletes are held, although the source does not list them. Answers how many.

        They stay until the source confirms the delete of one for another reason: a webhook names it, or a person asks.
        """
        kept = self._catalog.listings.keep_held(source_id)
        self._catalog.set_state(source_id, held=None, release=None)
        return kept

    def scan(self, source_id: str, signal: Signal = Signal.RECONCILE) -> None:
        """Has the whole source looked through, behind live signals."""
        self._accept([SourceChanged(source_id, WHOLE_SOURCE, ChangeKind.SCAN, signal=signal)])

    def _look_through(self, source_id: str) -> None:
        """Nothing that is known of earlier listings is good any more: has everything listed anew."""
        self._catalog.listings.forget(source_id)
        self.scan(source_id)

    def known(self, source_id: str) -> bool:
        try:
            self._catalog.source(source_id)
        except UnknownSource:
            return False
        return True

    def recover(self, source_id: str) -> None:
        """Tells the bus of a source that it lost, and has it looked through: signals may have been lost with it."""
        source = self._catalog.source(source_id)
        connector = self._check(source)
        self._register(source, connector.recommended)
        self._look_through(source_id)
        self._subscriptions.begin(source_id, connector)
        _log.warning("source_recovered", source_id=source_id)

    def recover_all(self) -> int:
        """`recover` for every source of the catalog that the bus does not know. Answers how many."""
        have = set(self._bus.source_ids())
        recovered, after = 0, None
        while page := self._catalog.sources(after=after, limit=_PAGE):
            for source in page:
                if source.id not in have:
                    recovered += self._try_recover(source.id)
            after = page[-1].id
        return recovered

    def _try_recover(self, source_id: str) -> int:
        try:
            self.recover(source_id)
        except InvalidInput as error:  # a connector that is not installed here must not hold up the others
            _log.error("source_not_recovered", source_id=source_id, error=str(error))
            return 0
        return 1

    def _check(self, source: Source) -> Connector:
        """Its connector, closed again: only what it is and what it recommends is of interest. InvalidInput."""
        connector = self._create(source.connector, source.config, source.secret)
        connector.close()
        return connector

    def _register(self, source: Source, recommended: Recommended) -> None:
        poll_s = recommended.poll_interval_s if source.poll_interval_s is None else source.poll_interval_s
        reconcile_s = source.reconcile_interval_s
        reconcile_s = recommended.reconcile_interval_s if reconcile_s is None else reconcile_s
        feed = cast("JsonObject", self._catalog.state(source.id).get("feed") or {})
        feeding = Feeding(feed.get("mode", Feeding.POLL))
        poll_s, reconcile_s = intervals_of(feeding, poll_s, reconcile_s)
        pushed = feeding is Feeding.PUSH
        tokens = self._bus.register(
            source.id,
            quota=source.quota or recommended.quota,
            window_ms=recommended.window_ms if source.window_ms is None else source.window_ms,
            weight=source.weight,
            cost=recommended.cost,
            poll_ms=(reconcile_s if pushed else poll_s) * 1000,
            paused=source.paused,
        )
        if pushed:
            self._bus.poll(source.id, reconcile_s * 1000, reconcile=True)
        self._invite(tokens)

    # --- JSON ----------------------------------------------------------------------------------------------------

    def parse(self, obj: Mapping[str, Any]) -> Source:
        """A source from the JSON of ``POST /v1/sources``. `InvalidInput` names the field and the fix."""
        wanted = {name: value for name, value in obj.items() if name != "id"}
        return Source(id=_id("id", obj.get("id")), **self._fields(wanted, required=True))

    def show(self, source: Source) -> JsonObject:
        """A source as JSON. The secret never comes back, only whether there is one."""
        quota = source.quota
        return {
            "id": source.id,
            "workspace": source.workspace,
            "connector": source.connector,
            "config": dict(source.config),
            "quota": {name: getattr(quota, name) for name in _QUOTA_FIELDS} if quota else None,
            "window_ms": source.window_ms,
            "poll_interval_s": source.poll_interval_s,
            "reconcile_interval_s": source.reconcile_interval_s,
            "mode": source.mode.value,
            "paused": source.paused,
            "weight": source.weight,
            "has_secret": source.secret is not None,
            "created_at": source.created_at.isoformat() if source.created_at else None,
            "updated_at": source.updated_at.isoformat() if source.updated_at else None,
        }

    def _fields(self, obj: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
        for name in obj:
            if name not in _SETTABLE and name != "id":
                raise InvalidInput(name, "is not a field of a source", f"use one of: id, {', '.join(_SETTABLE)}")
        if required and "connector" not in obj:
            raise InvalidInput("connector", "is missing", "name the kind of source, for example filesystem")
        return {name: _parsers[name](name, value) for name, value in obj.items() if name != "id"}


def _with_token(source: Source, connector: Connector) -> Source:
    if connector.needs_secret_path and source.hook_token is None:
        return replace(source, hook_token=token_urlsafe(_TOKEN_BYTES))
    return source


def _id(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInput(field, "is missing" if value is None else "is not a text", "give a name of 1 to 512 bytes")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidInput(field, "holds a lone surrogate", "use valid Unicode") from None
    if size > MAX_ID_BYTES:
        raise InvalidInput(field, f"is {size} bytes long", f"use at most {MAX_ID_BYTES}")
    return value


def _workspace(field: str, value: Any) -> str:
    return DEFAULT_WORKSPACE if value is None else _id(field, value)


def _object(field: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(field, f"is {_kind(value)}", "send an object")
    return dict(cast("Mapping[str, Any]", value))


def _number(field: str, value: Any, least: float, most: float = 1e12) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise InvalidInput(field, f"is {value!r}", f"send a number from {least:g} to {most:g}")
    return value


def _optional(field: str, value: Any, least: float, most: float = 1e12) -> float | None:
    return None if value is None else _number(field, value, least, most)


def _quota(field: str, value: Any) -> Quota | None:
    if value is None:
        return None
    given = _object(field, value)
    for name in given:
        if name not in _QUOTA_FIELDS:
            raise InvalidInput(f"{field}.{name}", "is not a field of a quota", f"use one of: {', '.join(_QUOTA_FIELDS)}")
    default = Quota()
    concurrency = _number(f"{field}.concurrency", given.get("concurrency", default.concurrency), 1, 1_000_000)
    if concurrency != int(concurrency):
        raise InvalidInput(f"{field}.concurrency", f"is {concurrency}", "send a whole number")
    bucket = given.get("bucket")
    return Quota(
        rate=_optional(f"{field}.rate", given.get("rate"), 1e-6),
        burst=_number(f"{field}.burst", given.get("burst", default.burst), 1e-6),
        concurrency=int(concurrency),
        bucket=None if bucket is None else _id(f"{field}.bucket", bucket),
    )


def _mode(field: str, value: Any) -> Mode:
    try:
        return Mode.LIVE if value is None else Mode(value)
    except ValueError:
        raise InvalidInput(field, f"is {value!r}", f"use one of: {', '.join(Mode)}") from None


def _window(field: str, value: Any) -> int | None:
    window_ms = _optional(field, value, 0, 86_400_000)
    return None if window_ms is None else int(window_ms)


def _poll(field: str, value: Any) -> float | None:
    poll_s = _optional(field, value, 0, 31_536_000)
    if poll_s is not None and 0 < poll_s < 1:
        raise InvalidInput(field, f"is {poll_s}", "use 0 for no polling, or at least 1 second")
    return poll_s


def _weight(field: str, value: Any) -> float:
    return 1.0 if value is None else _number(field, value, 0.001, 1_000)


def _secret(field: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidInput(field, f"is {_kind(value)}", "send a text")
    return value


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool) and value is not None:
        raise InvalidInput(field, f"is {value!r}", "send true or false")
    return bool(value)


def _kind(value: Any) -> str:
    names: dict[type[Any], str] = {
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return names.get(cast("type[Any]", type(value)), "null")


_parsers: Mapping[str, Callable[[str, Any], Any]] = {
    "connector": _id,
    "config": _object,
    "workspace": _workspace,
    "quota": _quota,
    "window_ms": _window,
    "poll_interval_s": _poll,
    "reconcile_interval_s": _poll,
    "mode": _mode,
    "weight": _weight,
    "secret": _secret,
    "paused": _flag,
}
