"""Subscriptions and their upkeep, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet

from sourcebus.catalog import Catalog
from sourcebus.errors import InvalidInput, UnknownSource
from sourcebus.model import Source, Subscription


class HandClock:
    """A clock turned by hand."""

    ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> float:
        return float(self.ms)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def catalog(catalog_url: str, clock: HandClock) -> Iterator[Catalog]:
    key = Fernet.generate_key().decode()
    with Catalog.open(catalog_url, secret_key=key, migrate=False, clock=clock) as catalog:
        for source_id in ("s", "t", "u"):
            catalog.add_source(Source(source_id, "shelf", workspace="w" if source_id == "u" else "default"))
        yield catalog


def test_the_living_are_newest_first_and_come_back_as_they_were(catalog: Catalog, clock: HandClock) -> None:
    odd = Subscription("id/" * 500 + "\udcff", clock.ms + 1_000, "hunter2", {"topic": ["a", 1]})
    catalog.keep_subscription("s", Subscription("first"))
    catalog.keep_subscription("s", odd, "https://here/hooks/s")
    catalog.keep_subscription("t", Subscription("first"))
    assert catalog.subscriptions("s") == [odd, Subscription("first")]
    clock.ms += 1_000
    assert catalog.subscriptions("s") == [Subscription("first")]
    assert [one.subscription.id for one in catalog.upkeep.all("s")] == [odd.id, "first"], "until somebody drops it"
    assert catalog.drop_subscription("s", odd.id) and not catalog.drop_subscription("s", odd.id)
    assert catalog.subscriptions("t") == [Subscription("first")]


def test_what_is_new_of_a_known_one_replaces_it_and_keeps_its_secret(catalog: Catalog, clock: HandClock) -> None:
    catalog.keep_subscription("s", Subscription("a", clock.ms + 9_000, "hunter2", {"n": 1}), "https://here")
    catalog.keep_subscription("s", Subscription("b"))
    catalog.keep_subscription("s", Subscription("a", clock.ms + 90_000, None, {"n": 2}))
    newest, known = catalog.upkeep.living("s")
    assert newest.subscription.id == "b", "being renewed makes it no newer"
    assert known.subscription == Subscription("a", clock.ms + 90_000, "hunter2", {"n": 2}) and known.hook_url == "https://here"
    assert known.renew_at_ms and 55_000 < known.renew_at_ms - clock.ms < 64_000
    catalog.upkeep.renew_now("s", ["a"])
    assert catalog.upkeep.living("s")[1].renew_at_ms == clock.ms
    catalog.upkeep.replace_all("s")
    assert {one.hook_url for one in catalog.upkeep.living("s")} == {""}


def test_a_secret_needs_a_key(catalog_url: str) -> None:
    with Catalog.open(catalog_url, migrate=False) as catalog:
        catalog.add_source(Source("s", "shelf"))
        with pytest.raises(InvalidInput, match="SOURCEBUS_SECRET_KEY"):
            catalog.keep_subscription("s", Subscription("a", secret="hunter2"))
        assert catalog.subscriptions("s") == []


def test_what_is_due_is_handed_out_once_and_again_if_nobody_reports(catalog: Catalog, clock: HandClock) -> None:
    assert catalog.upkeep.upkeep("s") is None and catalog.upkeep.enlist("s") and not catalog.upkeep.enlist("s")
    catalog.upkeep.wish("t")
    with ThreadPoolExecutor(4) as pool:
        found = [source_id for part in pool.map(catalog.upkeep.due, [500] * 4) for source_id in part]
    assert sorted(found) == ["s", "t"]
    clock.ms += 300_000
    assert sorted(catalog.upkeep.due()) == ["s", "t"]
    catalog.upkeep.done("s", clock.ms + 5_000_000)
    catalog.upkeep.failed("t", clock.ms + 10, 2, "no")
    clock.ms += 1_000_000
    assert catalog.upkeep.due() == ["t"]
    failed = catalog.upkeep.upkeep("t")
    assert failed and (failed.failures, failed.error) == (2, "no")
    catalog.upkeep.resign("t")
    assert catalog.upkeep.upkeep("t") is None


def test_a_shorter_life_brings_the_upkeep_forward(catalog: Catalog, clock: HandClock) -> None:
    catalog.upkeep.done("s", clock.ms + 86_400_000)
    catalog.keep_subscription("s", Subscription("brought by a delivery", clock.ms + 60_000))
    upkeep = catalog.upkeep.upkeep("s")
    assert upkeep and upkeep.due_at_ms < clock.ms + 45_000


def test_all_are_listed_by_source_without_their_secrets(catalog: Catalog) -> None:
    catalog.keep_subscription("s", Subscription("a", secret="hunter2"))
    catalog.keep_subscription("s", Subscription("b"))
    catalog.upkeep.failed("t", 5, 1, "no")
    catalog.upkeep.wish("u")
    listed = catalog.upkeep.listed(None, None, 10)
    assert [(upkeep.source_id, upkeep.error, len(known)) for upkeep, known in listed] == [
        ("s", None, 2),
        ("t", "no", 0),
        ("u", None, 0),
    ]
    assert all(one.subscription.secret is None for _, known in listed for one in known)
    assert [upkeep.source_id for upkeep, _ in catalog.upkeep.listed("default", "s", 1)] == ["t"]


def test_a_source_that_is_not_there_is_named_and_a_removed_one_leaves_nothing(catalog: Catalog) -> None:
    for call in (
        lambda: catalog.subscriptions("gone"),
        lambda: catalog.keep_subscription("gone", Subscription("a")),
        lambda: catalog.drop_subscription("gone", "a"),
        lambda: catalog.upkeep.wish("gone"),
        lambda: catalog.upkeep.replace_all("gone"),
    ):
        with pytest.raises(UnknownSource, match="gone"):
            call()
    catalog.keep_subscription("s", Subscription("a"))
    catalog.upkeep.wish("s")
    catalog.remove_source("s")
    assert catalog.upkeep.due() == [] and catalog.upkeep.listed(None, None, 10) == []
