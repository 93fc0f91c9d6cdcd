"""400 SharePoint sites under one quota, one of them 100 times as busy as each of the others: how fresh is the index?

The whole product on the simulated tenant (`sourcebus.testing.providers.graph`), which counts resource units itself and answers
429 when they are spent. Notifications come over HTTP, late, as Graph sends them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog.testing
from cryptography.fernet import Fernet
from pydantic import SecretStr

from benchmarks.processes import scratch
from benchmarks.progress import step
from benchmarks.result import Goal, Result, Table
from benchmarks.week import HOT_FACTOR, Edit, Swept, Week, edits, swept
from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.model import Delivery, Outcome, Quota, Signal, Source, SourceChanged, Subscription
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.testing.providers.courier import Faults
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.graph_meter import GraphFacts
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

LIMIT_S = 120.0
WEEK, QUICK = Week(400, 3, 60.0, hot_files=100, files=2), Week(60, 3, 6.0, hot_files=100, files=2)

SLOTS, LATENCY_S, NOTIFIED_MS = 8, 0.1, (2_000.0, 30_000.0)
SWEEP_S, SWEPT_WEEKS = 600.0, 10

_FACTS = GraphFacts()
_SETUP = Quota(concurrency=SLOTS, bucket="setting-up")
_WINDOW_S, _WITHIN_S = 31.0, 600.0


@dataclass
class Seen:
    """A sink: when each state of each file reached the index, by the serial number of its last change."""

    at_s: dict[tuple[str, str], list[tuple[float, int]]] = field(default_factory=dict[tuple[str, str], list[tuple[float, int]]])
    states: int = 0

    def write(self, outcomes: Sequence[Outcome]) -> None:
        now_s = time.monotonic()
        for outcome in outcomes:
            if outcome.documents:
                serial = int(outcome.documents[0].text.rpartition(" ")[2])
                self.at_s.setdefault((outcome.source_id, outcome.object_ref), []).append((now_s, serial))
                self.states += 1

    def fresh_s(self, source_id: str, ref: str, serial: int) -> float | None:
        """When a state was first there that holds this change; None: it is not yet."""
        found = self.at_s.get((source_id, ref), ())
        return next((at_s for at_s, held in found if held >= serial), None)


@dataclass(frozen=True)
class Outcomes:
    """What came of the week: seconds from each change to the index, and what the provider counted."""

    hot_s: list[float]
    others_s: list[float]
    units: float
    refused: float
    extractions: int
    wrong: int


class Hooks(ProviderServer):
    """Takes notifications for all sources, as the gateway does: proven by the connector, stored on the bus, then answered."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime
        self.subscriptions: dict[str, list[Subscription]] = {}
        self.on("POST", "/hooks/(.+)", self._hear)

    def _hear(self, asked: Asked) -> Answer:
        source_id = asked.args[0]
        connector = self._runtime.bindings.get(source_id).connector
        assert isinstance(connector, SharePointConnector)
        delivery = Delivery(asked.method, asked.headers, asked.body, round(time.time() * 1000), asked.query)
        heard = connector.parse_webhook(delivery, self.subscriptions.get(source_id, []))
        if heard.reply is not None:
            return Answer(heard.reply.status, heard.reply.body, {"Content-Type": heard.reply.media_type})
        changes = [SourceChanged(source_id, one.object_ref, one.change_kind, signal=Signal.WEBHOOK) for one in heard.changes]
        self._runtime.intake.accept(changes)
        return Answer(202)


def run(quick: bool) -> Result:
    week = QUICK if quick else WEEK
    changes = edits(week)
    found = _product(week, changes)
    rate, burst = _FACTS.rate_per_s, _FACTS.burst
    sweep = swept(week, changes, rate=rate, burst=burst, call_s=LATENCY_S, every_s=SWEEP_S, weeks=SWEPT_WEEKS)
    return _result(week, changes, found, sweep)


def _result(week: Week, changes: Sequence[Edit], found: Outcomes, sweep: Swept) -> Result:
    every = [*found.hot_s, *found.others_s]
    rows = [
        _row("sourcebus, all sites", every),
        _row("sourcebus, the hot site", found.hot_s),
        _row("sourcebus, the others", found.others_s),
        _row("sweep, all sites", [*sweep.hot_s, *sweep.others_s]),
        _row("sweep, the hot site", sweep.hot_s),
        _row("sweep, the others", sweep.others_s),
    ]
    share = found.units / (_FACTS.rate_per_s * week.length_s)
    return Result(
        "sharepoint",
        f"{week.sites} SharePoint sites under {_FACTS.rate_per_s:g} units/s, one with {HOT_FACTOR} times the others' changes",
        [
            Goal("p95 from change to searchable, all sites", "at most", LIMIT_S, _quantile(every, 0.95), "s"),
            Goal("p95 of the sites beside the hot one", "at most", LIMIT_S, _quantile(found.others_s, 0.95), "s"),
            Goal("files whose last state is not indexed", "at most", 0, float(found.wrong)),
        ],
        [
            Table("Seconds from a change to its text in the index", ["", "changes", "p50", "p95", "p99", "longest"], rows),
            Table(
                "What it took",
                ["changes", "extractions", "units", "of the quota", "units refused (429)", "sweeps", "longest sweep"],
                [
                    [
                        len(changes),
                        found.extractions,
                        found.units,
                        f"{share:.0%}",
                        found.refused,
                        sweep.sweeps,
                        f"{sweep.longest_s:.0f} s",
                    ]
                ],
            ),
        ],
        [
            f"A day lasts {week.day_s:g} s: the pattern of a week is compressed {86_400 / week.day_s:,.0f} times. Nothing else "
            "is: quota, dedup window (30 s), latencies and freshness are in real seconds. So the load on the quota is that of "
            "a real week with as many times the changes, and it rises and falls far faster.",
            f"The provider answers in {LATENCY_S * 1000:g} ms and notifies {NOTIFIED_MS[0] / 1000:g} to "
            f"{NOTIFIED_MS[1] / 1000:g} s after the change, at random (Microsoft: under a minute on average); these seconds "
            "are in the numbers.",
            f"The sweep is computed in virtual time: one worker, every {SWEEP_S / 60:g} minutes, site after site, delta, diff "
            "and processing at once, same changes, calls and quota, no time for extracting at all. Its week is repeated "
            f"{SWEPT_WEEKS} times, because ten minutes are longer than a compressed week.",
            f"{SLOTS} worker slots, the simulator and the receiver share one process. The first index is made before, without "
            "a quota.",
        ],
    )


def _row(name: str, seconds: Sequence[float]) -> list[str | int | float | None]:
    return [name, len(seconds), *(_quantile(seconds, share) for share in (0.5, 0.95, 0.99, 1.0))]


def _quantile(seconds: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(seconds)[max(0, -(-int(share * 1000) * len(seconds) // 1000) - 1)]


def _product(week: Week, changes: Sequence[Edit]) -> Outcomes:
    with ExitStack() as stack:
        stack.enter_context(structlog.testing.capture_logs())
        folder, url = stack.enter_context(scratch()), stack.enter_context(running_server())
        tenant = stack.enter_context(
            GraphSimulator(faults=Faults(seed=week.seed, delay_ms=NOTIFIED_MS), enforce=False, lanes=8)
        )
        settings = Settings(
            redis_url=url, database_url=f"sqlite:///{folder}/catalog.db", waiting_consumers=SLOTS, secret_key=_key()
        )
        seen = Seen()
        runtime = stack.enter_context(build(settings, sinks=[seen]))
        hooks = stack.enter_context(Hooks(runtime))
        stack.enter_context(_working(runtime))
        drives = _set_up(runtime, tenant, hooks, week, seen)
        return _live_through(runtime, tenant, changes, drives, seen)


@contextmanager
def _working(runtime: Runtime) -> Generator[None]:
    """Worker slots, until the block is left."""
    stopping = threading.Event()

    def slot() -> None:
        shift = runtime.shift(stopping.is_set)
        try:
            while not stopping.is_set():
                shift.run()
        finally:
            shift.close()

    threads = [threading.Thread(target=slot) for _ in range(SLOTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _set_up(runtime: Runtime, tenant: GraphSimulator, hooks: Hooks, week: Week, seen: Seen) -> list[SimDrive]:
    """All sites are listed, read and subscribed; then the quota begins to hold, on both sides."""
    drives = [tenant.drive() for _ in range(week.sites)]
    sizes = [week.hot_files if site == 0 else week.files for site in range(week.sites)]
    for drive, files in zip(drives, sizes, strict=True):
        for file in range(files):
            tenant.put(drive, _path(file), _text(0))
    config = {
        "tenant": tenant.tenant,
        "client_id": tenant.client_id,
        "authority": tenant.url,
        "graph_url": tenant.graph_url,
    }
    with step("the first index", sum(sizes)) as shown:
        for site, drive in enumerate(drives):
            secret = tenant.secrets[0]
            runtime.sources.add(
                Source(_name(site), "sharepoint", config={**config, "drive": drive.id}, quota=_SETUP, secret=secret)
            )

        def read() -> bool:
            shown.to(seen.states)
            return seen.states >= sum(sizes)

        _await(read)
    with step("subscriptions, quotas", week.sites) as shown:
        for site in range(week.sites):
            connector = runtime.bindings.get(_name(site)).connector
            assert isinstance(connector, SharePointConnector)
            hooks.subscriptions[_name(site)] = [connector.subscribe(f"{hooks.url}/hooks/{_name(site)}")]
            runtime.sources.change(_name(site), quota=None)
            shown.advance()
    time.sleep(_WINDOW_S)  # what the first index holds back ends
    tenant.meter.spent = tenant.meter.refused = 0.0
    tenant.meter.enforce, tenant.latency_s = True, LATENCY_S
    return drives


def _live_through(
    runtime: Runtime, tenant: GraphSimulator, changes: Sequence[Edit], drives: Sequence[SimDrive], seen: Seen
) -> Outcomes:
    before, began_s = seen.states, time.monotonic()
    made: list[tuple[Edit, str, float]] = []
    with step("the week", len(changes)) as shown:
        for one in changes:
            time.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
            item = tenant.put(drives[one.site], _path(one.file), _text(one.serial))
            made.append((one, item.id, time.monotonic()))
            shown.advance()
    units, refused = tenant.meter.spent, tenant.meter.refused
    with step("until all is fresh", len(made)) as shown:
        _await(lambda: all(seen.fresh_s(_name(one.site), ref, one.serial) is not None for one, ref, _at_s in made))
        shown.to(len(made))
    waits: tuple[list[float], list[float]] = ([], [])
    for one, ref, at_s in made:
        waits[one.site != 0].append((seen.fresh_s(_name(one.site), ref, one.serial) or 0.0) - at_s)
    return Outcomes(*waits, units, refused, seen.states - before, _wrong(runtime, tenant, drives))


def _wrong(runtime: Runtime, tenant: GraphSimulator, drives: Sequence[SimDrive]) -> int:
    """Files whose version in the catalog is not the one that the connector sees now."""
    tenant.meter.enforce, tenant.latency_s = False, 0.0
    wrong = 0
    for site, drive in enumerate(drives):
        refs = [item.id for item in drive.items.values() if item.content is not None]
        known = runtime.catalog.versions([(_name(site), ref) for ref in refs])
        connector = runtime.bindings.get(_name(site)).connector
        stored = {ref: found.version for ref in refs if (found := known.get((_name(site), ref)))}
        wrong += sum(stored.get(ref) != connector.version(ref) for ref in refs)
    return wrong


def _await(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("the sites did not become fresh")
        time.sleep(0.2)


def _key() -> SecretStr:
    return SecretStr(Fernet.generate_key().decode())


def _name(site: int) -> str:
    return f"site-{site:03d}"


def _path(file: int) -> str:
    return f"plans/file-{file:03d}.txt"


def _text(serial: int) -> str:
    return f"The state after change {serial}"
