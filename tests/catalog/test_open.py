"""Opening: an empty database, an old one, a newer one, one that is not one; many processes at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.sql.schema import SchemaItem

import sourcebus.catalog
from sourcebus.catalog import Catalog
from sourcebus.catalog.schema import HEAD, VERSION_TABLE, require_fts5
from sourcebus.catalog.tables import metadata
from sourcebus.errors import CatalogError, CatalogUnavailable, InvalidInput
from sourcebus.model import Outcome, Source


def test_the_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    Catalog.open(database_url).close()
    engine = create_engine(database_url)

    def belongs(item: SchemaItem, name: str | None, kind: str, _reflected: bool, _other: SchemaItem | None) -> bool:
        if kind == "table" and (name or "").startswith("documents_fts"):
            return False  # SQLite's virtual table and the tables that FTS5 keeps for it
        return item.info.get("dialect", engine.dialect.name) == engine.dialect.name

    with engine.connect() as connection:
        options = {"include_object": belongs, "version_table": VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_the_code_knows_its_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(sourcebus.catalog.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_what_was_stored_is_there_after_opening_again(database_url: str, indexed: Callable[..., Outcome]) -> None:
    with Catalog.open(database_url) as catalog:
        catalog.add_source(Source("s", "filesystem"))
        catalog.settle([indexed("a", "apple")])
    with Catalog.open(database_url, migrate=False) as catalog:
        catalog.ping()
        assert [hit.object_ref for hit in catalog.search("apple")] == ["a"]


def test_without_migrating_an_empty_database_is_refused(database_url: str) -> None:
    with pytest.raises(CatalogError, match="no sourcebus tables yet"):
        Catalog.open(database_url, migrate=False)


@pytest.mark.parametrize("migrate", [True, False])
def test_a_newer_schema_is_left_alone(database_url: str, migrate: bool) -> None:
    Catalog.open(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(CatalogError, match="9999, newer than this sourcebus knows"):
        Catalog.open(database_url, migrate=migrate)


def test_many_processes_may_open_an_empty_database_at_once(database_url: str) -> None:
    program = "import sys; from sourcebus.catalog import Catalog; Catalog.open(sys.argv[1]).ping()"
    source_root = str(Path(sourcebus.catalog.__file__).parents[2])
    processes = [
        subprocess.Popen([sys.executable, "-c", program, database_url], env={"PYTHONPATH": source_root}, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def test_another_programs_tables_may_be_there(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('someone else')"))
    engine.dispose()
    Catalog.open(database_url).close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_only_a_file_or_postgresql_will_do(url: str) -> None:
    with pytest.raises(InvalidInput, match="sqlite:///FILE"):
        Catalog.open(url)


def test_a_short_postgresql_url_uses_the_same_driver(postgres_url: str) -> None:
    Catalog.open(postgres_url.replace("+psycopg", "")).close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnavailable, match="does its folder exist"):
        Catalog.open(f"sqlite:///{tmp_path}/missing/catalog.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database " * 1_000)
    with pytest.raises(CatalogError, match="no database"):
        Catalog.open(f"sqlite:///{file}")


def test_sqlite_without_fts5_is_named() -> None:
    connection = sqlite3.connect(":memory:")

    def forbid(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_VTABLE else sqlite3.SQLITE_OK

    connection.set_authorizer(forbid)
    with pytest.raises(CatalogError, match="FTS5"):
        require_fts5(connection)
    connection.close()


def test_sqlite_runs_as_promised(sqlite_url: str) -> None:
    Catalog.open(sqlite_url).close()
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
    connection.close()


def test_a_catalog_of_the_first_schema_is_brought_up_with_what_it_holds(database_url: str) -> None:
    engine = create_engine(database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(sourcebus.catalog.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO sources(no, id, workspace, connector, config, mode, paused, weight, state, created_at_ms,"
                " updated_at_ms, fence_floor) VALUES (1, :id, :id, 'filesystem', '{}', 'live', :no, 1, '{}', 1, 1, -1)"
            ),
            {"id": b"s", "no": False},
        )
        cursor = {"hash": sha256(b"").digest(), "scope": b"", "value": '"delta-7"'}
        connection.execute(
            text("INSERT INTO cursors(source_no, scope_hash, scope, value) VALUES (1, :hash, :scope, :value)"), cursor
        )
    engine.dispose()
    with pytest.raises(CatalogError, match="at 0001"):
        Catalog.open(database_url, migrate=False)
    with Catalog.open(database_url) as catalog:
        listing = catalog.listings.get("s", "")
        assert (listing.cursor, listing.version, listing.under_way) == ("delta-7", 1, None)
        assert catalog.source("s").reconcile_interval_s is None and catalog.subscriptions("s") == []
