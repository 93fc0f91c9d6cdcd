"""Proving a delivery by its raw bytes: keyed hashes, compared in constant time, against every secret that is alive."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence

from sourcebus.errors import Unverified

_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {"hex": binascii.hexlify, "base64": base64.b64encode}


def check_hmac(
    message: bytes,
    signature: str | None,
    secrets: Sequence[str | bytes],
    *,
    digest: str = "sha256",
    encoding: str = "hex",
    prefix: str = "",
) -> None:
    """`signature` (after its `prefix`) is the HMAC (RFC 2104) of `message` under one of `secrets`, else `Unverified`.

    `encoding` is hex (of either case) or base64. No secret at all proves nothing, so it refuses everything.
    """
    if not any(secrets):  # an empty one is known to everybody
        raise Unverified("this source has no webhook secret, so nothing can be proven: set one")
    if signature is None:
        raise Unverified("the signature is missing")
    if not signature.startswith(prefix):
        raise Unverified(f"the signature does not begin with {prefix!r}")
    given = signature[len(prefix) :].strip().encode("utf-8", "replace")
    if encoding == "hex":
        given = given.lower()
    encode, right = _ENCODERS[encoding], False
    for secret in filter(None, secrets):
        key = secret.encode() if isinstance(secret, str) else secret
        right |= hmac.compare_digest(encode(hmac.new(key, message, digest).digest()), given)
    if not right:
        raise Unverified("the signature does not match")


def check_token(token: str | None, expected: Iterable[str]) -> None:
    """`token` is one of `expected`, else `Unverified`. Hashed first, so that not even a length leaks."""
    given, right = _hashed(token or ""), False
    for one in expected:
        right |= hmac.compare_digest(_hashed(one), given)
    if not right or not token:
        raise Unverified("the token does not match" if token else "the token is missing")


def check_age(sent_s: str | None, received_at_ms: int, window_s: float = 300.0) -> None:
    """The delivery was sent (Unix seconds) within `window_s` of now, either way: clocks differ. Else `Unverified`."""
    try:
        age_s = received_at_ms / 1000 - float(sent_s or "")
    except ValueError:
        raise Unverified("the timestamp is missing or no number") from None
    if not abs(age_s) <= window_s:
        raise Unverified(f"was sent {age_s:.0f} s ago, more than the {window_s:.0f} s allowed: is one of the clocks wrong?")


def decode_base64(text: str) -> bytes:
    """Unverified where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unverified("is not base64") from None


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
