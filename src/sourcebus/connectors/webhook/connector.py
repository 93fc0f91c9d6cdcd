"""`WebhookConnector`: the configured proof, expressions and ways to read, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

from sourcebus.connectors.base import Connector, Depot, Recommended
from sourcebus.connectors.configuration import configured
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.webhook import proof
from sourcebus.connectors.webhook.payload import find, parse, understand
from sourcebus.connectors.webhook.reading import DepotReader, HttpReader, Reader
from sourcebus.connectors.webhook.settings import WebhookSettings
from sourcebus.errors import ConnectorError, InvalidInput
from sourcebus.model import WHOLE_SOURCE, Change, Cursor, Delivery, Extraction, Heard, Quota, QuotaLeft, Reply, Subscription

_SECRETS = ("webhook", "authorization")
_PLAIN = {"X-Content-Type-Options": "nosniff"}  # what is echoed must not become a page of ours
_LONGEST_ECHO = 4_096


class WebhookConnector(Connector):
    """A system that posts its changes and that no other connector knows. See docs/connectors/webhook.md."""

    name = "webhook"
    recommended = Recommended(quota=Quota(rate=10.0, burst=20.0, concurrency=4), window_ms=5_000, poll_interval_s=3_600.0)
    _configuration: type[WebhookSettings] = WebhookSettings

    def __init__(self, settings: WebhookSettings, credentials: Credentials) -> None:
        self._settings, self._credentials = settings, credentials
        self.needs_secret_path = settings.proof.kind == "path"
        self._http = (
            HttpReader(settings.read, settings.list, credentials.one("authorization")) if settings.read is not None else None
        )
        self._depot: DepotReader | None = None

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        settings = configured(cls._configuration, config)
        return cls(settings, credentials_of(settings, secret))

    def use_depot(self, depot: Depot) -> None:
        self._depot = DepotReader(depot)

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        del subscriptions  # made by hand, at the provider
        settings, handshake = self._settings, self._settings.handshake
        if delivery.method == "GET":
            return self._echo_query(delivery)
        if handshake.echo_field is not None and handshake.unsigned:
            answer = self._echo_field(parse(delivery))
            if answer is not None:
                return answer
        proof.check(settings.proof, delivery, self._credentials.all("webhook"))
        payload = parse(delivery)
        if handshake.echo_field is not None and (answer := self._echo_field(payload)) is not None:
            return answer
        return understand(settings, delivery, payload)

    def _echo_query(self, delivery: Delivery) -> Heard:
        name = self._settings.handshake.echo_query
        if name is None or name not in delivery.query:
            raise InvalidInput("query", "asks for no handshake that is configured", "see config.handshake.echo_query")
        return _echo(delivery.query[name], "query")

    def _echo_field(self, payload: object) -> Heard | None:
        value = find(self._settings.handshake.echo_field, payload, "config.handshake.echo_field")
        return _echo(value, "body") if isinstance(value, str) and value else None

    @property
    def _reader(self) -> Reader:
        if self._http is not None:
            return self._http
        if self._depot is None:
            raise ConnectorError("objects that come in payloads need a depot: this connector was made without one")
        return self._depot

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        del cursor  # always lists everything that can be listed
        return self._reader.changes(scope)

    def version(self, ref: str) -> str | None:
        return self._reader.version(ref)

    def extract(self, ref: str) -> Extraction:
        return self._reader.extract(ref)

    def take_cost(self) -> float:
        return self._http.api.take_cost() if self._http is not None else 0.0

    def quota_left(self) -> QuotaLeft | None:
        return self._http.api.quota_left() if self._http is not None else None

    def close(self) -> None:
        if self._http is not None:
            self._http.api.close()


def credentials_of(settings: WebhookSettings, secret: str | None) -> Credentials:
    """The secrets that the configured proof needs; `InvalidInput` where they are missing."""
    credentials = Credentials.parse(secret, _SECRETS)
    if settings.proof.kind != "path" and not credentials.all("webhook"):
        raise InvalidInput("secret", "is missing", f"the proof {settings.proof.kind} needs the webhook's secret")
    return credentials


def _echo(value: object, field: str) -> Heard:
    text = cast("str", value)
    if len(text) > _LONGEST_ECHO:
        raise InvalidInput(field, f"asks to echo {len(text)} characters", f"at most {_LONGEST_ECHO} are echoed")
    return Heard(reply=Reply(text.encode("utf-8", "replace"), headers=_PLAIN), note="handshake")
