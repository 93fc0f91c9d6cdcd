"""Housekeeping: tombstones, cut-short removals, SQLite's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import create_engine, text

from sourcebus.catalog import Catalog
from sourcebus.model import Outcome, Pass, Signal, Source

DAY_MS = 86_400_000
Make = Callable[..., Outcome]


class HandClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> float:
        return float(self.ms)


def rows(url: str) -> dict[str, int]:
    """How many rows each table has."""
    engine = create_engine(url)
    names = ["sources", "objects", "stories", "documents", "cursors", "listings", "sightings", "subscriptions", "upkeeps"]
    names += ["documents_fts_docsize"] if engine.dialect.name == "sqlite" else ["document_words"]
    with engine.connect() as connection:
        counts = {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}
    engine.dispose()
    return counts


def test_tombstones_are_kept_for_a_week(catalog_url: str, indexed: Make) -> None:
    clock = HandClock()
    with Catalog.open(catalog_url, clock=clock) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        catalog.settle([indexed(ref, at_ms=clock.ms) for ref in ("stays", "goes")])
        catalog.settle([Outcome("s", "goes", 2, "deleted", clock.ms), Outcome("s", "failed", 1, "note", clock.ms)])
        clock.ms += 7 * DAY_MS
        catalog.maintain()
        assert catalog.counts()["s"]["deleted"] == 1
        clock.ms += 1
        catalog.maintain()
        assert catalog.counts()["s"] == {"indexed": 1, "unreadable": 0, "deleted": 0, "documents": 1}
        assert catalog.story("s", "goes") == [] and len(catalog.story("s", "failed")) == 1
        clock.ms += 30 * DAY_MS
        catalog.maintain()
        assert catalog.story("s", "failed") == [] and len(catalog.story("s", "stays")) == 1


def test_a_removed_source_leaves_no_row_in_the_end(catalog_url: str, indexed: Make) -> None:
    clock = HandClock()
    with Catalog.open(catalog_url, clock=clock) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        catalog.settle(
            [indexed(f"{n}") for n in range(450)] + [Outcome("s", "d", 1, "deleted", 1), Outcome("s", "n", 1, "note", 1)]
        )
        listing = catalog.listings.get("s", "")
        catalog.listings.keep_cursor(listing, "c", 1)
        catalog.listings.keep_pass(listing, Pass("next", 1, Signal.POLL, 1, 1), ["0", "1"])
        catalog.listings.hold("s", "", ["2"])
        assert catalog.remove_source("s") == 450
        assert {name for name, count in rows(catalog_url).items() if count} == {"sources"}
        clock.ms += 8 * DAY_MS
        catalog.maintain()
        assert set(rows(catalog_url).values()) == {0}


def test_a_removal_that_a_crash_cut_short_is_finished(catalog_url: str, indexed: Make) -> None:
    clock = HandClock()
    with Catalog.open(catalog_url, clock=clock) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        catalog.settle([indexed(f"{n}") for n in range(450)])
        engine = create_engine(catalog_url)
        with engine.begin() as connection:  # what remove_source commits before it deletes the rows
            connection.execute(text("UPDATE sources SET removed_at_ms = :now"), {"now": clock.ms})
        engine.dispose()
        catalog.add_source(Source("s", "filesystem"))
        assert catalog.objects("s") == [] and catalog.search("words") == []
        catalog.settle([indexed("new", "words of the new one")])
        catalog.maintain()
        assert rows(catalog_url)["objects"] == rows(catalog_url)["documents"] == 1
        assert [hit.object_ref for hit in catalog.search("words")] == ["new"]


def test_a_long_log_is_shortened_and_the_index_stays_whole(sqlite_url: str, indexed: Make) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    with Catalog.open(sqlite_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        for fence in range(1, 30):
            catalog.settle([indexed(f"{n}", f"fence{fence} " + f"{'x' * 200} " * 150, fence=fence) for n in range(20)])
        log = file.with_name(file.name + "-wal")
        assert log.stat().st_size > 16 << 20
        for _ in range(3):
            catalog.maintain()
        assert log.stat().st_size < 1 << 20
        assert len(catalog.search("fence29", limit=50)) == 20 and catalog.search("fence28") == []
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO documents_fts(documents_fts, rank) VALUES ('integrity-check', 1)"))
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
    engine.dispose()
