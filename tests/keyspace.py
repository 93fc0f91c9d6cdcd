"""The whole keyspace of a bus as plain values, and the rules that tie its keys together."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from redis import Redis

from sourcebus.bus.keys import root
from sourcebus.bus.scripts import layouts

READY, DELAYED, IN_FLIGHT, COOLING = 1, 2, 3, 4


@dataclass
class Keyspace:
    """Everything that is stored under one bus's name."""

    sources: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    buckets: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    records: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    lists: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    sets: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    suffixes: set[str] = field(default_factory=set[str])
    names: dict[str, str] = field(default_factory=dict[str, str])  # number → source or shared bucket
    dead: dict[str, str] = field(default_factory=dict[str, str])  # object → id of its dead letter
    meta: dict[str, float] = field(default_factory=dict[str, float])


# One round trip for all of it: the property machine looks after every step.
_DUMP = """
local read = {
  string = function(key) return { redis.call('GET', key) } end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  hash = function(key) return redis.call('HGETALL', key) end,
}
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  out[#out + 1] = { key, kind, read[kind] and read[kind](key) or {} }
end
return out
"""


def _unpack(letter: str, packed: bytes, at: int = 0) -> dict[str, float]:
    layout = layouts()[letter]
    return dict(zip(layout.fields, struct.unpack_from(layout.format, packed, at), strict=True))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def read(redis: Redis, bus_name: str) -> Keyspace:
    space, prefix = Keyspace(), root(bus_name)
    hashes: dict[str, dict[str, bytes]] = {}
    dump = cast("list[tuple[bytes, bytes, list[bytes]]]", redis.eval(_DUMP, 0, prefix.replace(b"[", b"\\[").decode() + "*"))
    for key, kind, values in dump:
        suffix = _text(key[len(prefix) :])
        space.suffixes.add(suffix)
        if kind == b"list":
            space.lists[suffix] = [_text(value) for value in values]
        elif kind == b"zset":
            space.sets[suffix] = {_text(name): float(score) for name, score in zip(values[::2], values[1::2], strict=True)}
        elif suffix == "m":
            space.meta = _unpack("M", values[0])
        elif kind == b"hash":
            hashes[suffix] = {_text(name): value for name, value in zip(values[::2], values[1::2], strict=True)}
    space.names = {number: _text(name) for number, name in hashes.get("names", {}).items()}
    space.names |= {f"b{int(number)}": name for name, number in hashes.get("bids", {}).items()}
    space.dead = {name: _text(letter) for name, letter in hashes.get("dlk", {}).items()}
    space.buckets = {name: _unpack("B", packed) for name, packed in hashes.get("bkt", {}).items()}
    for number, packed in hashes.get("src", {}).items():
        rest = _unpack("C", packed, layouts()["S"].size + layouts()["B"].size)
        source = _unpack("S", packed) | _unpack("N", hashes["n"][number]) | rest
        space.sources[number] = source
        if not source["bucket"]:
            space.buckets[number] = _unpack("B", packed, layouts()["S"].size)
    for name, packed in hashes.get("r", {}).items():
        record = _unpack("R", packed)
        leased = _unpack("X", packed, layouts()["R"].size) if record["state"] == IN_FLIGHT else {}
        space.records[name] = record | leased
    return space


def check(space: Keyspace) -> None:
    """What holds between any two calls. Each line is an invariant of DESIGN §4 or of `sourcebus.bus.keys`."""
    counted = {number: Counter[str]() for number in space.sources}
    for name, record in space.records.items():
        number = name.split(":", 1)[0]
        if number not in counted:
            continue  # of a removed source: goes when it comes up
        state = int(record["state"])
        if state == READY:
            lane = int(record["lane"])
            counted[number][f"n{lane}"] += 1
            assert name in space.lists.get(f"q{lane}:{number}", []), f"{name} is ready but in no list: it is lost"
        if state == DELAYED:
            counted[number]["delayed"] += 1
            assert space.sets.get("d", {}).get(name) == record["at"], f"{name} is delayed but nothing will wake it"
        if state == IN_FLIGHT:
            counted[number]["in_flight"] += 1
            assert name in space.sets.get("x", {}), f"{name} is in flight without a deadline: its loss goes unseen"
        if state == COOLING:
            second = int(record["at"] // 1000) + 1
            assert name in space.lists.get(f"c:{second}", []), f"{name} cools and is never swept"
            assert space.meta["wheel"] <= second <= space.meta["wheel_end"], f"{name} cools outside of the wheel: never swept"
    for number, source in space.sources.items():
        for counter in ("n0", "n1", "n2", "delayed", "in_flight"):
            assert source[counter] == counted[number][counter], f"source {number}: {counter} leaks"
    for number, source in space.sources.items():
        assert source["dead"] == sum(name.startswith(f"{number}:") for name in space.dead), f"source {number}: dead leaks"
    for name in space.sets.get("x", {}):
        assert name in space.records, f"a lease without a record: {name}"
    polled = {number for number, source in space.sources.items() if source["poll"]}
    assert set(space.sets.get("pl", {})) == polled, "a source is polled that should not be, or the other way round"
    for suffix in space.suffixes:
        kept, _, number = suffix.partition(":")
        assert kept not in ("cov", "late", "hd") or number in space.sources, f"{suffix} has outlived its source"
    for name in space.sets.get("d", {}):
        assert space.records.get(name, {}).get("state") == DELAYED, f"{name} would be woken and is not delayed"
    _check_buckets(space)
    _check_away(space)


def _check_buckets(space: Keyspace) -> None:
    for number, bucket in space.buckets.items():
        members = [n for n, s in space.sources.items() if number == (f"b{int(s['bucket'])}" if s["bucket"] else n)]
        in_flight = sum(space.sources[n]["in_flight"] for n in members)
        assert bucket["in_flight"] == in_flight, f"bucket {number}: in_flight leaks"
        runnable = {n for n in members if _runnable(space, n)}
        in_ready, in_wait = number in space.sets.get("z", {}), number in space.sets.get("w", {})
        assert in_ready == (bucket["where"] == 1), f"bucket {number}: z and its place differ"
        assert in_wait == (bucket["where"] == 2), f"bucket {number}: w and its place differ"
        if runnable and bucket["in_flight"] < bucket["cap"]:
            assert in_ready or in_wait, f"bucket {number} can run and stands nowhere: it would sleep for ever"
        if not runnable:
            assert not in_ready, f"bucket {number} has nothing to run and is in the ready set"
        if number.startswith("b"):
            assert set(space.sets.get(f"bs:{number}", {})) == runnable, f"bucket {number}: its own order lacks a source"


def _check_away(space: Keyspace) -> None:
    waiting = space.sets.get("w", {})
    for number, source in space.sources.items():
        if source["bucket"] and number in waiting:
            assert waiting[number] == source["away"], f"source {number} is away until {source['away']}"
        if source["bucket"] and number not in waiting:
            assert source["away"] <= space.meta["clock"], f"source {number} is away and nothing will wake it"
    assert waiting.keys() <= space.buckets.keys() | space.sources.keys(), "what is gone would be woken"


def _runnable(space: Keyspace, number: str) -> bool:
    """Not away in a shared bucket, as far as the bus has looked."""
    source = space.sources[number]
    away = source["bucket"] and number in space.sets.get("w", {})
    return not away and not source["paused"] and source["n0"] + source["n1"] + source["n2"] > 0
