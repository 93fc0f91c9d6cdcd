"""The gateway with its dashboard on a real port, over a real Valkey and a real catalog: fixtures for conftest files."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import uvicorn
from cryptography.fernet import Fernet
from fastapi import FastAPI
from pydantic import SecretStr

from sourcebus.catalog import Catalog
from sourcebus.dashboard import router as dashboard
from sourcebus.gateway import create_app
from sourcebus.runtime import Runtime, build
from sourcebus.settings import Settings
from sourcebus.testing import running_server

__all__ = ["Serve", "folder", "http", "migrated", "redis_url", "running", "runtime", "serve", "settings"]

Serve = Callable[[FastAPI], httpx.Client]


@contextmanager
def running(app: FastAPI) -> Generator[str]:
    """Serves `app` from a thread; yields its address."""
    # asyncio turns Nagle's delay off only where the protocol is named; with it every answer would take 40 ms longer
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive(), "uvicorn ended"
            assert time.monotonic() < deadline, "uvicorn did not start"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog with its schema and nothing else. Tests take a copy: migrating each time would take longer than most."""
    file = tmp_path_factory.mktemp("migrated") / "catalog.db"
    Catalog.open(f"sqlite:///{file}").close()
    return file


@pytest.fixture
def settings(redis_url: str, migrated: Path, tmp_path: Path) -> Settings:
    """Small limits, and names that no other test has."""
    shutil.copy(migrated, tmp_path / "catalog.db")
    return Settings(
        redis_url=redis_url,
        database_url=f"sqlite:///{tmp_path}/catalog.db",
        bus_name=f"test-{uuid4().hex}",
        data_dir=tmp_path,
        secret_key=SecretStr(Fernet.generate_key().decode()),
        max_body_bytes=65_536,
        max_events=100,
    )


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    with build(settings) as built:
        yield built


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Puts an application on a free port; answers a client for it."""
    with ExitStack() as stack:

        def start(app: FastAPI) -> httpx.Client:
            address = stack.enter_context(running(app))
            return stack.enter_context(httpx.Client(base_url=address, timeout=20, trust_env=False))

        yield start


@pytest.fixture
def http(runtime: Runtime, serve: Serve) -> httpx.Client:
    """A client of the gateway over `runtime`."""
    return serve(create_app(runtime, mount=[dashboard(runtime)]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one document, to be a source."""
    made = tmp_path / "docs"
    made.mkdir()
    (made / "start.md").write_text("# Start\nwhere everything begins\n")
    return made
