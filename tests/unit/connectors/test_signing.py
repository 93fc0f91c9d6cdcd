"""Proofs: against vectors that others published, and against everything that must not pass for one."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from sourcebus.connectors.signing import check_age, check_hmac, check_token, decode_base64
from sourcebus.errors import Unverified

# GitHub's own example (docs: "Validating webhook deliveries", section "Testing the webhook payload validation").
GITHUB = ("It's a Secret to Everybody", b"Hello, World!", "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")


def test_githubs_published_vector() -> None:
    secret, body, digest = GITHUB
    check_hmac(body, f"sha256={digest}", [secret], prefix="sha256=")
    check_hmac(body, f"sha256={digest.upper()}", [secret], prefix="sha256=")


def test_rfc_4231_vectors() -> None:
    check_hmac(b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", [b"\x0b" * 20])
    sha512 = (
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    )
    check_hmac(b"what do ya want for nothing?", sha512, ["Jefe"], digest="sha512")


def test_base64_is_told_apart_by_case() -> None:
    proof = base64.b64encode(hmac.new(b"k", b"body", hashlib.sha256).digest()).decode()
    check_hmac(b"body", proof, ["k"], encoding="base64")
    with pytest.raises(Unverified):
        check_hmac(b"body", proof.swapcase(), ["k"], encoding="base64")


@pytest.mark.parametrize("secrets", [["new", "old"], ["old", "new"], ["a", "b", "old"]])
def test_any_living_secret_will_do(secrets: list[str]) -> None:
    check_hmac(b"body", hmac.new(b"old", b"body", "sha256").hexdigest(), secrets)


@pytest.mark.parametrize("signature", [None, "", "sha256=", "sha1=00", "sha256=00", "sha256=\udc80", "sha256=é", GITHUB[2]])
def test_what_is_no_proof_is_refused_without_a_word_of_the_secret(signature: str | None) -> None:
    with pytest.raises(Unverified) as refused:
        check_hmac(GITHUB[1], signature, [GITHUB[0]], prefix="sha256=")
    assert GITHUB[0] not in str(refused.value)


@pytest.mark.parametrize("secrets", [[], [""], [b""], ["", ""]])
def test_no_secret_proves_nothing(secrets: list[str | bytes]) -> None:
    with pytest.raises(Unverified, match="no webhook secret"):
        check_hmac(b"body", hmac.new(b"", b"body", "sha256").hexdigest(), secrets)


def test_a_token_is_one_of_the_expected() -> None:
    check_token("b", ["a", "b"])
    for token, expected in (
        ("c", ["a", "b"]),
        ("", ["a"]),
        ("", [""]),
        (None, ["a"]),
        (None, []),
        ("a", []),
        ("\udc80", ["a"]),
    ):
        with pytest.raises(Unverified):
            check_token(token, expected)


@pytest.mark.parametrize("sent", ["1000", "1299.9", "700.1"])
def test_what_was_sent_within_the_window_is_believed(sent: str) -> None:
    check_age(sent, 1_000_000)


@pytest.mark.parametrize("sent", [None, "", "x", "nan", "inf", "-inf", "1e999", "1301", "699", "-1000", "9" * 5_000])
def test_every_other_time_is_not(sent: str | None) -> None:
    with pytest.raises(Unverified):
        check_age(sent, 1_000_000)


@pytest.mark.parametrize("text", ["a", "é", "====", "a b=", "\udc80"])
def test_what_is_no_base64_proves_nothing(text: str) -> None:
    with pytest.raises(Unverified):
        decode_base64(text)
    assert decode_base64("AAE=") == b"\x00\x01"
