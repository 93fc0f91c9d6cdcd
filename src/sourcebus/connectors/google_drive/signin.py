"""Signing in as a service account: a JWT that the account's key signs is exchanged for a token (RFC 7523 §2.1).

One token per process, account and subject. Why no library does it: docs/decisions/0008-google-sign-in.md.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Generator
from typing import Any, cast
from urllib.parse import urlencode

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from sourcebus.connectors.google_drive.config import Account, Key
from sourcebus.connectors.http import Api
from sourcebus.errors import NeedsAuth, SourceUnavailable

SCOPE = "https://www.googleapis.com/auth/drive.readonly"

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_S = 3_600
_EARLY_S = 300.0
"""A token is renewed so long before its end, so that no call is under way when it ends."""

_LOCK = threading.Lock()
_SIGNED_IN: dict[tuple[str, ...], SignIn] = {}


def sign_in(account: Account) -> SignIn:
    """The process's sign-in of this account; made, without asking anybody, if there is none yet."""
    with _LOCK:
        found = _SIGNED_IN.get(account.identity)
        if found is None:
            found = _SIGNED_IN[account.identity] = SignIn(account)
        return found


class SignIn(httpx.Auth):
    """Puts the account's token on requests. A token that is refused is thrown away and fetched anew, once per request."""

    def __init__(self, account: Account) -> None:
        self._account, self._keys = account, list(account.keys)
        self._lock = threading.Lock()
        self._token, self._until_s = "", 0.0
        self._api = Api(account.token_url, cost=0.0)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self.token(refused=token)}"
            yield request

    def token(self, *, refused: str = "") -> str:
        """A token that is good now; not the one that was `refused`. Raises `NeedsAuth` with Google's words."""
        with self._lock:
            if self._token in ("", refused) or time.monotonic() >= self._until_s:
                self._token, lives_s = self._exchange()
                self._until_s = time.monotonic() + max(lives_s - _EARLY_S, lives_s / 2)
            return self._token

    def _exchange(self) -> tuple[str, float]:
        """By the first key that Google takes, which is tried first from then on."""
        problem = ""
        for key in list(self._keys):
            answer = self._ask(key)
            if token := answer.get("access_token"):
                self._keys.remove(key)
                self._keys.insert(0, key)
                return str(token), float(answer.get("expires_in") or _ASSERTION_S)
            problem = problem or f"{answer.get('error')}: {str(answer.get('error_description', ''))[:300]}"
        of = f"{self._account.keys[0].email}" + (f" for {self._account.subject}" if self._account.subject else "")
        raise NeedsAuth(f"Google refuses the service account {of}: {problem}")

    def _ask(self, key: Key) -> dict[str, Any]:
        form = urlencode({"grant_type": _GRANT, "assertion": assertion(key, self._account, int(time.time()))}).encode()
        # The next call is an hour away: nothing is kept open until then.
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Connection": "close"}
        answer = self._api.call("POST", self._account.token_url, headers=headers, content=form, accept=(400, 401, 403))
        try:
            return cast("dict[str, Any]", answer.json() | {})
        except (ValueError, TypeError) as error:
            raise SourceUnavailable("the answer of Google's sign-in is no JSON object") from error


def assertion(key: Key, account: Account, now_s: int) -> str:
    """The signed JWT (RFC 7515 compact form, RS256) that asks for a token."""
    head = {"alg": "RS256", "typ": "JWT", **({"kid": key.id} if key.id else {})}
    claims = {
        "iss": key.email,
        "scope": SCOPE,
        "aud": account.token_url,
        "iat": now_s,
        "exp": now_s + _ASSERTION_S,
        **({"sub": account.subject} if account.subject else {}),
    }
    signed = f"{_part(json.dumps(head).encode())}.{_part(json.dumps(claims).encode())}"
    return f"{signed}.{_part(key.private.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
