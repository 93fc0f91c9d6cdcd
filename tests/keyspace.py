"""The whole keyspace of a bus as plain values, and the rules that tie its keys together."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

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


def _unpack(letter: str, packed: bytes) -> dict[str, float]:
    layout = layouts()[letter]
    return dict(zip(layout.fields, struct.unpack_from(layout.format, packed), strict=True))


def read(redis: Redis, bus_name: str) -> Keyspace:
    space, prefix = Keyspace(), root(bus_name)
    for key in cast("list[bytes]", redis.keys(prefix.replace(b"[", b"\\[") + b"*")):
        suffix = key[len(prefix) :].decode()
        space.suffixes.add(suffix)
        kind = cast("bytes", redis.type(key))
        if kind == b"list":
            space.lists[suffix] = [
                item.decode("utf-8", "surrogatepass") for item in cast("list[bytes]", redis.lrange(key.decode(), 0, -1))
            ]
        elif kind == b"zset":
            members = cast("list[tuple[bytes, float]]", redis.zrange(key, 0, -1, withscores=True))
            space.sets[suffix] = {member.decode("utf-8", "surrogatepass"): score for member, score in members}
    counts = cast("dict[bytes, bytes]", redis.hgetall((prefix + b"n").decode()))
    hashes: dict[str, Any] = {"src": space.sources, "bkt": space.buckets, "r": space.records}
    for name, into in hashes.items():
        for name_of, packed in cast("dict[bytes, bytes]", redis.hgetall((prefix + name.encode()).decode())).items():
            letter = {"src": "S", "bkt": "B", "r": "R"}[name]
            value = _unpack(letter, packed)
            if letter == "S":
                value |= _unpack("N", counts[name_of])
            if letter == "S" and not value["bucket"]:
                space.buckets[name_of.decode()] = _unpack("B", packed[layouts()["S"].size :])
            if letter == "R" and value["state"] == IN_FLIGHT:
                extra = layouts()["X"]
                value |= zip(extra.fields, struct.unpack_from(extra.format, packed, layouts()["R"].size), strict=True)
            into[name_of.decode("utf-8", "surrogatepass")] = value
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
    for number, source in space.sources.items():
        for counter in ("n0", "n1", "n2", "delayed", "in_flight"):
            assert source[counter] == counted[number][counter], f"source {number}: {counter} leaks"
    for name in space.sets.get("x", {}):
        assert name in space.records, f"a lease without a record: {name}"
    _check_buckets(space)


def _check_buckets(space: Keyspace) -> None:
    for number, bucket in space.buckets.items():
        members = [s for n, s in space.sources.items() if number == (f"b{int(s['bucket'])}" if s["bucket"] else n)]
        assert bucket["in_flight"] == sum(source["in_flight"] for source in members), f"bucket {number}: in_flight leaks"
        runnable = any(not s["paused"] and s["n0"] + s["n1"] + s["n2"] > 0 for s in members)
        in_ready, in_wait = number in space.sets.get("z", {}), number in space.sets.get("w", {})
        assert in_ready == (bucket["where"] == 1), f"bucket {number}: z and its place differ"
        assert in_wait == (bucket["where"] == 2), f"bucket {number}: w and its place differ"
        if runnable and bucket["in_flight"] < bucket["cap"]:
            assert in_ready or in_wait, f"bucket {number} can run and stands nowhere: it would sleep for ever"
        if not runnable:
            assert not in_ready, f"bucket {number} has nothing to run and is in the ready set"
