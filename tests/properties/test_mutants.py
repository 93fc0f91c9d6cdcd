"""The property machine must bite: each of these small faults, planted in the scripts, is caught by it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis

from sourcebus.bus.scripts import build, verbs
from tests.properties.machine import BusMachine


@dataclass(frozen=True)
class Mutant:
    """`old` in the file becomes `new`. `file` is below ``lua/``."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a signal in the window is dropped, as SET NX EX does",
        "_lib/queue.lua",
        "  local due = (r and lane",
        "  if r then return MERGED end\n  local due = (r and lane",
    ),
    Mutant("the dirty mark is ignored", "ack.lua", "unpack_at(RX_FORMAT, raw)", "unpack_at(RX_FORMAT, raw)\n    dirty = 0"),
    Mutant("the window is not kept after a dirty ack", "ack.lua", "r[R_LANE] == MANUAL and now or ends", "now"),
    Mutant("the window is not kept while cooling", "ack.lua", "if dirty == 0 and ends > now then", "if false then"),
    Mutant(
        "an ack does not place the bucket again",
        "ack.lua",
        "if not s[S_TOUCHED] then touch(n) end",
        "if not s[S_TOUCHED] then touch(n) end\n    b[B_TOUCHED] = PLACED",
    ),
    Mutant("acks are not fenced", "ack.lua", "if at == fence and s then", "if at and s then"),
    Mutant(
        "a lost lease is forgotten instead of retried",
        "_lib/settle.lua",
        "retry_or_bury(n, s, field, r, 'the lease was lost",
        "drop(field); (function() end)(n, s, field, r, 'the lease was lost",
    ),
    Mutant(
        "a dead letter takes the newer change with it",
        "_lib/settle.lua",
        "if r[X_DIRTY] == 0 then return drop(field) end",
        "if true then return drop(field) end",
    ),
    Mutant("tokens are not charged", "claim.lua", "charge_tokens(b, got * s[S_COST], now)", "charge_tokens(b, 0, now)"),
    Mutant("the cap is off by one", "_lib/place.lua", "b[B_IN_FLIGHT] >= b[B_CAP]", "b[B_IN_FLIGHT] > b[B_CAP]"),
    Mutant(
        "a pause is shortened by a later, shorter one",
        "nack.lua",
        "max(b[B_PAUSE], now + math.ceil(wait_ms))",
        "now + wait_ms / 2",
    ),
    Mutant("a pause is not looked at", "_lib/place.lua", "if b[B_PAUSE] > now then", "if false then"),
    Mutant(
        "attempts are not counted for a lost lease",
        "_lib/settle.lua",
        "  r[R_FLAGS] = flags\n",
        "  r[R_FLAGS] = flags\n  if flags == SOLO then r[R_ATTEMPTS] = r[R_ATTEMPTS] - 1 end\n",
    ),
    Mutant(
        "a slot leaks when a lease is lost",
        "_lib/settle.lua",
        "end_lease(n, s, r, r[X_EST], r[X_COST], now)",
        "end_lease(n, s, r, r[X_EST], r[X_COST], now) local b = bucket(bucket_id(n, s)) b[B_IN_FLIGHT] = b[B_IN_FLIGHT] + 1",
    ),
    Mutant("a paused source is served", "_lib/place.lua", "if s[S_PAUSED] ~= 0 then return nil end", ""),
    Mutant(
        "what is due is not promoted",
        "_lib/settle.lua",
        "make_ready(n, field, r)\n        touch(n)\n      else",
        "call('ZREM', ROOT .. 'd', field)\n      else",
    ),
    Mutant(
        "shared buckets are charged per source",
        "_lib/place.lua",
        "b[B_TAT] = max(now, b[B_TAT]) + cost",
        "b[B_TAT] = b[B_SHARED] == 0 and max(now, b[B_TAT]) + cost / rate_now(b, now) or 0 * cost",
    ),
    Mutant(
        "cooling records are never swept",
        "_lib/queue.lua",
        "r[R_STATE] == COOLING and r[R_AT] <= now then drop(field)",
        "r[R_STATE] == COOLING and r[R_AT] < 0 then drop(field)",
    ),
)


def _plant(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files("sourcebus.bus") / "lua"
    text = (folder / mutant.file).read_text()
    assert mutant.old in text, f"the mutant {mutant.name!r} no longer applies: bring it up to date"
    mutated = text.replace(mutant.old, mutant.new, 1)
    part = mutant.file.removeprefix("_lib/").removesuffix(".lua")
    for name in list(verbs()):
        own = (folder / f"{name}.lua").read_text()
        if mutant.file.startswith("_lib/"):
            monkeypatch.setitem(verbs(), name, build(name, own, {part: mutated}))
        elif name == part:
            monkeypatch.setitem(verbs(), name, build(name, mutated))


LONG = {
    "the window is not kept while cooling",
    "a pause is shortened by a later, shorter one",
    "a dead letter takes the newer change with it",
    "shared buckets are charged per source",
}
"""Found after many steps only: `make soak` runs these too."""


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(mutant, id=mutant.name, marks=[pytest.mark.soak] if mutant.name in LONG else []) for mutant in MUTANTS],
)
def test_a_planted_fault_is_caught(mutant: Mutant, redis: Redis, monkeypatch: pytest.MonkeyPatch):
    _plant(mutant, monkeypatch)
    machine = type("Machine", (BusMachine,), {"redis": redis})
    with pytest.raises(BaseException) as caught:  # any failure will do: also a script error or an endless wait
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=300,
                stateful_step_count=50,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
    assert not isinstance(caught.value, KeyboardInterrupt)
