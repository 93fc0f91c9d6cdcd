"""The scene "published → searchable" of WebSub: a site with a feed, and Flask-WebSub's hub, which tells of new entries."""

# Celery, Flask-WebSub and werkzeug ship no complete type information:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.instance import Instance
from benchmarks.processes import scratch
from benchmarks.reach import NotHere, System, add_source
from benchmarks.timing import NotSeen, seen_ns
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


class Site:
    """A site that publishes entries and tells its hub."""

    source_id = "reach-websub"
    kinds = ("create", "edit")

    def __init__(self, site: FeedSite, hub: Hub) -> None:
        self._site, self._hub = site, hub

    def write(self, name: str, text: str) -> str:
        ref = self._site.write(name, text)
        self._hub.publish(self._site.feed_url)
        return ref

    def delete(self, ref: str) -> None:
        raise NotImplementedError("an entry that leaves a feed is not deleted")


class WebSub:
    """The connector subscribes at Flask-WebSub's hub, which fetches the feed and distributes it to the gateway's hook."""

    name = "feed → WebSub (Flask-WebSub)"

    @contextmanager
    def open(self, instance: Instance) -> Generator[System]:
        with ExitStack() as stack:
            folder = stack.enter_context(scratch())
            try:
                hub = stack.enter_context(Hub(folder))
            except ModuleNotFoundError as missing:
                raise NotHere(INSTALL) from missing
            site = stack.enter_context(FeedSite(hub=hub.url, window=500))
            config = {"url": site.feed_url, "trusted_hubs": [hub.url]}
            quota = {"rate": 50, "burst": 50, "concurrency": 4}  # the usual one is for sites that publish once an hour
            add_source(instance, Site.source_id, "feed", config, "for this benchmark", quota=quota)
            try:
                seen_ns(lambda: bool(hub.callbacks(site.feed_url)), within_s=60, every_s=0.1)
            except NotSeen:
                raise NotHere("the hub has nobody to tell: was the subscription made?") from None
            yield Site(site, hub)
