"""When the database cannot: full, locked, gone, damaged. Each has its name, and nothing is half written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from sourcebus.catalog import Catalog, engine, faults
from sourcebus.errors import CatalogError, CatalogUnavailable, StorageFull
from sourcebus.model import Outcome, Source

Make = Callable[..., Outcome]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Every new SQLite connection may use 60 pages: what SQLite answers beyond is what it answers on a full disk."""

    def limit(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA max_page_count=60")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


def test_a_full_disk_is_named_and_nothing_is_half_written(small_disk: None, sqlite_url: str, indexed: Make) -> None:
    with Catalog.open(sqlite_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        assert catalog.settle([indexed("small", "apple")]) == [True]
        with pytest.raises(StorageFull, match="full"):
            catalog.settle([indexed("also", "pear"), indexed("big", " ".join(f"word{n}" for n in range(200_000)))])
        assert [ref for ref, _ in catalog.objects("s")] == ["small"]
        assert catalog.search("pear") == []
        assert catalog.settle([indexed("next", "plum")]) == [True]


@pytest.mark.parametrize(
    ("state", "error"),
    [("53100", StorageFull), ("53200", StorageFull), ("53300", CatalogUnavailable), ("57P01", CatalogUnavailable)],
)
def test_what_postgresql_reports_is_named(postgres_url: str, indexed: Make, state: str, error: type[CatalogError]) -> None:
    with Catalog.open(postgres_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        _fail_inserts(postgres_url, state)
        with pytest.raises(error):
            catalog.settle([indexed("a")])
        assert catalog.objects("s") == []


def _fail_inserts(url: str, state: str) -> None:
    database = create_engine(url)
    with database.begin() as connection:
        body = f"BEGIN RAISE EXCEPTION SQLSTATE '{state}' USING MESSAGE = 'the server says so'; END"
        connection.execute(
            text(f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS '{body.replace(chr(39), chr(39) * 2)}'")
        )
        connection.execute(text("CREATE TRIGGER fail BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION fail()"))
    database.dispose()


def test_a_database_locked_for_too_long_is_named(sqlite_url: str, indexed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalog.open(sqlite_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        monkeypatch.setattr(engine, "BUSY_MS", 50)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogUnavailable, match="locked"):
            catalog.settle([indexed("a")])
        assert catalog.versions([("s", "a")]) == {}  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert catalog.settle([indexed("a")]) == [True]


def test_a_locked_row_of_postgresql_is_named(postgres_url: str, indexed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    with Catalog.open(postgres_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        other = create_engine(postgres_url)
        with other.begin() as connection:
            connection.execute(text("LOCK TABLE sources IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(CatalogUnavailable, match="locked"):
                catalog.settle([indexed("a")])
        other.dispose()
        assert catalog.settle([indexed("a")]) == [True]


def test_connections_that_the_server_cut_are_replaced(postgres_url: str, postgres_server: Path, indexed: Make) -> None:
    with Catalog.open(postgres_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        with psycopg.connect(host=str(postgres_server), user="test", dbname="postgres", autocommit=True) as connection:
            name = postgres_url.split("/@")[-1].split("@/")[1].split("?")[0]
            query = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
            connection.execute(query.format(sql.Literal(name)))
        assert catalog.settle([indexed("a")]) == [True]


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable) as caught:
        Catalog.open(f"postgresql+psycopg://user:hunter2@/x?host={tmp_path}")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_went_away_is_noticed(sqlite_url: str) -> None:
    with Catalog.open(sqlite_url) as catalog:
        catalog.ping()
        Path(sqlite_url.removeprefix("sqlite:///")).unlink()
        with pytest.raises(CatalogUnavailable, match="gone"):
            catalog.ping()


def test_a_file_that_may_not_be_written_is_named(sqlite_url: str) -> None:
    Catalog.open(sqlite_url).close()
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)  # a mode would not stop root
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("DELETE FROM sources")
    connection.close()
    meaning = faults.explain(DBAPIError(None, None, caught.value), "here", file)
    assert isinstance(meaning, CatalogUnavailable) and "may not be written" in str(meaning)


def test_a_damaged_file_is_named(sqlite_url: str, indexed: Make) -> None:
    with Catalog.open(sqlite_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        catalog.settle([indexed(f"{n}", "word " * 500) for n in range(200)])
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    data = bytearray(file.read_bytes())
    data[8192 * 4 :] = b"\xaa" * (len(data) - 8192 * 4)
    file.write_bytes(data)
    with pytest.raises(CatalogError, match="damaged"), Catalog.open(sqlite_url) as catalog:
        catalog.objects("s")
        catalog.search("word")
