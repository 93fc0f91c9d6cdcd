"""What the databases' own errors mean: one function from a driver's error to the error tree of sourcebus."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import sqlalchemy.exc

from sourcebus.errors import CatalogError, CatalogUnavailable, StorageFull

_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "stays locked by another process",
    sqlite3.SQLITE_LOCKED: "stays locked by another connection",
    sqlite3.SQLITE_PROTOCOL: "stays locked by another process",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: does its folder exist, and may this user write there?",
    sqlite3.SQLITE_READONLY: "may not be written by this user",
    sqlite3.SQLITE_PERM: "may not be used by this user",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
}
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_RETRIED = {"23505", "40001", "40P01"}  # a row came first; serialization; deadlock
_NO_ROOM_BYTES = 1 << 20


def state_of(error: BaseException) -> str:
    """The SQLSTATE of an error of PostgreSQL, "" for anything else."""
    return getattr(error, "sqlstate", None) or ""


def worth_retrying(error: sqlalchemy.exc.SQLAlchemyError) -> bool:
    """Whether the same transaction, run again, can succeed at once (only PostgreSQL has such)."""
    return isinstance(error, sqlalchemy.exc.DBAPIError) and state_of(error.orig or error) in _POSTGRES_RETRIED


def explain(error: sqlalchemy.exc.SQLAlchemyError, where: str, file: Path | None) -> CatalogError | None:
    """The error to raise instead, or None where `error` is a mistake in this package and should be seen as it is.

    `where` names the database for people (without a password), `file` is SQLite's file.
    """
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return CatalogUnavailable(f"{where}: all connections of this process are busy")
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return _explain_sqlite(error.orig, where, file)
    return _explain_postgres(error, where)


def _explain_sqlite(error: sqlite3.Error, where: str, file: Path | None) -> CatalogError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and file is not None and _is_full(file)):
        return StorageFull(f"{where}: the disk or the database is full; make room, nothing was written and nothing is lost")
    if code in _SQLITE_DAMAGED:
        return CatalogError(f"{where}: the file is damaged or no database; restore it, or remove it and index again ({error})")
    if code in _SQLITE_UNAVAILABLE:
        return CatalogUnavailable(f"{where}: the database {_SQLITE_UNAVAILABLE[code]} ({error})")
    return None


def _explain_postgres(error: sqlalchemy.exc.DBAPIError, where: str) -> CatalogError | None:
    state = state_of(error.orig or error)
    detail = " ".join(str(error.orig).split())
    if state.startswith("53") and state not in ("53300", "53400"):
        return StorageFull(f"{where}: the server has no room left; nothing was written ({detail})")
    if state == "25006":
        return CatalogUnavailable(f"{where}: the server is read-only, perhaps a standby ({detail})")
    if state.startswith(("08", "53", "55", "57", "40")) or error.connection_invalidated:
        return CatalogUnavailable(f"{where}: the server does not answer or stays locked ({detail})")
    if state.startswith(("28", "3D", "42501")):
        return CatalogUnavailable(f"{where}: the server refuses this user or database ({detail})")
    if not state and isinstance(error, sqlalchemy.exc.OperationalError):
        return CatalogUnavailable(f"{where}: the server cannot be reached ({detail})")
    return None


def _is_full(file: Path) -> bool:
    try:
        return shutil.disk_usage(file.parent).free < _NO_ROOM_BYTES
    except OSError:
        return False
