"""A root directory for each test, and connectors on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.s3_messages import close_connectors
from tests.s3_servers import S3Server, moto, seaweedfs

from sourcebus.connectors.filesystem import FilesystemConnector

Connect = Callable[..., FilesystemConnector]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


@pytest.fixture
def connect(root: Path) -> Connect:
    """`connect(**settings)`: a connector on `root`."""

    def make(**settings: Any) -> FilesystemConnector:
        return FilesystemConnector.create({"root": str(root), **settings})

    return make


@pytest.fixture
def connector(connect: Connect) -> FilesystemConnector:
    return connect()


@pytest.fixture(scope="session")
def weed() -> Iterator[S3Server]:
    """SeaweedFS, once for all tests; they have buckets of their own."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(seaweedfs())
        except FileNotFoundError as missing:
            pytest.skip(str(missing))
        yield server


@pytest.fixture(scope="session")
def aws() -> Iterator[S3Server]:
    """moto: S3, SNS, SQS and EventBridge, once for all tests."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(moto())
        except ModuleNotFoundError as missing:
            pytest.skip(str(missing))
        yield server


@pytest.fixture(autouse=True)
def close_what_hears() -> Iterator[None]:
    """Closes what `tests.s3_messages.hearing` made."""
    yield
    close_connectors()
