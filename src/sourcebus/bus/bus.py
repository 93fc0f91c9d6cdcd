"""`Bus`: one method per verb. It knows nothing of connectors, the catalog or Celery and is usable by itself."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, cast

import redis
from redis import Redis
from redis.exceptions import RedisError

from sourcebus.bus import keys
from sourcebus.bus.checks import check_id, check_positive
from sourcebus.bus.scripts import Arg, verbs
from sourcebus.bus.standing import SourceStats, unpack_stats
from sourcebus.bus.values import (
    SIGNALS,
    Claimed,
    DeadLetter,
    Emitted,
    Heard,
    Peek,
    Refreshed,
    Settle,
    Settled,
    Ticked,
    Vitals,
    key_of,
    pack_event,
    pack_settlement,
    unpack_dead_letter,
    unpack_heard,
    unpack_lease,
    unpack_peek,
)
from sourcebus.errors import BusUnavailable, InvalidInput, UnknownSource
from sourcebus.model import WHOLE_SOURCE, ChangeKind, Lease, Quota, Signal, SourceChanged

MOST_EVENTS = 10_000
"""Most events in one call: keeps a script's work bounded."""

MOST_LEASES = 1_000

_SLICE = 250
"""Events per script call, so that other clients wait for milliseconds only."""

_MOST_ROUNDS = 40
"""So often a tick goes on while as many polls were due as one round starts: 20,000 a second are a million sources' a minute."""

_FIRST_DUE = 500
"""So many of the delayed objects are looked at to say how long a source's window or back-off still lasts."""


@contextmanager
def _redis_errors() -> Generator[None]:
    try:
        yield
    except RedisError as error:
        raise BusUnavailable(f"Redis did not take this ({type(error).__name__}): {error}") from error


def _tokens(raw: Sequence[bytes]) -> tuple[int, ...]:
    return tuple(int(token) for token in raw)


class Bus:
    """The event bus in one Redis ≥ 6.2 or Valkey ≥ 7.2. What it promises: docs/bus.md.

    `client` is a redis-py client with ``decode_responses=False``; `name` tells several buses in one server apart.
    `clock_ms`, where given, replaces the server's time (tests, simulation). Every method raises `BusUnavailable` when
    Redis does not answer; whatever it was doing has then either happened or not, and may be repeated.
    """

    def __init__(self, client: Redis, *, name: str = "sourcebus", clock_ms: Callable[[], float] | None = None) -> None:
        self._client = client
        self._root = keys.root(name)
        self._clock_ms = clock_ms
        self._names: dict[bytes, str] = {}  # a source's number in Redis → its id
        self._epoch: int | None = None
        self._slots: dict[str, bytes] = {}  # source id → its number in Redis and a colon, as a field begins
        self._slots_epoch = -1

    @classmethod
    def from_url(cls, url: str, *, name: str = "sourcebus") -> Bus:
        """A bus on ``redis://``, ``rediss://`` or ``unix://``. Connects when first used."""
        client = redis.Redis.from_url(url, socket_timeout=30, socket_connect_timeout=5, health_check_interval=0)
        return cls(client, name=name)

    def _run(self, verb: str, *args: Arg) -> Any:
        now = self._clock_ms() if self._clock_ms else 0
        with _redis_errors():
            return verbs()[verb](self._client, self._root, (now, *args))

    def close(self) -> None:
        self._client.close()

    def ping(self) -> None:
        with _redis_errors():
            self._client.ping()

    # --- sources -------------------------------------------------------------------------------------------------

    def register(
        self,
        source_id: str,
        *,
        quota: Quota | None = None,
        window_ms: float = 30_000,
        weight: float = 1.0,
        max_attempts: int = 5,
        backoff_ms: float = 1_000,
        backoff_cap_ms: float = 300_000,
        max_pending: int = 200_000,
        cost: float = 1.0,
        live_weight: int = 8,
        refresh_ms: float = 60_000,
        poll_ms: float = 0,
        paused: bool = False,
    ) -> tuple[int, ...]:
        """Makes a source known or changes what it may do; what is pending stays. Answers invitations to publish.

        `window_ms` dedup window · `cost` units that one claim is charged before its true cost is known · `live_weight`
        live claims per backfill claim while both wait · `refresh_ms` least time between manual refreshes · `poll_ms`
        interval of scans of the whole source, 0 for none · past `max_pending` objects the bus keeps one scan instead.
        """
        quota = quota or Quota()
        check_id("source_id", source_id)
        if quota.bucket:
            check_id("quota.bucket", quota.bucket)
        check_positive("quota.concurrency", quota.concurrency)
        check_positive("quota.burst", quota.burst)
        check_positive("weight", weight)
        if quota.rate is not None:
            check_positive("quota.rate", quota.rate)
        reply = self._run(
            "register",
            keys.encode_ref(source_id),
            keys.encode_ref(quota.bucket or ""),
            (quota.rate or 0) / 1000,
            quota.burst,
            quota.concurrency,
            weight,
            window_ms,
            max_attempts,
            backoff_ms,
            backoff_cap_ms,
            max_pending,
            cost,
            live_weight,
            refresh_ms,
            poll_ms,
            int(paused),
        )
        return _tokens(reply[2])

    def unregister(self, source_id: str) -> bool:
        """Forgets a source and all that is pending for it. False if it was not known."""
        found, left = self._run("unregister", keys.encode_ref(source_id), 2_000)
        while left:
            _, left = self._run("unregister", "", 2_000)
        return bool(found)

    def pause(self, source_id: str) -> None:
        """Holds a source back: nothing of it is claimed until `resume`; signals are still stored."""
        self._set_paused(source_id, 1)

    def resume(self, source_id: str) -> tuple[int, ...]:
        """Lets a paused source go on. Answers invitations to publish."""
        return self._set_paused(source_id, 0)

    def _set_paused(self, source_id: str, paused: int) -> tuple[int, ...]:
        found, tokens = self._run("pause", keys.encode_ref(source_id), paused)
        if not found:
            raise UnknownSource(source_id)
        return _tokens(tokens)

    # --- signals in ----------------------------------------------------------------------------------------------

    def emit(self, events: SourceChanged | Iterable[SourceChanged]) -> Emitted:
        """Stores signals; when it returns they are in Redis. An unusable or unknown one refuses its whole call.

        Calls of more than 250 events are stored in slices; `InvalidInput` is raised before the first, `UnknownSource`
        too unless a source vanishes meanwhile.
        """
        batch = [events] if isinstance(events, SourceChanged) else list(events)
        if len(batch) > MOST_EVENTS:
            raise InvalidInput("events", f"holds {len(batch)} events", f"send at most {MOST_EVENTS} at once")
        packed = [pack_event(event, at if len(batch) > 1 else None) for at, event in enumerate(batch)]
        self._locate(batch)
        total = [0, 0, 0, 0]
        tokens: tuple[int, ...] = ()
        for start in range(0, len(batch), _SLICE):
            reply = self._emit_slice(batch, packed, slice(start, start + _SLICE))
            total = [have + new for have, new in zip(total, reply[1:5], strict=True)]
            tokens += _tokens(reply[5])
        return Emitted(total[0], total[1], total[2], total[3], tokens)

    def _emit_slice(self, batch: Sequence[SourceChanged], packed: Sequence[tuple[bytes, bytes]], part: slice) -> Sequence[Any]:
        while True:
            slots = self._slots
            args: list[Arg] = [self._slots_epoch]
            for event, (key, payload) in zip(batch[part], packed[part], strict=True):
                args += (slots[event.source_id] + key, payload)
            reply = self._run("emit", *args)
            if reply[0] != b"stale":
                return reply
            # A source went, came back, or Redis lost its data: the numbers known here may be of another life.
            self._slots = {}
            self._locate(batch)

    def _locate(self, batch: Sequence[SourceChanged]) -> None:
        """Learns the numbers of the sources that are not known yet. UnknownSource if there is no such source."""
        while unknown := [event.source_id for event in batch if event.source_id not in self._slots][:_SLICE]:
            epoch, *numbers = self._run("locate", *map(keys.encode_ref, unknown))
            if epoch != self._slots_epoch:
                self._slots, self._slots_epoch = {}, epoch
            for source_id, number in zip(unknown, numbers, strict=True):
                if number < 0:
                    raise self._unknown(source_id, batch)
                self._slots[source_id] = b"%d:" % number

    @staticmethod
    def _unknown(source_id: str, batch: Sequence[SourceChanged]) -> UnknownSource:
        at = next(at for at, event in enumerate(batch) if event.source_id == source_id)
        return UnknownSource(source_id, f"events[{at}].source_id" if len(batch) > 1 else "source_id")

    def refresh(self, source_id: str, object_ref: str | None = None) -> Refreshed:
        """A person wants one object, or the whole source (None), looked at now. Capped; see `Refreshed`."""
        kind = ChangeKind.UPDATED if object_ref else ChangeKind.SCAN
        event = SourceChanged(source_id, object_ref or WHOLE_SOURCE, kind, signal=Signal.MANUAL)
        status, until_ms, tokens = self._run("refresh", keys.encode_ref(source_id), *pack_event(event))
        if status == b"unknown":
            raise UnknownSource(source_id)
        return Refreshed(status.decode(), until_ms or None, _tokens(tokens))

    def remembered(self, deliveries: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (source id, the provider's id of a delivery): whether `remember` was told of it."""
        return [bool(seen) for seen in self._run("heard", 0, 0, *_digests(deliveries))] if deliveries else []

    def remember(self, deliveries: Sequence[tuple[str, str]], *, keep_ms: int, most: int) -> None:
        """Deliveries whose events are stored: `heard` knows them for `keep_ms`, the last `most` of each source."""
        check_positive("keep_ms", keep_ms)
        if deliveries:
            self._run("heard", keep_ms, most, *_digests(deliveries))

    # --- leases --------------------------------------------------------------------------------------------------

    def claim(
        self,
        most: int = 1,
        *,
        consumer: str = "",
        lease_ms: int = 30_000,
        wait_ms: int = 0,
        most_waiting: int = 1,
        invitation: int | None = None,
    ) -> Claimed:
        """Takes up to `most` due objects of sources that may run now, in fair order.

        With `wait_ms` a consumer that finds nothing is counted as waiting (unless `most_waiting` are already) and should
        then call `wait`. `invitation` is the number that the Celery message carried.
        """
        token = "" if invitation is None else str(invitation)
        reply = self._run("claim", min(most, MOST_LEASES), lease_ms, consumer, wait_ms, most_waiting, token)
        epoch, now_ms, deadline_ms, waiting, next_due_ms, tokens = reply[:6]
        if epoch != self._epoch:  # Redis lost its data: its numbers mean other sources now
            self._names.clear()
            self._epoch = epoch
        names, leases = self._names, list[Lease]()
        for field, packed in zip(reply[6::2], reply[7::2], strict=True):
            colon = field.index(b":")
            if (source_id := names.get(field[:colon])) is None:
                source_id = self._learn_names(reply[6::2])[field[:colon]]
            leases.append(unpack_lease(source_id, field, colon + 1, packed, deadline_ms))
        return Claimed(leases, now_ms, bool(waiting), None if next_due_ms < 0 else next_due_ms, _tokens(tokens))

    def _learn_names(self, fields: Sequence[bytes]) -> Mapping[bytes, str]:
        unknown = sorted({field[: field.index(b":")] for field in fields} - self._names.keys())
        with _redis_errors():
            found = cast(
                "list[bytes | None]", self._client.hmget(self._root.decode() + "names", [number.decode() for number in unknown])
            )
        for number, name in zip(unknown, found, strict=True):
            self._names[number] = keys.decode_ref(name) if name is not None else ""
        return self._names

    def wait(self, timeout_s: float) -> bool:
        """Sleeps until something may be claimable, at most `timeout_s` seconds. True when woken."""
        with _redis_errors():
            return self._client.blpop([self._root.decode() + "wake"], timeout=timeout_s) is not None

    def ack(
        self, leases: Sequence[Lease], *, cost: Sequence[float] | None = None, service_ms: Sequence[float] | None = None
    ) -> Settled:
        """Ends leases in success. `cost` in the bucket's units (default 1 each), `service_ms` the worker time each took."""
        args: list[Arg] = []
        for at, lease in enumerate(leases):
            settlement = pack_settlement(lease.fence, cost[at] if cost else 1.0, service_ms[at] if service_ms else 0.0)
            args += (lease.field, settlement)
        return self._settled(self._run("ack", *args))

    def nack(
        self,
        leases: Sequence[Lease],
        error: str = "",
        *,
        how: Settle = Settle.FAILED,
        wait_ms: float = 0,
        cost: float = 1.0,
        service_ms: float = 0.0,
    ) -> Settled:
        """Ends leases without success: FAILED backs off and counts an attempt, HOPELESS is a dead letter at once, THROTTLED
        pauses the whole bucket for `wait_ms`, halves its learned rate and costs no attempt, UNAVAILABLE holds back this source
        alone for so long and costs no attempt, RELEASE gives back what was never begun."""
        args: list[Arg] = []
        for lease in leases:
            args += (lease.field, lease.fence, how.value, cost, service_ms, wait_ms, keys.encode_ref(error[:500]))
        return self._settled(self._run("nack", *args))

    @staticmethod
    def _settled(reply: Sequence[Any]) -> Settled:
        return Settled([bool(done) for done in reply[1:]], _tokens(reply[0]))

    def requeue(self, lease: Lease, *, signal: Signal, caught_up: bool, cost: float = 1.0, service_ms: float = 0.0) -> Settled:
        """Ends the lease of a scan that was cut in the middle of its pass: the rest is due at once, behind others, as `signal`.

        `caught_up`: signals that came between the pass's beginning and this claim are answered, so that `Lease.newer` need not
        tell of them again; those that came since are told in any case.
        """
        tokens, done = self._run("requeue", lease.field, lease.fence, cost, service_ms, SIGNALS.index(signal), int(caught_up))
        return Settled([bool(done)], _tokens(tokens))

    def extend(
        self, leases: Sequence[Lease], *, lease_ms: int = 30_000, running: Lease | None = None, consumer: str = ""
    ) -> list[bool]:
        """Moves deadlines to now + `lease_ms`; False where the lease is lost. `running` is charged for its time so far."""
        args: list[Arg] = []
        for lease in leases:
            args += (lease.field, lease.fence, int(running is not None and lease.fence == running.fence))
        return [bool(done) for done in self._run("extend", lease_ms, consumer, *args)]

    def leave(self, consumer: str, *, stay_warm: bool = False) -> tuple[int, ...]:
        """A consumer ends. Answers an invitation for its successor if work is left, or if one should stay waiting."""
        return _tokens(self._run("leave", consumer, int(stay_warm)))

    def tick(self, most: int = 500, *, stay_warm: bool = False) -> Ticked:
        """Housekeeping, once a second: promotes what is due, reaps lost leases, starts polls, calls for consumers.

        With `stay_warm` it also calls for one when nothing is pending and nobody is there to be woken.
        """
        promoted = reaped = polls = rounds = 0
        tokens: tuple[int, ...] = ()
        while True:  # each round is bounded, so that others get a turn in between
            reply = self._run("tick", most, int(stay_warm))
            promoted, reaped, polls, rounds = promoted + reply[1], reaped + reply[2], polls + reply[3], rounds + 1
            tokens += _tokens(reply[4])
            if reply[3] < most or rounds == _MOST_ROUNDS:
                return Ticked(reply[0], promoted, reaped, polls, tokens)

    def feedback(self, source_id: str, remaining: float, left_ms: float) -> None:
        """A provider said what is left of its quota: `remaining` units until `left_ms` from now (``RateLimit`` headers,
        draft-ietf-httpapi-ratelimit-headers). The rate follows at once, never above the configured one; when less than one
        unit is left, the bucket pauses until then. UnknownSource, InvalidInput."""
        check_positive("left_ms", left_ms)
        if not 0 <= remaining < 1e15:
            raise InvalidInput("remaining", f"is {remaining}", "use the number of units that are left, 0 or more")
        if not self._run("feedback", keys.encode_ref(source_id), remaining, left_ms):
            raise UnknownSource(source_id)

    def poll(self, source_id: str, every_ms: float, *, reconcile: bool = False) -> bool:
        """The source is scanned every so many milliseconds (0: never) from now on, give or take a tenth; `reconcile`: behind
        live work. False if it is not known."""
        return bool(self._run("poll", keys.encode_ref(source_id), every_ms, int(reconcile)))

    def tally(self, source_id: str, slot_ms: float, marks: Sequence[tuple[str, str]]) -> bool:
        """Counts what became of changes, for `heard`: pairs of a word (``announced``, ``missed``, ``heard``, ``anew``: see
        tally.lua) and an object's reference. The window has 16 slots of `slot_ms`. False if the source is not known."""
        args: list[Arg] = []
        for what, ref in marks:
            args += (what, blake2b(keys.encode_ref(ref), digest_size=10).hexdigest())
        return bool(self._run("tally", keys.encode_ref(source_id), max(1, slot_ms), *args))

    # --- looking -------------------------------------------------------------------------------------------------

    def stats(self, source_ids: Sequence[str]) -> list[SourceStats | None]:
        """How sources stand, in the order asked; None for unknown ones."""
        next_due_ms = self._next_due()
        result: list[SourceStats | None] = []
        for start in range(0, len(source_ids), 200):
            part = source_ids[start : start + 200]
            now_ms, consumers, waiting, _ticked, *rest = self._run("inspect", *map(keys.encode_ref, part))
            for source_id, stored, oldest_ms in zip(part, rest[0::2], rest[1::2], strict=True):
                result.append(
                    stored
                    and unpack_stats(
                        source_id,
                        stored,
                        oldest_ms,
                        now_ms,
                        next_due_ms=next_due_ms.get(source_id),
                        consumers=consumers,
                        waiting=waiting,
                    )
                )
        return result

    def _next_due(self) -> dict[str, int]:
        """When, ms, the first delayed object of each source is due, for the sources of the objects that are due first."""
        root = self._root.decode()
        with _redis_errors():
            first = cast("list[tuple[bytes, float]]", self._client.zrange(root + "d", 0, _FIRST_DUE - 1, withscores=True))
            due_ms: dict[bytes, int] = {}
            for field, at_ms in first:
                due_ms.setdefault(field[: field.index(b":")], int(at_ms))
            names = cast("list[bytes | None]", self._client.hmget(root + "names", list(due_ms))) if due_ms else []
        return {keys.decode_ref(name): at_ms for name, at_ms in zip(names, due_ms.values(), strict=True) if name}

    def heard(self, source_ids: Sequence[str]) -> list[Heard]:
        """What is known of sources' live signals, in the order asked; nothing is, of an unknown one."""
        root = self._root.decode()
        with _redis_errors():
            ids = [keys.encode_ref(source_id) for source_id in source_ids]
            numbers = cast("list[bytes | None]", self._client.hmget(root + "ids", cast("list[str]", ids))) if ids else []
            pipe = self._client.pipeline(transaction=False)
            for number in numbers:
                pipe.hgetall(f"{root}cov:{number.decode() if number else ''}")
            return [unpack_heard(stored) for stored in cast("list[dict[bytes, bytes]]", pipe.execute())]

    def vitals(self) -> Vitals:
        """Who works here, by the bus's clock."""
        now_ms, consumers, waiting, ticked_ms = self._run("inspect")
        return Vitals(now_ms, consumers, waiting, ticked_ms or None)

    def source_ids(self) -> list[str]:
        """Every source that the bus knows, unordered."""
        with _redis_errors():
            return [keys.decode_ref(name) for name in cast("list[bytes]", self._client.hkeys(self._root.decode() + "ids"))]

    def peek(self, source_id: str, object_ref: str, change_kind: ChangeKind = ChangeKind.UPDATED) -> Peek:
        """What the bus knows of one object, or of a scope with SCAN."""
        return unpack_peek(*self._run("peek", keys.encode_ref(source_id), key_of(object_ref, change_kind)))

    def dead_letters(self, source_id: str | None = None, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Dead letters, oldest first, after the given id; only one source's where asked."""
        found: list[DeadLetter] = []
        while len(found) < limit:
            reply = self._run("dead_letters", after or "", 500)
            page = [unpack_dead_letter(*reply[at : at + 9]) for at in range(0, len(reply), 9)]
            found += [letter for letter in page if source_id in (None, letter.source_id)]
            if len(page) < 500:
                break
            after = page[-1].id
        return found[:limit]

    def replay(self, dead_letter_id: str) -> tuple[int, ...] | None:
        """Makes a dead letter pending again with fresh attempts. Answers invitations; None if there is none by this id."""
        found, tokens = self._run("replay", dead_letter_id, 1)
        return _tokens(tokens) if found else None

    def drop(self, dead_letter_id: str) -> bool:
        """Deletes a dead letter for good. False if there is none by this id."""
        return bool(self._run("replay", dead_letter_id, 0)[0])

    def server_info(self) -> dict[str, Any]:
        """Redis's INFO and the settings that matter for durability, for `sourcebus doctor`."""
        with _redis_errors():
            info = self._client.info()
            try:
                config = cast(
                    "dict[Any, Any]", self._client.config_get("maxmemory-policy", "appendonly", "appendfsync", "maxmemory")
                )
            except RedisError:  # managed servers forbid CONFIG
                config = {}
        return info | {_text(key): _text(value) for key, value in config.items()}


def _digests(deliveries: Sequence[tuple[str, str]]) -> list[Arg]:
    # A provider's id may be long and of any characters; 12 bytes of its hash are enough to tell deliveries apart.
    return [
        part
        for source_id, delivery_id in deliveries
        for part in (keys.encode_ref(source_id), b64encode(blake2b(keys.encode_ref(delivery_id), digest_size=12).digest()))
    ]


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
