"""A verb's header is a contract: it names every argument and every key, and the key table describes each of them."""

from __future__ import annotations

import re
import threading
from importlib.resources import files
from typing import Any, cast

import pytest
from redis import Redis

from sourcebus.bus import Bus, Settle, keys
from sourcebus.bus.scripts import layouts, verbs
from sourcebus.errors import ContractError
from sourcebus.model import ChangeKind, Quota, Signal, SourceChanged
from sourcebus.testing import ManualClock


def documented_keys() -> set[str]:
    rows = re.findall(r"^(\w[\w ]*?)\s{2,}(?:string|hash|list|zset|set)\s", keys.__doc__ or "", re.MULTILINE)
    return {key for row in rows for key in cast("str", row).split()}


def test_every_key_of_every_verb_is_in_the_key_table():
    named = {key for verb in verbs().values() for key in verb.keys}
    assert named == documented_keys()


def test_every_verb_has_a_method():
    source = (files("sourcebus.bus") / "bus.py").read_text()
    for name in verbs():
        assert f'"{name}"' in source, f"nothing calls {name}.lua"


def test_a_call_with_a_wrong_number_of_arguments_is_refused_before_redis_sees_it(redis: Redis):
    with pytest.raises(ContractError, match="emit takes"):
        verbs()["emit"](redis, b"{x}:", (0, 1, "only a field"))


def test_packed_values_have_one_definition_for_both_languages():
    assert all(len(layout.codes) == len(layout.fields) for layout in layouts().values())
    assert sum(layouts()[part].size for part in "RTP") == 30, "a pending object costs this much beside its name"


@pytest.mark.parametrize("name", sorted(verbs()))
def test_a_verb_touches_only_the_keys_that_its_header_names(redis: Redis, clock: ManualClock, bus_name: str, name: str):
    touched = _keys_touched(redis, clock, bus_name)
    declared = set(verbs()[name].keys)
    assert touched.get(name, set()) <= declared, f"{name}.lua touches keys that its header does not name"


_recorded: dict[str, set[str]] = {}


def _keys_touched(redis: Redis, clock: ManualClock, bus_name: str) -> dict[str, set[str]]:
    """Runs a life of a bus under MONITOR, once; answers the keys that each verb's commands named."""
    if _recorded:
        return _recorded
    commands: list[dict[str, Any]] = []
    ready, done = threading.Event(), threading.Event()

    def listen() -> None:
        with redis.monitor() as monitor:
            ready.set()
            for command in monitor.listen():
                commands.append(cast("dict[str, Any]", command))
                if "end-of-life" in commands[-1]["command"]:
                    break
        done.set()

    for verb in verbs().values():
        redis.script_load(verb.text)  # so that MONITOR shows every call by its digest
    listener = threading.Thread(target=listen)
    listener.start()
    ready.wait(5)
    _a_life(Bus(redis, name=bus_name, clock_ms=lambda: clock.now), clock)
    redis.echo("end-of-life")  # pyright: ignore[reportUnknownMemberType]
    done.wait(5)
    listener.join()
    by_sha = {verb.sha: verb.name for verb in verbs().values()}
    current, prefix = "", "{" + bus_name + "}:"
    for command in commands:
        words = command["command"].split(" ")
        if words[0].upper() == "EVALSHA":
            current = by_sha[words[1]]
        elif command["client_type"] == "lua":
            for word in words[1:2]:
                if word.startswith(prefix):
                    _recorded.setdefault(current, set()).add(re.sub(r":.*", "", word[len(prefix) :]))
    assert len(_recorded) > 12
    return _recorded


def _a_life(bus: Bus, clock: ManualClock) -> None:
    bus.register("a", window_ms=1_000, max_attempts=2, poll_ms=60_000)
    bus.register("b", quota=Quota(rate=1, burst=1, concurrency=1, bucket="shared"))
    bus.register("c", quota=Quota(rate=1, burst=1, concurrency=1, bucket="shared"), max_pending=1)
    bus.emit([SourceChanged("a", f"o{n}") for n in range(4)])
    bus.emit([SourceChanged("c", f"o{n}", signal=Signal.RECONCILE) for n in range(3)])
    bus.emit(SourceChanged("b", "", ChangeKind.SCAN))
    bus.refresh("a", "o1")
    bus.remember([("a", "d1"), ("b", "d1")], keep_ms=1_000, most=1)
    bus.remembered([("a", "d1")])
    bus.claim(0, consumer="w", wait_ms=100)
    leases = bus.claim(10, consumer="w", wait_ms=100).leases
    bus.emit(SourceChanged("a", "o1"))
    bus.extend(leases, running=leases[0])
    bus.ack(leases[:2])
    for how in Settle:
        bus.nack([lease for lease in leases[2:] if lease.source_id == "a"][:1], "no", how=how)
        leases = [*leases[:2], *leases[3:]]
    bus.emit(SourceChanged("a", "scope", ChangeKind.SCAN))
    for lease in bus.claim(10, consumer="w").leases:
        bus.requeue(lease, signal=Signal.RECONCILE, caught_up=True)
    bus.poll("b", 60_000, reconcile=True)
    bus.poll("b", 0)
    bus.tally("a", 1_000, [("missed", "x"), ("heard", "x"), ("announced", "y"), ("anew", "")])
    bus.heard(["a", "unknown"])
    bus.pause("b")
    bus.resume("b")
    for _ in range(30):
        clock.advance(40_000)
        bus.tick()
        for lease in bus.claim(10, consumer="w").leases:
            bus.nack([lease], how=Settle.HOPELESS)
    bus.stats(["a", "b"])
    bus.vitals()
    bus.peek("a", "o1")
    for letter in bus.dead_letters():
        bus.replay(letter.id)
    bus.leave("w", stay_warm=True)
    bus.unregister("a")
