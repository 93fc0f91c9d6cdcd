"""Small faults to plant in the scripts, each with the promise that it breaks and the machine that has to see it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pytest

from sourcebus.bus.scripts import build, verbs
from tests.properties.core import Core
from tests.properties.fairness import Fairness
from tests.properties.lanes import Lanes
from tests.properties.lifecycle import Lifecycle
from tests.properties.running import Machine


@dataclass(frozen=True)
class Mutant:
    """`old` in the file becomes `new`. `file` is below ``lua/``, `_x` stands for ``_lib/x``; `promise` by DESIGN §4.
    Without a `machine` it is `test_bounded` that has to see it."""

    promise: int
    name: str
    machine: Machine | None
    file: str
    old: str
    new: str = ""

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = files("sourcebus.bus") / "lua"
        path = f"_lib/{self.file[1:]}.lua" if self.file.startswith("_") else f"{self.file}.lua"
        text = (folder / path).read_text(encoding="utf-8")
        assert text.count(self.old) >= 1, f"the mutant {self.name!r} no longer applies: bring it up to date"
        mutated = text.replace(self.old, self.new, 1)
        for name in list(verbs()):
            own = (folder / f"{name}.lua").read_text(encoding="utf-8")
            if self.file.startswith("_"):
                monkeypatch.setitem(verbs(), name, build(name, own, {self.file[1:]: mutated}))
            elif name == self.file:
                monkeypatch.setitem(verbs(), name, build(name, mutated))


MUTANTS = (
    # 1: the last change is never lost
    Mutant(
        1, "the dirty mark is ignored", Core, "ack", "unpack_at(RX_FORMAT, raw)", "unpack_at(RX_FORMAT, raw)\n    dirty = 0"
    ),
    Mutant(1, "what is due is not promoted", Core, "_settle", "make_ready(n, field, r)\n        touch(n)", "drop(field)"),
    Mutant(1, "the first signal of an idle source wakes nobody", Core, "emit", "then woken[#woken + 1] = n end", "then end"),
    Mutant(
        1, "an ack does not place the bucket again", Core, "ack", "then touch(n) end", "then touch(n) b[B_TOUCHED] = PLACED end"
    ),
    # 2: the window
    Mutant(
        2,
        "a signal in the window is dropped, as SET NX EX does",
        Core,
        "_queue",
        "  local due = (r and lane",
        "  if r then return MERGED end\n  local due = (r and lane",
    ),
    Mutant(2, "the window is not kept after a dirty ack", Core, "ack", "r[R_LANE] == MANUAL and now or ends", "now"),
    Mutant(2, "the window is not kept while cooling", Core, "ack", "if dirty == 0 and ends > now then", "if false then"),
    Mutant(2, "the window ends a millisecond early", Core, "ack", "claimed + s[S_WINDOW]", "claimed + s[S_WINDOW] - 1"),
    # 3: leases
    Mutant(3, "acks are not fenced", Core, "ack", "if at == fence and s then", "if at and s then"),
    Mutant(3, "nacks are not fenced", Core, "_settle", "and r[R_AT] == fence then", "then"),
    Mutant(3, "fences repeat", Core, "claim", "m[M_FENCE] = fence + got"),
    Mutant(3, "an extended lease keeps its deadline", Core, "extend", "r[R_DEADLINE] = deadline"),
    # 4: quotas
    Mutant(4, "tokens are not charged", Core, "claim", "charge_tokens(b, got * s[S_COST], now)", "charge_tokens(b, 0, now)"),
    Mutant(4, "a turn is charged as one call", Core, "claim", "charge_tokens(b, got * s", "charge_tokens(b, s"),
    Mutant(4, "the cap is off by one", Core, "_place", "b[B_IN_FLIGHT] >= b[B_CAP]", "b[B_IN_FLIGHT] > b[B_CAP]"),
    Mutant(4, "what a call really cost is not settled", Core, "ack", "service, cost, now)", "service, charged, now)"),
    Mutant(4, "debt is forgiven", Core, "_settle", "if cost > charged and", "if false and"),
    Mutant(4, "tokens come back twice", Core, "_settle", " - (now - claimed))", ")"),
    Mutant(
        4,
        "what is released stays charged",
        Core,
        "nack",
        "end_lease(n, s, r, 0, 0, now)",
        "end_lease(n, s, r, 0, r[X_COST], now)",
    ),
    Mutant(
        4,
        "the burst is not waited for",
        Core,
        "_place",
        "local room = b[B_BURST] - min(s[S_COST], b[B_BURST])",
        "local room = b[B_BURST]",
    ),
    Mutant(
        4,
        "shared buckets are free",
        Core,
        "_place",
        "if b[B_RATE] > 0 then b[B_TAT]",
        "if b[B_RATE] > 0 and b[B_SHARED] == 0 then b[B_TAT]",
    ),
    Mutant(
        4,
        "a slot leaks when a lease is lost",
        Core,
        "_settle",
        "      c[C_REAPED] = c[C_REAPED] + 1",
        "      c[C_REAPED] = c[C_REAPED] + 1 bucket(bucket_id(n, s))[B_IN_FLIGHT] = bucket(bucket_id(n, s))[B_IN_FLIGHT] + 1",
    ),
    Mutant(
        4,
        "a source that moves leaves its slots behind",
        Lifecycle,
        "register",
        "left[B_IN_FLIGHT] - s[S_IN_FLIGHT]",
        "left[B_IN_FLIGHT]",
    ),
    Mutant(
        4, "a source that goes keeps its slots", Lifecycle, "unregister", "b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - s[S_IN_FLIGHT]"
    ),
    # 5: order
    Mutant(5, "idleness earns credit", Fairness, "_place", "= max(m[M_V], sources[n][S_FINISH])", "= sources[n][S_FINISH]"),
    Mutant(
        5, "what comes back is forgotten", Fairness, "claim", "s[S_BUCKET] == 0 and s[S_FINISH] or max(m[M_V]", "max(m[M_V]"
    ),
    Mutant(
        5,
        "events are charged, not worker time",
        Fairness,
        "_settle",
        "work(max(service, LEAST_MS) - est, s)",
        "work(1 - est, s)",
    ),
    Mutant(5, "weights are ignored", Fairness, "_place", "1000 / s[S_WEIGHT]", "1000"),
    Mutant(5, "what the heartbeat charged is charged again", Fairness, "extend", "r[X_EST] = used"),
    Mutant(5, "a hold is not stored", Lifecycle, "pause", "touch(n)\n"),
    Mutant(5, "a held source is served", Lifecycle, "_place", "if s[S_PAUSED] ~= 0 then return nil end"),
    Mutant(
        5, "a source that moved stays in the old bucket's order", Lifecycle, "register", "call('ZREM', ROOT .. 'bs:' .. old, n)"
    ),
    # 6: the provider's word
    Mutant(6, "a pause is not looked at", Core, "_place", "if b[B_PAUSE] > now then", "if false then"),
    Mutant(6, "a 429 shortens a pause", Core, "nack", "max(b[B_PAUSE], now + math.ceil(wait_ms))", "now + math.ceil(wait_ms)"),
    Mutant(
        6, "headers shorten a pause", Core, "feedback", "max(b[B_PAUSE], now + math.ceil(left_ms))", "now + math.ceil(left_ms)"
    ),
    Mutant(6, "the last unit is not used", Core, "feedback", "remaining < 1 ", "remaining <= 1 "),
    Mutant(6, "headers do not set the rate", Core, "feedback", "min(1, remaining / left_ms / b[B_RATE])", "1"),
    Mutant(6, "every 429 of an episode halves the rate", Core, "nack", "if claimed > b[B_HALVED_AT] then", "if true then"),
    Mutant(6, "an outage halves the rate", Core, "nack", "if how == 'throttled' then", "if true then"),
    Mutant(6, "a 429 costs an attempt", Core, "nack", "r[R_ATTEMPTS] - 1", "r[R_ATTEMPTS]"),
    Mutant(6, "a halved rate recovers in a minute", Core, "_place", "RECOVERY_MS = 600000", "RECOVERY_MS = 60000"),
    Mutant(6, "an outage of one source stops its bucket", Core, "nack", "hold_back(s, now", "b[B_PAUSE] = max(b[B_PAUSE], now"),
    Mutant(6, "an outage stops nothing", Core, "nack", "s[S_AWAY] = max(s[S_AWAY], until_ms)"),
    Mutant(6, "an outage shortens the one before", Core, "nack", "max(s[S_AWAY], until_ms)", "until_ms"),
    Mutant(
        6,
        "a source that is away is served",
        Core,
        "_place",
        "  if s[S_AWAY] > now then return IN_WAIT, s[S_AWAY], WHY_PAUSE end\n",
    ),
    Mutant(
        6,
        "a source that is away stays in its shared bucket's order",
        Core,
        "_place",
        "    call('ZREM', key, n)\n    call",
        "    call",
    ),
    Mutant(6, "nothing wakes a source that is away", Core, "_place", "call('ZADD', ROOT .. 'w', s[S_AWAY], n)"),
    Mutant(6, "a source that was away is not put back", Core, "_settle", "      touch(id)\n"),
    Mutant(6, "a source that was away is woken for ever", Core, "_place", "    call('ZREM', ROOT .. 'w', n)\n"),
    Mutant(
        6,
        "who moves while it is away is woken in both places",
        Lifecycle,
        "register",
        "    call('ZREM', ROOT .. 'bs:' .. old, n)\n    call('ZREM', ROOT .. 'w', n)",
        "    call('ZREM', ROOT .. 'bs:' .. old, n)",
    ),
    Mutant(
        6,
        "who goes while it is away is woken",
        Lifecycle,
        "unregister",
        "    call('ZREM', ROOT .. 'bs:' .. id, n)\n    call('ZREM', ROOT .. 'w', n)",
        "    call('ZREM', ROOT .. 'bs:' .. id, n)",
    ),
    # 7: manual refresh
    Mutant(7, "refreshes are not capped", Lanes, "refresh", "c[C_REFRESHED] = now"),
    Mutant(7, "refreshes take all of a small quota", Lanes, "refresh", "2 * s[S_COST]", "1 * s[S_COST]"),
    Mutant(7, "a refresh waits for tokens", Lanes, "_place", "b[B_RATE] > 0 and tag ~= REFRESH_TAG then", "b[B_RATE] > 0 then"),
    Mutant(
        7,
        "a refresh goes before the provider's pause",
        Lanes,
        "_place",
        "b[B_PAUSE] > now then",
        "b[B_PAUSE] > now and tag ~= REFRESH_TAG then",
    ),
    Mutant(
        7, "a refresh is free", Lanes, "claim", "charge_tokens(b, got", "charge_tokens(b, (tag == REFRESH_TAG and 0 or 1) * got"
    ),
    Mutant(
        7,
        "a refresh waits for the window",
        Lanes,
        "_queue",
        "(r and lane ~= MANUAL) and r[R_AT] or now",
        "r and r[R_AT] or now",
    ),
    Mutant(
        7, "a refresh stands in line with live signals", Lanes, "_core", "LIVE, MANUAL, BACKFILL }", "LIVE, LIVE, BACKFILL }"
    ),
    Mutant(7, "a refresh while its object dies waits", Lanes, "_settle", "r[R_LANE] == MANUAL and now or max", "max"),
    # 8: live and backfill
    Mutant(8, "backfill starves", Lanes, "claim", "if s[S_TURN] >= s[S_LIVE_WEIGHT] then", "if false then"),
    Mutant(8, "backfill goes first", Lanes, "claim", "if s[S_TURN] >= s[S_LIVE_WEIGHT] then", "if true then"),
    Mutant(8, "a stale entry costs the backfill its turn", Lanes, "claim", "if by_turns and got > 0 then", "if by_turns then"),
    Mutant(
        8,
        "a live signal leaves its object in the backfill",
        Lanes,
        "_queue",
        "if lane > r[R_LANE] and (r[R_STATE] == READY or lane == MANUAL) then",
        "if lane == MANUAL and lane > r[R_LANE] then",
    ),
    # 9: retries and dead letters
    Mutant(9, "attempts are not counted", Core, "claim", "min(attempts + 1, 255)", "max(attempts, 1)"),
    Mutant(
        9, "a lost lease is forgotten", Core, "_settle", "retry_or_bury(n, s, field, r, 'the lease", "drop(field, 'the lease"
    ),
    Mutant(9, "lost leases are not looked for by the tick", Core, "tick", "reap(now, most)", "0"),
    Mutant(9, "a lost object is retried together with others", Core, "_settle", "now, SOLO, false)", "now, 0, false)"),
    Mutant(
        9,
        "a solo object joins those taken before it",
        Core,
        "claim",
        "if flags % BEGUN == SOLO and taken + got > 0 then",
        "if false then",
    ),
    Mutant(
        9,
        "a failure does not back off",
        Core,
        "_settle",
        "make_pending(n, s, field, r, now + wait, now)",
        "make_pending(n, s, field, r, now, now)",
    ),
    Mutant(
        9, "one attempt too many", Core, "_settle", "r[R_ATTEMPTS] >= c[C_MAX_ATTEMPTS]", "r[R_ATTEMPTS] > c[C_MAX_ATTEMPTS]"
    ),
    Mutant(
        9,
        "a dead letter takes the newer change with it",
        Core,
        "_settle",
        "if r[X_DIRTY] == 0 then return drop(field) end",
        "if true then return drop(field) end",
    ),
    Mutant(
        9,
        "a rerun goes on with the attempts of before",
        Core,
        "_settle",
        "r[R_FLAGS], r[R_LANE] = r[X_DIRTY], 0,",
        "r[R_FLAGS], r[R_LANE] = r[X_DIRTY], 1,",
    ),
    Mutant(9, "success leaves the dead letter", Core, "ack", "if s[S_DEAD] > 0 then", "if false then"),
    Mutant(9, "a replay is only a drop", Core, "replay", "if ARGV[3] == '1' then", "if false then"),
    Mutant(9, "a drop replays", Core, "replay", "if ARGV[3] == '1' then", "if true then"),
    # 10: bounded memory
    Mutant(10, "the limit is not looked at for first signals", Lifecycle, "emit", "pending_of(q) < q[N_MAX_PENDING]", "true"),
    Mutant(10, "the limit is not looked at for later ones", Lifecycle, "_queue", "if kind ~= KIND_SCAN and", "if false and"),
    Mutant(
        10,
        "what overflows is dropped",
        Lifecycle,
        "_queue",
        "    accept(n, s, n .. ':s', scan_payload(byte(payload, P_SIGNAL), unpack_at('<d', payload, 3)), now)\n",
    ),
    Mutant(
        10,
        "cooling objects are never swept",
        Core,
        "_queue",
        "r[R_STATE] == COOLING and r[R_AT] <= now",
        "r[R_STATE] == COOLING and r[R_AT] < 0",
    ),
    Mutant(10, "dead letters outlive their source", Lifecycle, "unregister", "call('HDEL', ROOT .. 'dl', page[2][i + 1])"),
    Mutant(10, "requeues are not fenced", Lifecycle, "requeue", "held(field, tonumber(ARGV[3]))", "record(field)"),
    Mutant(10, "what is caught up with is told again", Lifecycle, "requeue", "if ARGV[7] == '1' then", "if false then"),
    Mutant(10, "what was told while a slice ran is forgotten", Lifecycle, "requeue", "= flags_of_rest(r, 0)", "= BEGUN"),
    Mutant(10, "a pass under way is not known as one", Lifecycle, "requeue", "= flags_of_rest(r, 0)", "= 0"),
    Mutant(10, "what a slice really cost is not paid", Lifecycle, "requeue", "tonumber(ARGV[4]), now)", "r[X_COST], now)"),
    Mutant(10, "every slice costs an attempt", Lifecycle, "requeue", "r[R_ATTEMPTS] = 0"),
    Mutant(
        10,
        "the rest of a pass waits for the window",
        Lifecycle,
        "requeue",
        "make_ready(n, field, r)",
        "make_pending(n, s, field, r, r[X_CLAIMED] + s[S_WINDOW], now)",
    ),
    Mutant(
        10,
        "the rest of a pass goes before what waits",
        Lanes,
        "requeue",
        "make_ready(n, field, r)",
        "make_ready(n, field, r) pushes[lane_key(r[R_LANE], n)] = nil call('LPUSH', ROOT .. lane_key(r[R_LANE], n), field)",
    ),
    Mutant(10, "a pass changes its lane with who told", Lanes, "requeue", "if r[X_DIRTY] == 0 or", "if false and"),
    Mutant(10, "a lesser signal pulls a pass down", Lanes, "requeue", " or LANE[signal] > r[R_LANE] then", " then"),
    Mutant(
        10,
        "what is told of a pass that was given back is forgotten",
        Lifecycle,
        "nack",
        "if r[R_FLAGS] >= BEGUN then",
        "if false then",
    ),
    Mutant(10, "a failure forgets what was told", Lifecycle, "_settle", " or r[X_DIRTY] ~= 0\n", "\n"),
    Mutant(
        10, "what is told of a pass that waits is forgotten", Lifecycle, "_queue", "if r[R_FLAGS] >= BEGUN and", "if false and"
    ),
    Mutant(10, "the same signal again is not news", Lifecycle, "emit", " and byte(known, R_FLAGS) < BEGUN"),
    Mutant(
        10, "coverage outlives its source", Lifecycle, "unregister", "call('DEL', ROOT .. 'cov:' .. n, ROOT .. 'late:' .. n)"
    ),
    Mutant(10, "deliveries outlive their source", Lifecycle, "unregister", "call('UNLINK', ROOT .. 'hd:' .. n)"),
    Mutant(10, "polls outlive their source", Lifecycle, "unregister", "call('ZREM', ROOT .. 'pl', n)"),
    Mutant(10, "a source that is not polled stands among those that are", Lifecycle, "poll", "call('ZREM', ROOT .. 'pl', n)"),
    # 11: loss of all data
    Mutant(11, "numbers of an earlier life are taken", Lifecycle, "emit", "tonumber(ARGV[2]) ~= m[M_EPOCH]", "false"),
    Mutant(11, "every life has the same epoch", Lifecycle, "_core", "m[M_EPOCH] = raw", "m[M_EPOCH] = 1"),
    Mutant(11, "fences begin anew", Lifecycle, "_core", "m[M_FENCE] = max(m[M_FENCE], m[M_CLOCK] * 1024)"),
    # 12: one place, bounded work, guarded time
    Mutant(12, "time goes back with the server's", Core, "_core", "max(raw, m[M_CLOCK] + floor(passed / 2))", "raw"),
    Mutant(12, "a wrong clock is never caught up with", Core, "_core", "floor(passed / 2)", "passed"),
    Mutant(
        12,
        "a changed quota is not stored",
        Lifecycle,
        "register",
        "b[B_RATE], b[B_BURST], b[B_CAP] = tonumber(ARGV[4])",
        "if created then b[B_RATE] = 0 end\nlocal _, _, _ = tonumber(ARGV[4])",
    ),
)

UNBOUNDED = (
    Mutant(
        12, "everything lost is reaped in one call", None, "_settle", "'x', '-inf', now, 'LIMIT', 0, most)", "'x', '-inf', now)"
    ),
    Mutant(
        12,
        "everything due is promoted in one call",
        None,
        "_settle",
        "'d', '-inf', now, 'LIMIT', 0, most)",
        "'d', '-inf', now)",
    ),
    Mutant(
        12, "every bucket is woken in one call", None, "_settle", "'w', '-inf', now, 'LIMIT', 0, most)", "'w', '-inf', now)"
    ),
    Mutant(12, "everything that cooled is swept in one call", None, "_queue", "most = most - #fields", "most = most"),
)
