"""Deliveries of Amazon SNS over HTTP(S): proven by its signature, bound to the topics that the source names.

Anybody with an AWS account can have SNS sign a message, so the signature alone proves nothing: its topic has to be one of
the source's. No address of a message is followed: the certificate's must be on the topic's own SNS host, and the one that
confirms a subscription is made anew from the topic and the token.

Source: Amazon SNS Developer Guide, "Verifying the signatures of Amazon SNS messages", "HTTP/HTTPS notification JSON formats".
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from sourcebus.connectors.http import Api
from sourcebus.connectors.s3.settings import topic_region
from sourcebus.connectors.signing import check_age, decode_base64
from sourcebus.errors import ConnectorError, InvalidInput, ObjectGone, ObjectUnreadable, SourceUnavailable, Unverified
from sourcebus.model import Delivery

REPLAY_WINDOW_S = 3_900.0
"""SNS repeats a delivery for an hour at most ("Amazon SNS message delivery retries"); five minutes for clocks that differ."""

_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_HANDSHAKE = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {"Notification": _NOTIFICATION, "SubscriptionConfirmation": _HANDSHAKE, "UnsubscribeConfirmation": _HANDSHAKE}
_DIGESTS = {"1": SHA1, "2": SHA256}
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[0-9A-Za-z]{16,64}\.pem")
_CERTIFICATES_KEPT = 16
_REST_S = 5.0
_TIMEOUT_S = 5.0  # SNS waits 15 s for the answer

Envelope = Mapping[str, str]
"""A message's fields, as texts."""


def is_envelope(delivery: Delivery) -> bool:
    """Whether it claims to be an SNS message that carries its own proof. Raw message delivery does not."""
    return delivery.headers.get("x-amz-sns-rawdelivery") != "true" and b'"SigningCertURL"' in delivery.body


class Topics:
    """The topics that a source listens to. `endpoint_url` stands in for ``https://sns.REGION.amazonaws.com`` (emulators)."""

    def __init__(self, arns: tuple[str, ...], endpoint_url: str | None) -> None:
        self._arns, self._endpoint_url = arns, endpoint_url
        self._lock = threading.Lock()
        self._apis: dict[str, Api] = {}
        self._certificates: OrderedDict[str, rsa.RSAPublicKey] = OrderedDict()
        self._failed_s = -_REST_S

    def close(self) -> None:
        with self._lock:
            apis, self._apis = [*self._apis.values()], {}
        for api in apis:
            api.close()

    def verified(self, delivery: Delivery) -> Envelope:
        """The message, proven. `Unverified`; `ConnectorError` where the certificate could not be fetched."""
        envelope = _fields(delivery.body)
        if envelope.get("TopicArn") not in self._arns:
            raise Unverified("the topic is none of this source's (config.sns_topics)")
        names = _SIGNED.get(envelope.get("Type", ""))
        digest = _DIGESTS.get(envelope.get("SignatureVersion", ""))
        if names is None or digest is None:
            raise Unverified("the type or the version of the signature is unknown")
        signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)
        key = self._key(envelope["TopicArn"], envelope.get("SigningCertURL", ""))
        try:
            key.verify(decode_base64(envelope.get("Signature", "")), signed.encode(), padding.PKCS1v15(), digest())
        except InvalidSignature:
            raise Unverified("the signature does not match") from None
        check_age(_seconds(envelope.get("Timestamp", "")), delivery.received_at_ms, REPLAY_WINDOW_S)
        return envelope

    def confirm(self, envelope: Envelope) -> None:
        """Take the subscription that a proven message offers. `ConnectorError` where that failed; SNS then offers it again."""
        arn, token = envelope["TopicArn"], envelope.get("Token", "")
        if not re.fullmatch(r"[0-9A-Za-z]{1,1024}", token):
            raise InvalidInput("Token", "is missing or no token of SNS", "send the confirmation as SNS made it")
        action = {"Action": "ConfirmSubscription", "TopicArn": arn, "Token": token}
        self._api(arn).call("GET", "/", params=action)

    def _key(self, arn: str, url: str) -> rsa.RSAPublicKey:
        path = _certificate_path(arn, url)
        with self._lock:
            if key := self._certificates.get(path):
                self._certificates.move_to_end(path)
                return key
            if time.monotonic() - self._failed_s < _REST_S:
                raise SourceUnavailable("a signing certificate could not be fetched just now")
        try:
            key = self._fetch(arn, path)
        except (ConnectorError, Unverified):
            self._failed_s = time.monotonic()  # so that made-up names cost us no request each
            raise
        with self._lock:
            self._certificates[path] = key
            while len(self._certificates) > _CERTIFICATES_KEPT:
                self._certificates.popitem(last=False)
        return key

    def _fetch(self, arn: str, path: str) -> rsa.RSAPublicKey:
        api = self._api(arn)
        try:
            answer = api.call("GET", path)
        except (ObjectGone, ObjectUnreadable) as error:
            raise Unverified("SNS has no such certificate") from error
        if answer.url != api.url(path):
            raise Unverified("the certificate's address leads elsewhere")
        try:
            key = x509.load_pem_x509_certificate(answer.content).public_key()
        except ValueError as error:
            raise SourceUnavailable(f"{path}: is no certificate") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise Unverified("the certificate's key is not RSA")
        return key

    def _api(self, arn: str) -> Api:
        base = self._endpoint_url or f"https://{_host(arn)}"
        with self._lock:
            if base not in self._apis:
                self._apis[base] = Api(base, timeout_s=_TIMEOUT_S, max_bytes=100_000)
            return self._apis[base]


def _host(arn: str) -> str:
    china = ".cn" if arn.startswith("arn:aws-cn:") else ""
    return f"sns.{topic_region(arn)}.amazonaws.com{china}"


def _certificate_path(arn: str, url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Unverified("the certificate's address is none") from None
    if parts.scheme != "https" or parts.netloc != _host(arn) or parts.query or not _CERTIFICATE.fullmatch(parts.path):
        raise Unverified(f"the certificate is not at https://{_host(arn)}/SimpleNotificationService-….pem")
    return parts.path


def _fields(body: bytes) -> Envelope:
    """Only its texts: nothing else is signed."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise Unverified("the message is no JSON") from None
    if not isinstance(message, dict):
        raise Unverified("the message is no object")
    return {name: value for name, value in cast("dict[str, Any]", message).items() if isinstance(value, str)}


def _seconds(timestamp: str) -> str:
    try:
        return str(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return ""
