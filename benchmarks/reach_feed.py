"""The scene "published → searchable" of WebSub: a site with a feed, and Flask-WebSub's hub, which tells of new entries.

`started` gives a `Scene`: what to register as a source, and `write`, which publishes one entry and answers its reference. The
connector itself subscribes at the hub, so sourcebus needs an address that the hub reaches.
"""

# Celery, Flask-WebSub and werkzeug ship no complete type information:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from sourcebus.testing.providers.feed import FeedSite

INSTALL = "pip install 'flask-websub>=0.4.1'"


class Hub:
    """Flask-WebSub's hub on ``127.0.0.1``: Flask in a thread of its own, its Celery tasks in another. A context manager.

    `lease_s` is the most that it grants; `denies`, if not empty, is why it denies everything.
    """

    def __init__(self, folder: Path, *, lease_s: int = 864_000) -> None:
        from celery import Celery
        from flask import Flask
        from flask_websub.hub import Hub as Blueprint
        from flask_websub.hub import SQLite3HubStorage
        from werkzeug.serving import make_server

        self.denies = ""
        self._celery: Any = Celery("hub", broker="memory://")
        self._celery.conf.update(
            broker_transport_options={"polling_interval": 0.01}, task_ignore_result=True, worker_hijack_root_logger=False
        )
        config = {"BACKOFF_BASE": 0.05, "MAX_ATTEMPTS": 5, "REQUEST_TIMEOUT": 5}
        self._hub: Any = Blueprint(SQLite3HubStorage(str(folder / "hub.sqlite3")), self._celery, **config)
        self._hub.register_validator(self._validate)
        app = Flask("hub")
        app.config.update(PUBLISH_SUPPORTED=True, HUB_MIN_LEASE_SECONDS=1, HUB_MAX_LEASE_SECONDS=lease_s)
        app.config["HUB_DEFAULT_LEASE_SECONDS"] = lease_s
        app.register_blueprint(self._hub.build_blueprint(url_prefix="/hub"))
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="hub")
        self.url = f"http://127.0.0.1:{self._server.server_port}/hub"

    def _validate(self, *_asked: object) -> str | None:
        return self.denies or None

    def sign_with(self, method: str) -> None:
        """How it signs what it distributes from now on: ``sha512`` at first."""
        self._hub.config["SIGNATURE_ALGORITHM"] = method

    def publish(self, topic: str) -> None:
        """Tell it that the topic has changed: it fetches it and distributes it, in its own time."""
        httpx.post(self.url, data={"hub.mode": "publish", "hub.topic": topic}).raise_for_status()

    def callbacks(self, topic: str) -> list[str]:
        """Who is subscribed."""
        return [callback for callback, _secret in self._hub.storage.get_callbacks(topic)]

    def __enter__(self) -> Self:
        from celery.contrib.testing.worker import start_worker

        self._worker: Any = start_worker(self._celery, perform_ping_check=False, pool="solo", loglevel="critical")
        self._worker.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._worker.__exit__(None, None, None)
        self._celery.close()


@dataclass(frozen=True)
class Scene:
    """A site and its hub. `connector`, `config` and `secret` are those of ``POST /v1/sources``."""

    site: FeedSite
    hub: Hub
    config: Mapping[str, Any]
    connector: str = "feed"
    secret: str = "only for this benchmark"

    def is_subscribed(self) -> bool:
        """Whether the hub has somebody to tell: publish only then."""
        return bool(self.hub.callbacks(self.site.feed_url))

    def write(self, name: str, text: str) -> str:
        """Publish this text and tell the hub; answers its `object_ref`."""
        ref = self.site.write(name, text)
        self.hub.publish(self.site.feed_url)
        return ref


@contextmanager
def started(folder: Path) -> Generator[Scene]:
    """Starts site and hub, with one entry. ModuleNotFoundError where the hub is not installed (`INSTALL`)."""
    folder.mkdir(parents=True, exist_ok=True)
    with Hub(folder) as hub, FeedSite(hub=hub.url, window=5) as site:
        site.write("first", "text")
        yield Scene(site, hub, {"url": site.feed_url, "trusted_hubs": [hub.url]})
