"""Amazon SNS as an HTTP endpoint meets it: the handshake, signed notifications of either version, certificates that change.

Source: Amazon SNS Developer Guide, "HTTP/HTTPS notification JSON formats" and "Verifying the signatures of Amazon SNS
messages". A subscription that was not confirmed gets nothing. Nothing here is used by the product.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sourcebus.testing.providers.courier import Courier, Faults, Sent
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

RETRY_S = (20.0, 20.0, 20.0)
"""The default delivery policy: three retries, 20 s apart."""

_PEM = r"/(SimpleNotificationService-[0-9a-f]{32}\.pem)"


class SnsServer(ProviderServer):
    """SNS with any number of topics. Its messages name certificates at Amazon's address; it serves them at its own.

    `version` is the signature's: 1 is SHA-1, 2 is SHA-256. `pace` divides the waits between retries.
    """

    def __init__(self, *, region: str = "eu-west-1", faults: Faults | None = None, pace: float = 1.0) -> None:
        super().__init__()
        self.version: Literal["1", "2"] = "2"
        self.courier = Courier(faults=faults, retry_s=RETRY_S, pace=pace, timeout_s=15.0)
        self.confirmed: set[tuple[str, str]] = set()
        self._region = region
        self._tokens: dict[str, tuple[str, str]] = {}
        self._certificates: dict[str, bytes] = {}
        self.rotate()
        self.on("GET", _PEM, self._certificate)
        self.on("GET", "/", self._action)

    def topic(self, name: str) -> str:
        """The ARN of a topic of that name."""
        return f"arn:aws:sns:{self._region}:123456789012:{name}"

    def rotate(self) -> None:
        """Sign with a new key, under a new certificate's name; the old one stays where it is."""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._name = f"SimpleNotificationService-{uuid4().hex}.pem"
        name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")]), datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=365))
        self._certificates[self._name] = made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def subscribe(self, arn: str, url: str) -> Sent:
        """Offer `url` the messages of a topic. It takes them by the call that the offer names."""
        token = uuid4().hex * 4
        self._tokens[token] = (arn, url)
        where = f"https://sns.{self._region}.amazonaws.com/?Action=ConfirmSubscription&TopicArn={arn}&Token={token}"
        text = f"You have chosen to subscribe to the topic {arn}.\nTo confirm the subscription, visit the SubscribeURL."
        return self._send("SubscriptionConfirmation", arn, url, {"Message": text, "SubscribeURL": where, "Token": token})

    def publish(self, arn: str, message: str, *, subject: str | None = None, raw: bool = False) -> list[Sent]:
        """Send a message to all that are subscribed; `raw` as it is, without envelope and signature."""
        urls = [url for topic, url in sorted(self.confirmed) if topic == arn]
        if raw:
            headers = {**self._headers("Notification", arn, uuid4().hex), "x-amz-sns-rawdelivery": "true"}
            return [self.courier.post(url, message.encode(), headers) for url in urls]
        fields = {"Message": message} | ({"Subject": subject} if subject is not None else {})
        return [self._send("Notification", arn, url, fields) for url in urls]

    def signed(self, kind: str, arn: str, fields: dict[str, str]) -> dict[str, str]:
        """A whole message. `fields` may say a `Timestamp` or `MessageId` of their own."""
        sent_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = {"Type": kind, "MessageId": str(uuid4()), "TopicArn": arn, "Timestamp": sent_at, **fields}
        text = "".join(f"{name}\n{message[name]}\n" for name in sorted(message))
        digest = {"1": SHA1, "2": SHA256}[self.version]()
        signature = base64.b64encode(self._key.sign(text.encode(), padding.PKCS1v15(), digest)).decode()
        where = f"https://sns.{self._region}.amazonaws.com/{self._name}"
        return {**message, "SignatureVersion": self.version, "Signature": signature, "SigningCertURL": where}

    def close(self) -> None:
        self.courier.close()
        super().close()

    def _send(self, kind: str, arn: str, url: str, fields: dict[str, str]) -> Sent:
        message = self.signed(kind, arn, fields)
        return self.courier.post(url, json.dumps(message, indent=2).encode(), self._headers(kind, arn, message["MessageId"]))

    @staticmethod
    def _headers(kind: str, arn: str, message_id: str) -> dict[str, str]:
        return {
            "x-amz-sns-message-type": kind,
            "x-amz-sns-message-id": message_id,
            "x-amz-sns-topic-arn": arn,
            "Content-Type": "text/plain; charset=UTF-8",
        }

    def _certificate(self, asked: Asked) -> Answer:
        found = self._certificates.get(asked.args[0])
        return Answer(200, found) if found else Answer(404)

    def _action(self, asked: Asked) -> Answer:
        arn, token = asked.query.get("TopicArn"), asked.query.get("Token", "")
        offered: Any = self._tokens.get(token)
        if asked.query.get("Action") != "ConfirmSubscription" or offered is None or offered[0] != arn:
            return Answer(400, b"<ErrorResponse><Error><Code>InvalidParameter</Code></Error></ErrorResponse>")
        self.confirmed.add(offered)
        return Answer(200, f"<SubscriptionArn>{arn}:{uuid4()}</SubscriptionArn>".encode())
