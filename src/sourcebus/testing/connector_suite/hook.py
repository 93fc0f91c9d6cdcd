"""A source's hook, as the gateway has it: everything that arrives is kept, and answered by what the connector makes of it."""

from __future__ import annotations

import time

from sourcebus.connectors import Connector, Hears, Subscribes
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import Delivery, Heard, Subscription
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

_PATH = "/hooks/suite"


class Hook(ProviderServer):
    """An address for deliveries to `connector`. `deliveries` are those that announce something, in the order of arrival, and
    `ignored` those that are proven and announce nothing, or make no sense; `subscriptions` the living ones, newest first."""

    def __init__(self, connector: Connector) -> None:
        super().__init__()
        self.connector = connector
        self.deliveries: list[Delivery] = []
        self.ignored: list[Delivery] = []
        self.subscriptions: list[Subscription] = []
        self.address = f"{self.url}{_PATH}"
        for method in ("GET", "POST", "OPTIONS"):
            self.on(method, f"{_PATH}.*", self._take)

    def subscribe(self) -> Subscription:
        """Have the connector ask its provider for deliveries. The new subscription is the newest."""
        assert isinstance(self.connector, Subscribes)
        # Unlocked: the provider's handshake comes in during the call.
        made = self.connector.subscribe(self.address)
        with self.lock:
            self._keep(made)
        return made

    def hear(self, delivery: Delivery) -> Heard:
        """What the connector says to a delivery."""
        assert isinstance(self.connector, Hears)
        return self.connector.parse_webhook(delivery, tuple(self.subscriptions))

    def clear(self) -> None:
        """Forget what has arrived."""
        with self.lock:
            self.deliveries.clear()
            self.ignored.clear()

    def _take(self, asked: Asked) -> Answer:
        now_ms = time.time_ns() // 1_000_000
        return self.take(Delivery(asked.method, asked.headers, asked.body, now_ms, asked.query, self.address))

    def take(self, delivery: Delivery) -> Answer:
        """Keep a delivery that has arrived, and answer it as the gateway does."""
        with self.lock:
            try:
                heard = self.hear(delivery)
            except Unverified as error:
                return Answer(401, {"title": str(error)})
            except InvalidInput as error:
                self.ignored.append(delivery)
                return Answer(400, {"title": str(error)})
            if heard.keep is not None:
                self._keep(heard.keep)
            (self.deliveries if heard.changes else self.ignored).append(delivery)
        if heard.reply is None:
            return Answer(202)
        return Answer(heard.reply.status, heard.reply.body, {"Content-Type": heard.reply.media_type, **heard.reply.headers})

    def _keep(self, subscription: Subscription) -> None:
        others = [one for one in self.subscriptions if one.id != subscription.id]
        self.subscriptions = [subscription, *others]
