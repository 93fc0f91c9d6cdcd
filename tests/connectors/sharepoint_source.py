"""Connectors on the simulated tenant, for the tests of `sharepoint`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.model import Delivery, Subscription
from sourcebus.testing import Hook, SourceUnderTest
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.server import Answer


def config(tenant: GraphSimulator, **more: Any) -> dict[str, Any]:
    """What a source on the simulated tenant needs besides its place."""
    return {
        "tenant": tenant.tenant,
        "client_id": tenant.client_id,
        "authority": tenant.url,
        "graph_url": tenant.graph_url,
        **more,
    }


def connect(tenant: GraphSimulator, **more: Any) -> SharePointConnector:
    return SharePointConnector.create(config(tenant, **more), tenant.secrets[0])


class Library(SourceUnderTest):
    """A document library of its own on a shared tenant. Its outage is Graph's."""

    def __init__(self, tenant: GraphSimulator, drive: SimDrive, **place: Any) -> None:
        self.tenant, self.drive = tenant, drive
        self.place = place or {"drive": drive.id}
        self.secrets = [*tenant.secrets]

    def connect(self) -> SharePointConnector:
        return connect(self.tenant, **self.place)

    def write(self, name: str, text: str) -> str:
        return self.ref(self.tenant.put(self.drive, f"folder/{name}.txt", text).id)

    def ref(self, item_id: str) -> str:
        return item_id

    def delete(self, ref: str) -> None:
        self.tenant.change(self.drive, lambda drive: drive.delete(ref.rpartition("/")[2]))

    def break_off(self) -> None:
        self.tenant.refuse(Answer(500, {"error": {"code": "generalException"}}), times=1000, path="/v1.0/.*|/download/.*")

    def rename(self, ref: str, name: str) -> str:
        self.tenant.change(self.drive, lambda drive: drive.rename(ref.rpartition("/")[2], f"{name}.txt"))
        return ref

    def break_half_way(self) -> None:
        """One page of the delta is told, the next is not."""
        self.tenant.page_size = 5
        self.tenant.refuse(Answer(500, {"error": {"code": "generalException"}}), times=1000, path=".*/delta", after=1)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        body = {"error": {"code": "activityLimitReached", "message": "The app or user has been throttled."}}
        forms = {
            "429": Answer(429, body, {"Retry-After": "7"}),
            "429 without a time": Answer(429, body),
            "503 with a time": Answer(503, {"error": {"code": "serviceNotAvailable"}}, {"Retry-After": "7"}),
        }
        return {
            form: lambda answer=answer: self.tenant.refuse(answer, times=1000, path="/v1.0/.*|/download/.*")
            for form, answer in forms.items()
        }

    def revoke(self) -> None:
        """The app's secret is deleted in Entra, and its tokens with it."""
        self.secrets = [*self.tenant.secrets]
        self.tenant.secrets[:] = ["another"]
        self.tenant.revoke_tokens()

    def forbid(self, ref: str) -> None:
        self.drive.items[ref.rpartition("/")[2]].forbidden = True

    def mend(self) -> None:
        self.tenant.accept_again()
        self.tenant.secrets[:] = self.secrets
        self.tenant.page_size = self.tenant.facts.page_size
        for item in self.drive.items.values():
            item.forbidden = False

    def expire_cursor(self, cursor: str | None) -> str | None:
        self.drive.expire_tokens()
        return cursor

    def listen(self, hook: Hook) -> None:
        hook.subscribe()

    def settle(self, hook: Hook) -> None:
        self.tenant.courier.settle()

    def forged(self, delivery: Delivery) -> Sequence[Delivery]:
        """Graph signs nothing: what proves a notification is the clientState of its subscription."""
        return [
            *(self._otherwise(delivery, clientState=state) for state in ("guessed", "", None)),
            self._otherwise(delivery, subscriptionId="guessed"),
        ]

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """A notification of another source's subscription, sent to this one's hook."""
        other = {"subscriptionId": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07", "clientState": "of another"}
        return [self._otherwise(delivery, **other) for delivery in hook.deliveries]

    def endings(self) -> Mapping[str, Callable[[Subscription], None]]:
        held = self.tenant.hooks.subscriptions

        def expire(subscription: Subscription) -> None:
            for graph_id in subscription.state["drives"].values():
                held[graph_id].expires = datetime.now(UTC)

        def remove(subscription: Subscription) -> None:
            for graph_id in subscription.state["drives"].values():
                del held[graph_id]

        return {"expired": expire, "removed": remove}

    @staticmethod
    def _otherwise(delivery: Delivery, **fields: str | None) -> Delivery:
        entries = [{**entry, **fields} for entry in json.loads(delivery.body)["value"]]
        return replace(delivery, body=json.dumps({"value": entries}).encode())


class SiteLibraries(Library):
    """The same through a source that is the whole site: references name the drive."""

    def ref(self, item_id: str) -> str:
        return f"{self.drive.id}/{item_id}"
