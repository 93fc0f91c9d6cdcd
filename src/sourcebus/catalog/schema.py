"""Bringing a database to the schema of this code, through Alembic, safely when many processes start at once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, String, column, inspect, select, table

from sourcebus.catalog.engine import Database
from sourcebus.errors import CatalogError

VERSION_TABLE = "sourcebus_schema"
"""Alembic's version table; not its default name, so that the database may hold another program's tables too."""

HEAD = "0004"
"""The newest migration: what this code works with. A test compares it with the folder."""

_VERSION = select(column("version_num", String)).select_from(table(VERSION_TABLE))

_LOCK = 0x50757273
"""PostgreSQL's advisory lock that one migrating process holds."""


def bring_up(database: Database, *, migrate: bool) -> None:
    """Make sure that the schema is `HEAD`, migrating where allowed. CatalogError: older and not allowed, or newer."""
    if database.is_sqlite:
        probe = sqlite3.connect(":memory:")
        require_fts5(probe)
        probe.close()
    with database.read() as connection:
        found = _found(connection)
    if found != HEAD and migrate:
        found = database.transact(lambda connection: _migrate(connection, database))
    if found != HEAD:
        raise CatalogError(f"{database.name}: {_difference(found)}")


def require_fts5(connection: sqlite3.Connection) -> None:
    """CatalogError where this SQLite was built without full-text search."""
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.probe USING fts5(text, tokenize='unicode61 remove_diacritics 2')")
    except sqlite3.Error as error:
        raise CatalogError(
            f"this Python's SQLite {sqlite3.sqlite_version} cannot make a full-text index with FTS5 ({error});"
            " use a Python whose SQLite is 3.27 or newer and has FTS5, or a PostgreSQL database"
        ) from None


def _found(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(_VERSION).scalar()


def _migrate(connection: Connection, database: Database) -> str | None:
    """Under a lock that only one process can hold; what the winner did, the others find done."""
    from alembic import command  # here: a quarter of a second that only a migration should cost
    from alembic.config import Config

    if not database.is_sqlite:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    found = _found(connection)
    if found is None or found < HEAD:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        command.upgrade(config, "head")
        return HEAD
    return found


def _difference(found: str | None) -> str:
    if found is None:
        return "the database has no sourcebus tables yet; open it once with migrate=True"
    if found < HEAD:
        return f"the schema is at {found} and this code needs {HEAD}; open it once with migrate=True"
    return f"the schema is at {found}, newer than this sourcebus knows ({HEAD}); upgrade sourcebus, it must not write here"
