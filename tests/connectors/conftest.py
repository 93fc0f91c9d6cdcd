"""A root directory for each test, and connectors on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
