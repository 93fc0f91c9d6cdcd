"""What happens to a lease, on a real bus and a real catalog: each end that it can have, and that nothing is lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from sourcebus.connectors import Recommended, registry
from sourcebus.errors import NeedsAuth, ObjectUnreadable, SinkError, SourceUnavailable, StorageFull, Throttled
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    ChangeKind,
    Cursor,
    Document,
    Extraction,
    Mode,
    Outcome,
    Quota,
    QuotaLeft,
    Signal,
    Source,
    SourceChanged,
)
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.sinks import CallbackSink
from sourcebus.testing import FakeConnector

Work = Callable[[], int]


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    with build(settings.model_copy(update={"waiting_consumers": 0})) as built:
        yield built


@pytest.fixture
def source(runtime: Runtime) -> FakeConnector:
    """The source "s": an object in memory that the test changes. It has been looked through once."""
    made = FakeConnector({"a": "apples", "b": "bananas"})
    registry.register("fake", made)
    runtime.sources.add(Source("s", "fake"))
    work(runtime)
    return made


def work(runtime: Runtime) -> int:
    """Works until nothing is ready."""
    shift = runtime.shift()
    try:
        return shift.run()
    finally:
        shift.close()


def changed(runtime: Runtime, *refs: str) -> None:
    runtime.intake.accept([SourceChanged("s", ref) for ref in refs])
    work(runtime)


def found(runtime: Runtime, word: str) -> list[str]:
    return [hit.object_ref for hit in runtime.catalog.search(word)]


def story(runtime: Runtime, ref: str) -> list[str]:
    return [line["what"] for line in runtime.desk.why("s", ref)]


def stats(runtime: Runtime) -> Any:
    (line,) = runtime.bus.stats(["s"])
    assert line
    return line


def test_a_new_source_is_indexed(runtime: Runtime, source: FakeConnector):
    assert found(runtime, "apples") == ["a"]
    assert runtime.desk.verify("s").ok
    assert stats(runtime).state == "idle"


def test_an_event_on_an_object_that_did_not_change_extracts_nothing(runtime: Runtime, source: FakeConnector):
    changed(runtime, "a")
    assert source.extracted["a"] == 1
    assert story(runtime, "a")[0] == "unchanged"


def test_a_change_replaces_and_a_delete_removes(runtime: Runtime, source: FakeConnector):
    source.objects["a"] = "cherries"
    del source.objects["b"]
    changed(runtime, "a", "b")
    assert found(runtime, "cherries") == ["a"] and not found(runtime, "apples") and not found(runtime, "bananas")
    assert story(runtime, "b")[0] == "deleted"


class OneLook(FakeConnector):
    """Answers a whole batch by what it saw when the batch began."""

    looks = 0

    def begin_batch(self) -> None:
        self.looks += 1
        self.seen = dict(self.objects)

    def version(self, ref: str) -> str | None:
        return self.seen.get(ref)

    def extract(self, ref: str) -> Extraction:
        return Extraction([Document(self.seen[ref])], self.seen[ref])


def test_a_batch_is_begun_once_and_after_its_claims(runtime: Runtime):
    """So that one look answers for all of it, and none is older than the change that a claim is about."""
    made = OneLook({f"o{number}": f"word{number}" for number in range(40)})
    registry.register("fake", made)
    runtime.sources.add(Source("s", "fake"))
    work(runtime)
    assert len(found(runtime, "word7")) == 1
    assert made.looks < 20
    made.objects["o7"] = "changed"
    changed(runtime, "o7")
    assert found(runtime, "changed") == ["o7"]


def test_a_hint_that_it_was_deleted_is_not_believed(runtime: Runtime, source: FakeConnector):
    runtime.intake.accept([SourceChanged("s", "a", ChangeKind.DELETED)])
    work(runtime)
    assert found(runtime, "apples") == ["a"]


def test_an_unreadable_object_is_a_settled_answer_with_its_reason(runtime: Runtime, source: FakeConnector):
    source.objects["a"] = "\0binary"
    source.failing["a"] = ObjectUnreadable("binary", "holds NUL bytes", version="v2")  # raised while its version is asked for
    changed(runtime, "a")
    assert not found(runtime, "apples")
    (line, *_) = runtime.desk.why("s", "a")
    assert (line["what"], line["reason"], line["error"]) == ("unreadable", "binary", "holds NUL bytes")
    assert stats(runtime).dead == 0 and stats(runtime).pending == 0


def test_what_an_extractor_raises_is_its_objects_story_and_the_others_go_on(runtime: Runtime, source: FakeConnector):
    source.objects |= {"a": "apricots", "b": "blueberries"}
    source.failing["a"] = ZeroDivisionError("in the extractor")
    changed(runtime, "a", "b")
    assert found(runtime, "blueberries") == ["b"]
    now, failed, *_ = runtime.desk.why("s", "a")
    assert now["state"] == "delayed" and failed["what"] == "failed"
    assert failed["error"] == "ZeroDivisionError: in the extractor"
    assert stats(runtime).nacked == 1


def test_429_pauses_the_source_for_the_providers_own_time(runtime: Runtime, source: FakeConnector):
    source.failing["a"] = Throttled("slow down", retry_after_ms=60_000)
    changed(runtime, "a")
    assert (stats(runtime).reason, stats(runtime).throttled, stats(runtime).dead) == ("provider_pause", 1, 0)
    changed(runtime, "b")
    assert stats(runtime).pending == 2, "nothing is attempted during the pause"


def test_429_spares_the_provider_what_was_claimed_with_it(runtime: Runtime, source: FakeConnector):
    source.objects |= {f"c{at}": "cherries" for at in range(40)}
    changed(runtime, *source.objects)
    for ref in source.objects:
        source.failing[ref] = Throttled("slow down", retry_after_ms=60_000)
        source.objects[ref] += ", ripe"
    changed(runtime, *source.objects)
    assert (stats(runtime).throttled, stats(runtime).pending) == (1, 42), "one call was answered 429, and no other was made"


def test_an_outage_spares_its_own_source_and_no_other_of_its_bucket(runtime: Runtime):
    shared, refs = Quota(concurrency=100, bucket="tenant"), [f"o{at}" for at in range(20)]
    made = {source_id: FakeConnector(dict.fromkeys(refs, "green")) for source_id in ("broken", "well")}
    for source_id, connector in made.items():
        registry.register(f"fake-{source_id}", connector)
        runtime.sources.add(Source(source_id, f"fake-{source_id}", quota=shared))
    work(runtime)
    for connector in made.values():
        connector.objects |= dict.fromkeys(refs, "ripe")
    made["broken"].failing |= {ref: SourceUnavailable("its site is down") for ref in refs}
    runtime.intake.accept([SourceChanged(source_id, ref) for ref in refs for source_id in made])
    work(runtime)
    assert sum("failed" in {line["what"] for line in runtime.desk.why("broken", ref)} for ref in refs) == 1
    broken, well = runtime.bus.stats(["broken", "well"])
    assert broken and (broken.reason, broken.pending) == ("out_of_reach", 20)
    assert well and (well.state, well.pending) == ("idle", 0) and set(made["well"].extracted.values()) == {2}


class MeteredConnector(FakeConnector):
    """Whose provider says, with its next answer, what is left."""

    left: QuotaLeft | None = None

    def quota_left(self) -> QuotaLeft | None:
        left, self.left = self.left, None
        return left


def test_what_the_provider_says_is_left_is_passed_on(runtime: Runtime):
    made = MeteredConnector({"a": "apples", "b": "bananas"})
    registry.register("fake", made)
    runtime.sources.add(Source("s", "fake"))
    work(runtime)
    made.left = QuotaLeft(0, 60_000)
    changed(runtime, "a")
    changed(runtime, "b")
    assert (stats(runtime).reason, stats(runtime).pending) == ("provider_pause", 1)


class CostlyConnector(FakeConnector):
    """A listing costs five units, and so does reading an object."""

    spent = 0.0

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        self.spent += 5.0
        return super().changes(cursor, scope)

    def extract(self, ref: str) -> Extraction:
        self.spent += 5.0
        return super().extract(ref)

    def take_cost(self) -> float:
        spent, self.spent = self.spent, 0.0
        return spent


@pytest.mark.parametrize("fails", [False, True])
def test_a_lease_is_settled_at_what_it_has_cost(runtime: Runtime, fails: bool):
    """Claims are charged one unit each, so both objects are looked at; then the quota is in debt, also after a failure."""
    made = CostlyConnector({"a": "apples", "b": "bananas"})
    if fails:
        made.failing["b"] = ValueError("broken")
    registry.register("fake", made)
    runtime.sources.add(Source("s", "fake", quota=Quota(rate=0.001, burst=12)))
    work(runtime)
    assert made.extracted.total() == 2 - fails
    assert stats(runtime).claimed == 3
    changed(runtime, "a")
    assert (stats(runtime).reason, stats(runtime).claimed) == ("tokens", 3)


def test_a_quota_that_the_connector_recommends_is_shared_too(runtime: Runtime):
    """Many sources of one tenant: what was claimed for the others goes back when one is told to wait."""
    made = FakeConnector({f"object-{at}": "text" for at in range(2)})
    made.recommended = Recommended(Quota(bucket="tenant"), window_ms=0, poll_interval_s=0)
    registry.register("fake", made)
    names = [f"site-{at}" for at in range(20)]
    for name in names:
        runtime.sources.add(Source(name, "fake"))
    work(runtime)
    made.failing["object-1"] = Throttled("slow down", retry_after_ms=60_000)
    made.objects["object-1"] += ", changed"
    runtime.intake.accept([SourceChanged(name, ref) for ref in made.objects for name in names])
    work(runtime)
    assert sum(line.throttled for line in runtime.bus.stats(names) if line) == 1


@pytest.mark.parametrize("error", [SourceUnavailable("the root is missing"), NeedsAuth("the token has expired.")])
def test_a_source_that_is_out_of_reach_costs_no_attempt_and_deletes_nothing(
    runtime: Runtime, source: FakeConnector, error: Exception
):
    source.failing["a"] = error
    changed(runtime, "a")
    assert found(runtime, "apples") == ["a"]
    (line,) = runtime.desk.status(["s"])
    assert line["error"] == str(error) and line["reason"] == "out_of_reach"
    assert line["why"].startswith("out of reach, tries again in "), "no provider said anything"
    (check,) = [check for check in runtime.desk.doctor() if check.name == "source s"]
    assert check.ok is False and check.detail == str(error).rstrip("."), "a sentence about what helps follows"
    assert stats(runtime).throttled == 0 and stats(runtime).learned_share == 1.0


def test_what_a_source_said_while_it_was_out_of_reach_is_not_shown_once_it_answers_again(
    runtime: Runtime, source: FakeConnector
):
    source.failing["a"] = SourceUnavailable("HTTP 500")
    changed(runtime, "b", "a")
    source.failing.clear()
    assert runtime.desk.status(["s"])[0]["error"] == "HTTP 500"
    deadline = time.monotonic() + 10
    while story(runtime, "a")[0] != "unchanged" and time.monotonic() < deadline:
        work(runtime)
        time.sleep(0.05)
    assert runtime.desk.status(["s"])[0]["error"] is None


def test_what_a_listing_met_is_shown_until_a_listing_succeeds(runtime: Runtime, source: FakeConnector):
    runtime.catalog.set_state("s", error="the listing: HTTP 403")
    changed(runtime, "a")
    assert runtime.desk.status(["s"])[0]["error"] == "the listing: HTTP 403"
    runtime.intake.accept([SourceChanged("s", WHOLE_SOURCE, ChangeKind.SCAN)])
    work(runtime)
    assert runtime.desk.status(["s"])[0]["error"] is None


class ListsNothing(FakeConnector):
    """Answers for each object and cannot be listed."""

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        yield Cursor(None)


def test_verify_asks_for_each_indexed_object_that_a_listing_does_not_show(runtime: Runtime):
    made = ListsNothing({"a": "apples", "b": "bananas", "c": "cherries"})
    registry.register("fake", made)
    runtime.sources.add(Source("s", "fake"))
    changed(runtime, "a", "b", "c")
    made.objects["a"] = "apricots"
    del made.objects["b"]
    verified = runtime.desk.verify("s")
    assert (verified.checked, verified.stale, verified.orphaned) == (3, ["a"], ["b"])


def test_a_full_disk_loses_nothing(runtime: Runtime, source: FakeConnector, monkeypatch: pytest.MonkeyPatch):
    settle = type(runtime.catalog).settle
    full = [StorageFull("the disk is full")]  # once, then there is room again

    def may_be_full(self: Any, outcomes: Sequence[Outcome]) -> list[bool]:
        if full:
            raise full.pop()
        return settle(self, outcomes)

    monkeypatch.setattr(type(runtime.catalog), "settle", may_be_full)
    source.objects["a"] = "apricots"
    changed(runtime, "a")
    assert found(runtime, "apricots") == ["a"]
    assert stats(runtime).nacked == 0, "the object is not to blame"


def test_a_listing_that_fails_half_way_deletes_nothing(runtime: Runtime, source: FakeConnector):
    del source.objects["b"]
    source.objects["c"] = "cherries"
    source.listing_fails_after = 1
    runtime.sources.scan("s")
    work(runtime)
    assert found(runtime, "bananas") == ["b"]
    source.listing_fails_after = None
    runtime.bus.register("s", window_ms=0, backoff_ms=1)
    runtime.intake.refresh("s")
    work(runtime)
    assert not found(runtime, "bananas") and found(runtime, "cherries") == ["c"]


def test_a_pass_that_would_delete_most_of_a_source_is_held_until_released(runtime: Runtime, source: FakeConnector):
    source.objects |= {f"o{at}": f"page {at}" for at in range(60)}
    runtime.sources.scan("s")
    work(runtime)
    source.objects.clear()
    runtime.sources.scan("s")
    work(runtime)
    (line,) = runtime.desk.status(["s"])
    assert (line["held"]["count"], line["held"]["of"]) == (62, 62)
    assert found(runtime, "apples") == ["a"]
    assert runtime.sources.release("s") == 62
    work(runtime)
    work(runtime)
    assert not found(runtime, "apples")
    assert runtime.desk.status(["s"])[0]["held"] is None


def test_redis_that_lost_its_data_is_noticed_and_every_source_looked_through(
    runtime: Runtime, source: FakeConnector, redis_url: str
):
    runtime.housekeeping()
    source.objects["a"] = "apricots"
    runtime.intake.accept([SourceChanged("s", "a")])
    client = redis.Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]
    client.flushall()  # pyright: ignore[reportUnknownMemberType]
    client.close()
    with build(runtime.settings) as after_restart:
        after_restart.housekeeping()
    work(runtime)
    assert found(runtime, "apricots") == ["a"]


def test_a_signal_for_a_source_that_redis_forgot_brings_it_back(runtime: Runtime, source: FakeConnector):
    runtime.bus.unregister("s")
    source.objects["a"] = "apricots"
    changed(runtime, "a")
    assert found(runtime, "apricots") == ["a"]


def test_a_shadow_source_is_looked_at_and_only_noted(runtime: Runtime, source: FakeConnector):
    runtime.sources.change("s", mode=Mode.SHADOW.value)
    source.objects["a"] = "apricots"
    before = source.extracted.copy()
    with build(runtime.settings) as other:  # workers notice a changed source within a second, a new one at once
        other.intake.accept([SourceChanged("s", "a")])
        work(other)
    assert source.extracted == before and found(runtime, "apples") == ["a"]
    assert story(runtime, "a")[0] == "would_extract"


def test_a_removed_source_takes_its_documents_and_its_queue_along(runtime: Runtime, source: FakeConnector):
    runtime.intake.accept([SourceChanged("s", "a")])
    assert runtime.sources.remove("s") == 2
    assert work(runtime) == 0 and not found(runtime, "apples")


def test_sinks_get_every_document_before_it_counts_as_indexed(settings: Settings):
    seen: list[str | None] = []
    broken = [SinkError("the receiver is down")]

    def receive(outcome: Outcome) -> None:
        if broken:
            raise broken.pop()
        seen.append(outcome.object_ref)

    registry.register("fake", FakeConnector({"a": "apples"}))
    with build(settings.model_copy(update={"waiting_consumers": 0}), sinks=[CallbackSink(receive)]) as runtime:
        runtime.sources.add(Source("s", "fake"))
        work(runtime)
        assert seen == [] and not found(runtime, "apples"), "what a sink did not take is not indexed here either"
        runtime.bus.refresh("s", "a")
        work(runtime)
        assert seen == ["a"] and found(runtime, "apples") == ["a"]


def test_signals_carry_through_to_the_story(runtime: Runtime, source: FakeConnector):
    source.objects["a"] = "apricots"
    runtime.intake.accept([SourceChanged("s", "a", signal=Signal.WATCH)])
    work(runtime)
    (line, *_) = runtime.desk.why("s", "a")
    assert line["signal"] == "watch" and line["attempt"] == 1
    assert line["observed_at_ms"] <= line["accepted_at_ms"] <= line["claimed_at_ms"]
