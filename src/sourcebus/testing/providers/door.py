"""A door for webhooks in front of a runtime, where a test has no use for the whole gateway: proves, stores, then answers."""

from __future__ import annotations

import time

from sourcebus.connectors import Hears
from sourcebus.errors import InvalidInput, SourcebusError, Unverified
from sourcebus.model import Delivery, Signal, SourceChanged
from sourcebus.runtime import Runtime
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer


class Door(ProviderServer):
    """Answers ``POST /hooks/<source id>``. `runtime` is set once it is built: its settings name this door's `url`."""

    runtime: Runtime | None = None

    def __init__(self) -> None:
        super().__init__()
        self.on("POST", "/hooks/(.+)", self._take)

    def _take(self, asked: Asked) -> Answer:
        runtime, source_id = self.runtime, asked.args[0]
        if runtime is None:
            return Answer(503)
        try:
            connector = runtime.bindings.get(source_id).connector
            if not isinstance(connector, Hears):
                return Answer(404)
            delivery = Delivery(asked.method, asked.headers, asked.body, round(time.time() * 1000), asked.query)
            heard = connector.parse_webhook(delivery, runtime.catalog.subscriptions(source_id))
            changes = [
                SourceChanged(source_id, change.object_ref, change.change_kind, signal=Signal.WEBHOOK, version=change.version)
                for change in heard.changes
            ]
            if changes:
                runtime.intake.accept(changes)
            runtime.subscriptions.heard(source_id, heard)
        except Unverified:
            return Answer(401)
        except InvalidInput:
            return Answer(404)
        except SourcebusError:
            return Answer(503)
        return Answer(202)
