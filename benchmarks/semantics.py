"""What happens to a change that comes while its predecessor runs, to a limited key and its neighbours, and to a job whose
worker is killed: ours beside nine queues, each cell the outcome of a scene that was played (`benchmarks.scenes`).

Each peer is probed with its own features switched on, one after the other; where it has none, the notes say what its
documentation says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from benchmarks import scenes, turns
from benchmarks.processes import Died
from benchmarks.progress import console, step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.roster import BULLMQ, CELERY, OURSELVES, PEERS, Peer
from benchmarks.scenes import Seen

OURS = OURSELVES.name
NONE = "no such feature"
FEW_KEYS, MANY_KEYS = 10, 1_000

_SIDE_BY_SIDE = 3
"""Scenes at a time: they mostly wait, but on a small machine more of them would be in each other's way."""

_OUR_EVENTS = 20_000


@dataclass(frozen=True)
class Features:
    """What of a system is probed, by the name that a reader sees: its own ways of deduplication, its rate limit, its cap."""

    dedup: Mapping[str, str] = field(default_factory=lambda: {"no dedup": "plain"})
    rate: Mapping[str, str] = field(default_factory=dict[str, str])
    cap: Mapping[str, str] = field(default_factory=dict[str, str])


FEATURES = {
    OURS: Features({"window": "window"}, {"quota": "rate"}, {"quota": "cap"}),
    BULLMQ: Features(
        {"simple": "simple", "throttle": "throttle", "debounce": "debounce", "keepLastIfActive": "keep_last"},
        {"the queue's limiter": "rate"},
    ),
    "Huey": Features(
        {"lock_task": "lock", "lock_task and retries": "lock_and_retries"},
        {"rate_limit": "rate"},
        {"lock_task and retries": "lock_and_retries"},
    ),
    "Dramatiq": Features(rate={"WindowRateLimiter": "rate"}, cap={"ConcurrentRateLimiter": "cap"}),
    "taskiq": Features(),
    "SAQ": Features({"key": "key"}),
    "arq": Features({"_job_id": "job_id", "_job_id, keep_result=0": "job_id_no_result"}),
    "RQ": Features({"unique job_id": "unique"}, cap={"RateLimit": "cap"}),
    "pydocket": Features(
        {"key": "key", "Cooldown": "cooldown", "Debounce": "debounce"}, {"RateLimit": "rate"}, {"ConcurrencyLimit": "cap"}
    ),
    CELERY: Features(
        {"no dedup": "plain", "celery-once": "once", "celery-once, unlock_before_run": "once_unlock_before_run"},
        {"the task's rate_limit": "rate"},
    ),
}

_NOTES = [
    "*A change while its predecessor runs*: a job of 0.8 s; 0.3 s after its start the same key changes again. Is there a "
    "run that starts after the change? Lost: not within 6 s. Beside its predecessor: both run at once, so the older may "
    "write last. Windows are 1 s.",
    "*Rate per key*: one start per second is allowed; four jobs of a key, behind them one of another. Ideal: 3 s, the other "
    "at once.",
    "*Concurrency per key*: one at once is allowed; four jobs of 0.5 s, behind them one of another. Ideal: 2 s, the other "
    "at once.",
    "*Server time per job*: the processor time of the Redis server for each consumed no-op job (as in `dispatch`, small "
    "counts). The peers keep one queue for all keys: it cannot grow with them, and none of them can be passed over. With "
    "1,000 keys a claim of 64 of ours visits up to 64 sources, with 10 at most 10.",
    "*Its worker is killed*: `kill -9` to the worker and all its processes in the middle of a job, a new worker at once, "
    "everything by default. What comes back later is a matter of settings: pydocket's redelivery_timeout is 5 minutes, "
    "arq's job lock lasts as long as its job_timeout of 5 minutes, Dramatiq gives a dead worker's messages back some time "
    "after a minute.",
    "Huey's locks and rate limits and Dramatiq's limiters refuse inside the worker, by an error: without retries the job is "
    "gone. Probed with retries (Huey: 30, 1 s apart; Dramatiq: a backoff of 0.5 to 1 s instead of its default of 15 s).",
    "*No such feature*: BullMQ has rates and caps per key (groups) in its Pro version, docs.bullmq.io/bullmq-pro/groups; "
    "its limiter is the queue's. Celery's rate_limit is the task's in one worker, docs.celeryq.dev. RQ's RateLimit is a "
    "cap, python-rq.org/docs. taskiq, SAQ and arq document none: taskiq-python.github.io, saq-py.readthedocs.io, "
    "arq-docs.helpmanual.io.",
]


def run(quick: bool) -> Result:
    patience_s = 40.0 if quick else 75.0
    systems = [OURSELVES, *(peer for peer in PEERS if not peer.missing())]
    with ThreadPoolExecutor(len(systems)) as crashing, ThreadPoolExecutor(_SIDE_BY_SIDE) as playing:
        crashes = {peer.name: crashing.submit(_seen, scenes.crash, peer, "plain", patience_s) for peer in systems}
        played = {
            (peer.name, scene.__name__, label): playing.submit(_seen, scene, peer, feature)
            for peer in systems
            for scene, features in _scenes(FEATURES[peer.name])
            for label, feature in features.items()
        }
        _await("scenes", [*crashes.values(), *played.values()])
        costs = {
            (peer.name, keys): playing.submit(_server_us, peer, keys) for peer in systems for keys in (FEW_KEYS, MANY_KEYS)
        }
        _await("server time per job", list(costs.values()))
    return _result(
        [peer.name for peer in systems],
        {key: one.result() for key, one in played.items()},
        {key: one.result() for key, one in costs.items()},
        {name: one.result() for name, one in crashes.items()},
    )


def _await(what: str, futures: Sequence[Future[Any]]) -> None:
    with step(what, len(futures)) as shown:
        try:
            for one in as_completed(futures):
                one.result()
                shown.advance()
        except BaseException:  # those under way end by themselves, and clean up
            for one in futures:
                one.cancel()
            raise


def _seen(scene: Callable[..., Seen], peer: Peer, feature: str, *more: float) -> Seen:
    try:
        return scene(peer, feature, *more)
    except Died as error:
        console.print(f"  {scene.__name__}, {peer.name}, {feature}: {error}", style="yellow", markup=False)
        return Seen("the probe failed", False)


def _scenes(features: Features) -> list[tuple[Callable[[Peer, str], Seen], Mapping[str, str]]]:
    return [(scenes.change, features.dedup), (scenes.rate, features.rate), (scenes.cap, features.cap)]


def _server_us(peer: Peer, keys: int) -> float:
    turn = turns.ours(_OUR_EVENTS, keys) if peer is OURSELVES else turns.theirs(peer, peer.quick_jobs, keys)
    return turn.server_us_each


def _result(
    names: list[str], seen: dict[tuple[str, str, str], Seen], costs: dict[tuple[str, int], float], crashes: dict[str, Seen]
) -> Result:
    def cell(name: str, scene: str) -> str:
        found = [f"{label}: {one.text}" for (whose, which, label), one in seen.items() if (whose, which) == (name, scene)]
        return "<br>".join(found) or NONE

    rows: list[list[Cell]] = []
    for name in names:
        cost = f"{costs[name, FEW_KEYS]:.0f} → {costs[name, MANY_KEYS]:.0f} µs"
        rows.append([name, cell(name, "change"), cell(name, "rate"), cell(name, "cap"), cost, crashes[name].text])
    absent = {peer.name: why for peer in PEERS if (why := peer.missing())}
    blank: list[Cell] = [None] * 5
    rows += [[f"{name} (not installed)", *blank] for name in absent]
    columns = ["system", "a change while its predecessor runs", "rate per key", "concurrency per key"]
    columns += [f"server time per job, {FEW_KEYS} → {MANY_KEYS:,} keys", "its worker is killed"]
    ours = [crashes[OURS], *(one for (whose, _, _), one in seen.items() if whose == OURS)]
    return Result(
        "semantics",
        "What becomes of a change, and of a job whose worker is killed",
        [Goal("scenes in which ours lost something or held another key up", "at most", 0, sum(not one.good for one in ours))],
        [Table("What was seen", columns, rows)],
        _NOTES + [f"{name} is not installed: {why}." for name, why in absent.items()],
        {"seen": [[*key, one.text, one.good] for key, one in seen.items()]},
    )
