"""Sources, their secrets, their facts and their cursors."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from cryptography.fernet import Fernet

from sourcebus.catalog import Catalog
from sourcebus.errors import CatalogError, Conflict, InvalidInput, UnknownSource
from sourcebus.model import Mode, Quota, Source

FULL = Source(
    id="any \0 \udcff id",
    connector="filesystem",
    config={"root": "/srv", "deep": [1, None, {"é": True}]},
    workspace="müller",
    quota=Quota(rate=2.5, burst=4, concurrency=3, bucket="tenant"),
    window_ms=1_000,
    poll_interval_s=0.5,
    mode=Mode.SHADOW,
    paused=True,
    weight=2.5,
)


def test_a_source_comes_back_as_it_was_stored(catalog: Catalog) -> None:
    before = datetime.now(UTC)
    added = catalog.add_source(FULL)
    assert added.created_at is not None and added.created_at >= before.replace(microsecond=0)
    assert dataclasses.replace(added, created_at=None, updated_at=None) == FULL
    assert catalog.source(FULL.id) == added
    assert catalog.source("s").quota is None


def test_an_id_is_taken_once(catalog: Catalog) -> None:
    with pytest.raises(Conflict, match="'s'"):
        catalog.add_source(Source("s", "filesystem"))


@pytest.mark.parametrize("source_id", ["", "x" * 513])
def test_an_id_has_a_length(catalog: Catalog, source_id: str) -> None:
    with pytest.raises(InvalidInput, match="512"):
        catalog.add_source(Source(source_id, "filesystem"))


def test_what_json_cannot_hold_is_refused(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="config"):
        catalog.add_source(Source("x", "filesystem", {"root": Path("/srv")}))


def test_listing_is_ordered_paged_and_by_workspace(catalog: Catalog) -> None:
    for name, workspace in (("b", "one"), ("Z", "two"), ("é", "one"), ("a", "one")):
        catalog.add_source(Source(name, "filesystem", workspace=workspace))
    assert [source.id for source in catalog.sources()] == ["Z", "a", "b", "s", "é"]
    assert [source.id for source in catalog.sources(after="a", limit=2)] == ["b", "s"]
    assert [source.id for source in catalog.sources(workspace="one")] == ["a", "b", "é"]


def test_update_replaces_all_that_can_be_set(catalog: Catalog) -> None:
    added = catalog.add_source(FULL)
    updated = catalog.update_source(Source(FULL.id, "other"))
    assert (updated.connector, updated.config, updated.quota, updated.paused) == ("other", {}, None, False)
    assert updated.created_at == added.created_at
    assert catalog.source(FULL.id) == updated


def test_what_is_not_there_is_named(catalog: Catalog) -> None:
    for call in (
        lambda: catalog.source("gone"),
        lambda: catalog.update_source(Source("gone", "filesystem")),
        lambda: catalog.remove_source("gone"),
        lambda: catalog.state("gone"),
        lambda: catalog.set_state("gone", a=1),
        lambda: catalog.listings.get("gone", ""),
        lambda: catalog.listings.forget("gone"),
    ):
        with pytest.raises(UnknownSource, match="gone"):
            call()


def test_removing_takes_everything_and_the_id_is_free_again(catalog: Catalog) -> None:
    catalog.set_state("s", error="x")
    before = catalog.listings.get("s", "")
    assert catalog.listings.keep_cursor(before, "c1", 1)
    assert catalog.remove_source("s") == 0
    assert catalog.sources() == [] and catalog.counts() == {}
    catalog.add_source(Source("s", "filesystem"))
    assert catalog.state("s") == {} and catalog.listings.get("s", "").cursor is None
    assert not catalog.listings.keep_cursor(before, "c2", 1), "it was read of another source by the same id"


def test_facts_are_merged(catalog: Catalog) -> None:
    catalog.set_state("s", last_scan_at_ms=5, held={"deletes": ["a\udcff"]})
    catalog.set_state("s", last_scan_at_ms=6, error=None)
    assert catalog.state("s") == {"last_scan_at_ms": 6, "held": {"deletes": ["a\udcff"]}}
    catalog.set_state("s", held=None)
    assert catalog.state("s") == {"last_scan_at_ms": 6}


def test_facts_set_at_the_same_time_are_all_kept(catalog: Catalog) -> None:
    threads = [Thread(target=catalog.set_state, args=("s",), kwargs={f"k{n}": n}) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.state("s") == {f"k{n}": n for n in range(12)}


def test_a_secret_is_unreadable_without_its_key(sqlite_url: str) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    with Catalog.open(sqlite_url, secret_key=old) as catalog:
        source = catalog.add_source(Source("s", "filesystem", secret="hunter2"))
        assert source.secret == "hunter2" and "hunter2" not in repr(source)
        assert catalog.source("s").secret == "hunter2"
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    assert b"hunter2" not in file.read_bytes()
    with Catalog.open(sqlite_url, secret_key=f"{new}, {old}") as catalog:  # rotation: the new key in front
        catalog.update_source(catalog.source("s"))
    with Catalog.open(sqlite_url, secret_key=new) as catalog:
        assert catalog.source("s").secret == "hunter2"
    for key in (old, None):
        with Catalog.open(sqlite_url, secret_key=key) as catalog, pytest.raises(CatalogError, match="SOURCEBUS_SECRET_KEY"):
            catalog.source("s")


def test_a_secret_needs_a_key(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="SOURCEBUS_SECRET_KEY") as caught:
        catalog.add_source(Source("x", "filesystem", secret="hunter2"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UnknownSource):
        catalog.source("x")


def test_a_key_must_be_one(sqlite_url: str) -> None:
    with pytest.raises(InvalidInput, match="Fernet") as caught:
        Catalog.open(sqlite_url, secret_key="my password")
    assert "my password" not in str(caught.value)
