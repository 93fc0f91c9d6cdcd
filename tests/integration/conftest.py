"""A real Valkey, a real catalog and the gateway on a real port, fresh for every test."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.serving import folder, http, migrated, redis_url, runtime, serve, settings

__all__ = ["docs", "folder", "http", "migrated", "redis_url", "runtime", "serve", "settings"]


@pytest.fixture
def docs(http: httpx.Client, folder: Path) -> str:
    """The id of a source that is there and paused, so that what is emitted stays to be seen."""
    made = http.post(
        "/v1/sources", json={"id": "docs", "connector": "filesystem", "config": {"root": str(folder)}, "paused": True}
    )
    assert made.status_code == 201, made.text
    return "docs"
