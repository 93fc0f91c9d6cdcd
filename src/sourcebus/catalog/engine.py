"""Connections and transactions, the same for SQLite and PostgreSQL: `Database.read` and `Database.transact`.

SQLite allows one writer. Waiting for it happens only here, before a transaction does anything: threads of this process
queue on a lock, processes poll ``BEGIN IMMEDIATE`` every millisecond (SQLite's own busy handler backs off to 100 ms, which
an edit that should be searchable in 50 cannot spare). So no statement inside a transaction ever meets a locked database.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy.exc
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from sourcebus.catalog import faults
from sourcebus.errors import CatalogError, CatalogUnavailable, InvalidInput

BUSY_MS = 15_000
"""How long a transaction waits for its turn before `CatalogUnavailable`."""

_POLL_S = 0.001
_ATTEMPTS = 5
_URL_FIX = "use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"

_SQLITE_PRAGMAS = (
    "page_size=8192",  # before the first table; measured a tenth faster than 4096 for texts
    f"busy_timeout={BUSY_MS}",
    "synchronous=NORMAL",  # with WAL: a crash of the process loses nothing, a power cut no consistency
    "foreign_keys=ON",
    "secure_delete=OFF",  # some builds overwrite what is deleted with zeros
    "cache_size=-32768",
    "mmap_size=268435456",
    "temp_store=MEMORY",
    "wal_autocheckpoint=4096",  # 32 MB: edits leave checkpoints to `maintain`, a first indexing makes few
    "journal_size_limit=67108864",
)

Result = TypeVar("Result")


class Database:
    """One database, usable from any thread, and after a fork (the child opens connections of its own)."""

    def __init__(self, database_url: str) -> None:
        url = _checked(database_url)
        self.dialect = url.get_backend_name()
        self.is_sqlite = self.dialect == "sqlite"
        self.name = url.render_as_string(hide_password=True)
        self.file = Path(url.database) if self.is_sqlite and url.database else None
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._engine = _engine(url, self.is_sqlite)
        self._driver_error: type[Exception] = cast("Any", self._engine.dialect).loaded_dbapi.Error
        self._writer = self._engine.execution_options(sourcebus_writer=True)

    def sql(self, statement: str) -> str:
        """`statement`, written with ``?`` for each parameter, as the driver wants it."""
        return statement if self.is_sqlite else statement.replace("?", "%s")

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A connection inside one consistent snapshot (SQLite) or transaction (PostgreSQL)."""
        self._notice_fork()
        with self._explained(), self._engine.connect() as connection:
            yield connection

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns, after all that it wrote was committed, or nothing of it.

        `work` may run several times (PostgreSQL: deadlock, or another transaction inserted the same row first).
        """
        self._notice_fork()
        with self._explained():
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._once(work)
                except sqlalchemy.exc.DBAPIError as error:
                    if not faults.worth_retrying(error):
                        raise
            return self._once(work)

    def outside_transaction(self, statement: str) -> Any:
        """The first column of the first row of a statement that no transaction may surround, or None."""
        self._notice_fork()
        with self._explained(), self._engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(statement)
            row = cursor.fetchone()
            return row[0] if row else None

    def close(self) -> None:
        """Close every connection. A later call opens new ones."""
        self._engine.dispose()

    def _once(self, work: Callable[[Connection], Result]) -> Result:
        if not self.is_sqlite:
            with self._writer.begin() as connection:
                return work(connection)
        if not self._writing.acquire(timeout=BUSY_MS / 1000):
            raise CatalogUnavailable(f"{self.name}: another thread has been writing for {BUSY_MS // 1000} s")
        try:
            with self._writer.begin() as connection:
                return work(connection)
        finally:
            self._writing.release()

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlalchemy.exc.SQLAlchemyError as error:
            meaning = faults.explain(error, self.name, self.file)
            if meaning is None:
                raise
            raise meaning from error
        except self._driver_error as error:  # where SQLAlchemy does not look: connecting, BEGIN IMMEDIATE, checkpoints
            wrapped = sqlalchemy.exc.DBAPIError(None, None, error)
            raise faults.explain(wrapped, self.name, self.file) or error from error

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._writing = threading.Lock()
            self._pid = os.getpid()


def _checked(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except sqlalchemy.exc.ArgumentError:
        raise InvalidInput("database_url", "is not a URL", _URL_FIX) from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise InvalidInput("database_url", f"{backend} is not supported", _URL_FIX)
    if not url.database or url.database == ":memory:" or "mode=memory" in url.database:
        raise InvalidInput("database_url", "a database in memory cannot be shared by processes", _URL_FIX)
    return url


def _engine(url: URL, is_sqlite: bool) -> Engine:
    try:
        if is_sqlite:
            engine = create_engine(url, pool_size=8, max_overflow=24, connect_args={"timeout": BUSY_MS / 1000})
        else:
            engine = create_engine(url, pool_size=8, max_overflow=24, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise CatalogError(f"{url.drivername} needs the package {error.name}: pip install 'sourcebus[postgres]'") from None
    event.listen(engine, "connect", _prepare_sqlite if is_sqlite else _prepare_postgres)
    if is_sqlite:
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # this module says BEGIN; the driver must not
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    patiently(lambda: _enter_wal(connection))


def _enter_wal(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise CatalogError("SQLite cannot keep a write-ahead log in this folder; put the database on a local disk")


def _prepare_postgres(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {BUSY_MS}")
        cursor.execute("SET client_encoding = 'UTF8'")
        cursor.execute("SHOW server_encoding")
        (encoding,) = cursor.fetchone()
    connection.commit()
    if encoding != "UTF8":
        raise CatalogError(f"the database is encoded in {encoding}; create it with ENCODING 'UTF8'")


def _begin_sqlite(connection: Connection) -> None:
    raw = cast("sqlite3.Connection", connection.connection.driver_connection)
    if not connection.get_execution_options().get("sourcebus_writer"):
        raw.execute("BEGIN")
        return
    raw.execute("PRAGMA busy_timeout=0")
    try:
        patiently(lambda: raw.execute("BEGIN IMMEDIATE"))
    finally:
        raw.execute(f"PRAGMA busy_timeout={BUSY_MS}")


def patiently(action: Callable[[], object]) -> None:
    """Repeat `action` while SQLite says that another connection is in the way, for at most `BUSY_MS`."""
    until = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > until:
                raise
            time.sleep(_POLL_S)
