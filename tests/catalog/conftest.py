"""One fixture, two databases: a test that asks for `catalog`, `catalog_url` or `database_url` runs on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sourcebus.catalog import Catalog
from sourcebus.model import Document, Outcome, Source

_names = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """A PostgreSQL server of its own, listening on a Unix socket in this folder only."""
    folder = Path(tempfile.mkdtemp(prefix="sourcebus-pg-"))
    try:
        yield from _serve(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path) -> Iterator[Path]:
    user = _unprivileged_user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    uid, gid = (user.pw_uid, user.pw_gid) if user else (None, None)
    data = folder / "data"
    made = subprocess.run(
        [_binary("initdb"), "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        cwd=folder, user=uid, group=gid, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    options = (
        "listen_addresses=",
        f"unix_socket_directories={folder}",
        "fsync=off",
        "full_page_writes=off",
        "max_connections=60",
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [_binary("postgres"), "-D", data, *(word for option in options for word in ("-c", option))],
            cwd=folder, user=uid, group=gid, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait_until_it_answers(folder, server)
        yield folder
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=20)


def _binary(name: str) -> str:
    places = [str(place) for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed; install a PostgreSQL server (Debian: apt-get install postgresql)")
    return found


def _unprivileged_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then somebody else's account, or a skip. None: we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root and there is no account `postgres` or `nobody`; run the tests as a user")


def _wait_until_it_answers(folder: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=str(folder), user="test", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.02)


@contextmanager
def _postgres_database(server: Path) -> Generator[str]:
    name = f"t{next(_names)}"
    with psycopg.connect(host=str(server), user="test", dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield f"postgresql+psycopg://test@/{name}?host={server}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres_url(postgres_server: Path) -> Iterator[str]:
    """The URL of an empty database."""
    with _postgres_database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind in turn."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema and nothing else. Tests take a copy: migrating each time would take longer than most."""
    file = tmp_path_factory.mktemp("migrated") / "catalog.db"
    Catalog.open(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: Path) -> Iterator[str]:
    """The URL of a database with the schema. Tests empty it: making a new one each time would take longer than most."""
    with _postgres_database(postgres_server) as url:
        Catalog.open(url).close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that has the schema and no row, of each kind in turn."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "catalog.db")
        return f"sqlite:///{tmp_path}/catalog.db"
    url: str = request.getfixturevalue("migrated_postgres")
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(
            "TRUNCATE sources, objects, stories, documents, cursors, document_words, listings, sightings, subscriptions,"
            " upkeeps, deliveries, contents RESTART IDENTITY"
        )
    return url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """An empty catalog with one source, ``s``."""
    with Catalog.open(catalog_url, migrate=False) as catalog:
        catalog.add_source(Source("s", "filesystem", {"root": "/srv"}))
        yield catalog


@pytest.fixture
def indexed() -> Callable[..., Outcome]:
    """Makes an ``indexed`` outcome of source ``s`` with one document (or the texts given)."""

    def make(
        ref: str, text: str = "some words", *, fence: int = 1, title: str = "", source: str = "s", at_ms: int = 1_000
    ) -> Outcome:
        return Outcome(source, ref, fence, "indexed", at_ms, version=f"v{fence}", documents=[Document(text, title)])

    return make
