"""From a change in a real outside system to seeing it in a search, through the whole product.

`sourcebus up` runs with its gateway, worker, beat and watcher. Each scene starts a system by other people on loopback, adds a
source on it, and changes objects there, one at a time. Timed from just before the call that changes the object until a look
sees it; the system's own time to store it and to tell is in that.

One more system is one more class with `name` and `open`, in a module of its own or here, and one more name in `scenes`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

from tests.s3_servers import REGION, SECRET, S3Server, moto, seaweedfs

from benchmarks.corpus import own_word
from benchmarks.instance import Instance, up
from benchmarks.processes import scratch
from benchmarks.progress import step
from benchmarks.result import Cell, Goal, Result, Table
from benchmarks.timing import NotSeen, quantile, seen_ns

P95_S = 2.0

KINDS = ("create", "edit", "delete")
_SEEN_WITHIN_S = 30.0
_SEED = 20_261_125


class System(Protocol):
    """An outside system with a source on it. `kinds`: what can be done to its objects (mail is not edited)."""

    source_id: str
    kinds: tuple[str, ...]

    def write(self, name: str, text: str) -> str:
        """Create or replace the object of that name (letters and digits); its `object_ref`."""
        ...

    def delete(self, ref: str) -> None: ...


class Scene(Protocol):
    """A kind of system and of signal; one row of the table."""

    name: str

    def open(self, instance: Instance) -> AbstractContextManager[System]:
        """Starts the system and adds a source on it. `NotHere` where that cannot be done on this machine."""
        ...


class NotHere(Exception):
    """Something is not installed; says what to install."""


class Bucket:
    """A bucket of an S3 server."""

    kinds = KINDS

    def __init__(self, server: S3Server, source_id: str) -> None:
        self.source_id, self._server = source_id, server
        server.client().create_bucket(Bucket=source_id)

    def write(self, name: str, text: str) -> str:
        self._server.client().put_object(Bucket=self.source_id, Key=f"{name}.txt", Body=text.encode())
        return f"{name}.txt"

    def delete(self, ref: str) -> None:
        self._server.client().delete_object(Bucket=self.source_id, Key=ref)


class SeaweedfsHook:
    """SeaweedFS posts its filer's events to the gateway's hook, with a bearer token."""

    name = "S3 (SeaweedFS) → webhook"

    @contextmanager
    def open(self, instance: Instance) -> Generator[System]:
        source_id = "reach-seaweedfs"
        hook = f"/hooks/{source_id}"
        with ExitStack() as stack:
            try:
                server = stack.enter_context(seaweedfs(f"http://127.0.0.1:{instance.port}{hook}"))
            except FileNotFoundError as missing:
                raise NotHere(str(missing)) from missing
            bucket = Bucket(server, source_id)
            add_source(instance, source_id, "s3", server.config(source_id), SECRET)
            await_hook(instance, hook)
            yield bucket


class MotoQueue:
    """S3 puts its records into SQS, and the watcher takes them by long poll; both are moto's."""

    name = "S3 (moto) → SQS"

    @contextmanager
    def open(self, instance: Instance) -> Generator[System]:
        source_id = "reach-moto"
        with ExitStack() as stack:
            try:
                server = stack.enter_context(moto())
            except ModuleNotFoundError as missing:
                raise NotHere(str(missing)) from missing
            bucket, sqs = Bucket(server, source_id), server.client("sqs")
            url = sqs.create_queue(QueueName=source_id)["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            told = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
            server.client().put_bucket_notification_configuration(
                Bucket=source_id, NotificationConfiguration={"QueueConfigurations": [told]}
            )
            add_source(instance, source_id, "s3", server.config(source_id, queue_url=url, region=REGION), SECRET)
            yield bucket


def scenes() -> tuple[Scene, ...]:
    """Every scene; those in modules of their own are imported when they are played."""
    from benchmarks.reach_feed import WebSub
    from benchmarks.reach_git import GitPush
    from benchmarks.reach_imap import ImapIdle

    return (SeaweedfsHook(), MotoQueue(), GitPush(), ImapIdle(), WebSub())


def add_source(
    instance: Instance, source_id: str, connector: str, config: dict[str, Any], secret: str | None, **more: Any
) -> None:
    """A source as a person adds it, by HTTP. `more` are further fields: a quota."""
    body = {"id": source_id, "connector": connector, "config": config, "secret": secret, **more}
    status, said = instance.call("POST", "/v1/sources", body)
    if status != 201:
        raise RuntimeError(f"the source {source_id} was refused: {said}")


def await_hook(instance: Instance, path: str) -> None:
    """Waits until the gateway knows the source: it looks anew, a second later, for one that it was asked for too early."""
    try:
        seen_ns(lambda: instance.call("POST", path)[0] == 401, within_s=5, every_s=0.1)
    except NotSeen:
        raise NotHere("this gateway has no hooks") from None


def run(quick: bool) -> Result:
    changes = 12 if quick else 150
    times: dict[str, dict[str, list[float]]] = {}
    lost: dict[str, int] = {}
    missing: dict[str, str] = {}
    played = scenes()
    with scratch() as folder:
        (folder / "empty").mkdir()
        with up(folder / "data", folder / "empty") as instance:
            for scene in played:
                try:
                    with scene.open(instance) as system:
                        times[scene.name], lost[scene.name] = _measure(scene, instance, system, changes)
                except NotHere as why:
                    missing[scene.name] = str(why)
    return _result(played, times, lost, missing)


def _measure(scene: Scene, instance: Instance, system: System, changes: int) -> tuple[dict[str, list[float]], int]:
    """Seconds by kind of change, and how many were never seen. Each object is changed once after it was first indexed."""
    chance = random.Random(_SEED)
    words = {system.write(f"old{at:04}", _text(own_word(at))): own_word(at) for at in range(changes)}
    _await_quiet(instance, system, words)
    times: dict[str, list[float]] = {kind: [] for kind in system.kinds}
    lost = 0
    with step(scene.name, changes) as shown:
        for at, (ref, word) in enumerate(words.items()):
            time.sleep(chance.uniform(0.05, 0.35))  # not in step with anybody's timer
            kind, fresh = system.kinds[at % len(system.kinds)], own_word(500_000 + at)
            began_ns = time.monotonic_ns()
            try:
                match kind:
                    case "create":
                        expected, word = {system.write(f"new{at:04}", _text(fresh))}, fresh
                    case "edit":
                        expected, word = {system.write(ref.partition(".")[0], _text(fresh))}, fresh
                    case _:
                        system.delete(ref)
                        expected = set[str]()
                ended_ns = seen_ns(
                    lambda word=word, expected=expected: _found(instance, system, word) == expected, within_s=_SEEN_WITHIN_S
                )
                times[kind].append((ended_ns - began_ns) / 1e9)
            except NotSeen:
                lost += 1
            shown.advance()
    return times, lost


def _await_quiet(instance: Instance, system: System, words: dict[str, str]) -> None:
    """All is indexed, and the dedup window of the last of it has passed."""
    (ref, word) = [*words.items()][-1]
    seen_ns(lambda: instance.searchable(system.source_id) == len(words), within_s=120, every_s=0.05)
    seen_ns(lambda: _found(instance, system, word) == {ref}, within_s=10)

    def idle() -> bool:
        (stats,) = instance.runtime.bus.stats([system.source_id])
        return stats is not None and not stats.pending and not stats.in_flight

    seen_ns(idle, within_s=60, every_s=0.05)
    time.sleep(6.0)  # S3's window is 5 s


def _found(instance: Instance, system: System, word: str) -> set[str]:
    """By a real search, in the right source."""
    return {hit.object_ref for hit in instance.runtime.catalog.search(word, source_id=system.source_id, limit=5)}


def _text(word: str) -> str:
    return f"A document that a search finds by the word {word}.\n" * 20


def _result(
    played: Sequence[Scene], times: dict[str, dict[str, list[float]]], lost: dict[str, int], missing: dict[str, str]
) -> Result:
    goals: list[Goal] = []
    rows: list[list[Cell]] = []
    for scene in played:
        name = scene.name
        values = [value for kind in times.get(name, {}).values() for value in kind]
        p95 = quantile(values, 0.95) if values else None
        why = missing.get(name, "" if values else "nothing was seen")
        goals.append(Goal(f"p95, {name}", "at most", P95_S, p95, "s", why))
        goals.append(Goal(f"changes never seen, {name}", "at most", 0, float(lost[name]) if name in lost else None, why=why))
        for kind, seconds in {**times.get(name, {}), "all": values}.items():
            if seconds:
                numbers = [round(quantile(seconds, share), 3) for share in (0.5, 0.95)]
                rows.append([name, kind, len(seconds), *numbers, round(max(seconds), 3)])
    return Result(
        "reach",
        "Change in a real system → searchable",
        goals,
        [Table("Seconds until seen", ["system and signal", "change", "n", "p50", "p95", "max"], rows)],
        [
            "Each object is changed once, so no dedup window holds a change back. The time contains the system's own: storing "
            "the object, noticing it, and sending the signal.",
            "Quotas are each connector's own, but for the feed: its site is asked 50 times a second at most instead of once, "
            "because 150 entries are published within a minute here.",
            "Seen through the catalog's full-text search (the call behind /v1/search), in exactly the right object.",
        ],
        {"times_s": times},
    )
