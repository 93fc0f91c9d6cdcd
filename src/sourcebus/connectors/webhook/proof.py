"""Who sent a delivery: the configured proof, on its raw bytes."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sourcebus.connectors.signing import check_age, check_hmac, check_token
from sourcebus.connectors.webhook.settings import Proof
from sourcebus.errors import Unverified
from sourcebus.model import Delivery

_FIELDS = re.compile(r"(\{(?:body|timestamp|id|url|method)\})")


def check(proof: Proof, delivery: Delivery, secrets: Sequence[str]) -> None:
    """Raises `Unverified`. For ``path`` the gateway has compared the address already."""
    headers = delivery.headers
    match proof.kind:
        case "hmac":
            if proof.timestamp_header is not None:
                check_age(_header(delivery, proof.timestamp_header), delivery.received_at_ms, proof.window_s)
            signature = headers.get((proof.header or "").lower())
            check_hmac(
                _message(proof, delivery), signature, secrets, digest=proof.digest, encoding=proof.encoding, prefix=proof.prefix
            )
        case "standard-webhooks":
            check_standard(delivery, secrets, proof.window_s)
        case "bearer":
            scheme, _, token = headers.get("authorization", "").partition(" ")
            check_token(token.strip() if scheme.lower() == "bearer" else None, secrets)
        case "header":
            check_token(headers.get((proof.header or "").lower()), secrets)
        case "path":
            pass


def _header(delivery: Delivery, name: str | None) -> str:
    value = delivery.headers.get((name or "").lower())
    if value is None:
        raise Unverified(f"the header {name} is missing")
    return value


def _message(proof: Proof, delivery: Delivery) -> bytes:
    def part(text: str) -> bytes:
        match text:
            case "{body}":
                return delivery.body
            case "{timestamp}":
                return _header(delivery, proof.timestamp_header).encode()
            case "{id}":
                return _header(delivery, proof.id_header).encode()
            case "{url}":
                return delivery.url.encode()
            case "{method}":
                return delivery.method.encode()
            case _:
                return text.encode()

    return b"".join(map(part, _FIELDS.split(proof.template)))


def check_standard(delivery: Delivery, secrets: Sequence[str], window_s: float = 300.0) -> None:
    """Standard Webhooks 1.0 (github.com/standard-webhooks): ``v1`` with ``whsec_…`` keys, ``v1a`` (Ed25519) with ``whpk_…``.

    A delivery may carry several signatures, and several secrets may be alive: one that fits is enough.
    """
    if not secrets:
        raise Unverified("this source has no webhook secret, so nothing can be proven: set one")
    identity, sent_s = _header(delivery, "webhook-id"), _header(delivery, "webhook-timestamp")
    check_age(sent_s, delivery.received_at_ms, window_s)
    message = f"{identity}.{sent_s}.".encode() + delivery.body
    signatures = [one.partition(",") for one in _header(delivery, "webhook-signature").split()]
    if not any(_fits(version, signature, message, secret) for version, _, signature in signatures for secret in secrets):
        raise Unverified("no signature matches")


def _fits(version: str, signature: str, message: bytes, secret: str) -> bool:
    try:
        if version == "v1" and not secret.startswith("whpk_"):
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            check_hmac(message, signature, [key], encoding="base64")
            return True
        if version == "v1a" and secret.startswith("whpk_"):
            key = base64.b64decode(secret.removeprefix("whpk_"), validate=True)
            Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(signature, validate=True), message)
            return True
    except (Unverified, InvalidSignature, ValueError):
        pass  # another signature or secret may fit
    return False
