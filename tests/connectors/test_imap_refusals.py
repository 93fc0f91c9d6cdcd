"""The connector `imap` where Dovecot refuses, is cut, or is configured wrongly; and the names of messages."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.connectors.imap_account import Account, mail, walk

from sourcebus.connectors.imap import ImapConnector
from sourcebus.connectors.imap.names import MessageName, parse_ref, prefix_of
from sourcebus.connectors.imap.session import meaning
from sourcebus.errors import ConnectorError, InvalidInput, NeedsAuth, SourceUnavailable, Throttled
from sourcebus.testing.dovecot import INSTALL, Dovecot, installed, running_dovecot

needs_dovecot = pytest.mark.skipif(not installed(), reason=f"Dovecot is not installed: {INSTALL}")


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if not installed():
        pytest.skip(f"Dovecot is not installed: {INSTALL}")
    with running_dovecot() as server:
        yield server


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    return Account(dovecot)


@pytest.fixture
def connector(account: Account) -> Iterator[ImapConnector]:
    connector = account.connect()
    yield connector
    connector.close()


# -- refusals and outages


def test_a_wrong_password_needs_a_person(account: Account) -> None:
    connector = ImapConnector.create(account.config(), "not the password")
    for ask in (lambda: next(connector.changes(None)), lambda: connector.version("INBOX;UIDVALIDITY=1/;UID=1")):
        with pytest.raises(NeedsAuth) as refused:
            ask()
        assert "not the password" not in str(refused.value)


def test_without_a_secret_nobody_is_asked() -> None:
    connector = ImapConnector.create({"host": "127.0.0.1", "tls": "none", "user": "a", "port": 1}, None)
    with pytest.raises(ConnectorError):
        connector.version("INBOX;UIDVALIDITY=1/;UID=1")


def test_a_token_that_the_server_does_not_take_needs_a_person(account: Account) -> None:
    connector = ImapConnector.create(account.config(auth="xoauth2"), '{"access_token": "expired"}')
    with pytest.raises(NeedsAuth):
        next(connector.changes(None))


@needs_dovecot
def test_too_many_connections_are_a_throttle() -> None:
    with running_dovecot(connections=2) as server:
        account = Account(server)
        ref = account.append(mail("text"))
        connector = account.connect()
        with account.client(), account.client(), pytest.raises(Throttled):
            connector.version(ref)
        assert connector.version(ref) is not None
        connector.close()


@needs_dovecot
def test_a_full_account_can_still_be_read() -> None:
    """Only APPEND is refused; listing and reading need no room."""
    quota = "mail_plugins = quota\nprotocol imap {\n  mail_plugins = quota imap_quota\n}\n"
    quota += "plugin {\n  quota = count:User quota\n  quota_vsizes = yes\n  quota_rule = *:messages=1\n}\n"
    with running_dovecot(more=quota) as server:
        account = Account(server)
        ref = account.append(mail("text"))
        with account.client() as client, pytest.raises(Exception, match="OVERQUOTA"):
            client.append("INBOX", mail("more"))
        connector = account.connect()
        assert set(walk(connector)[0].found) == {ref}
        assert "text" in connector.extract(ref).documents[0].text
        connector.close()


def test_a_connection_that_was_cut_is_replaced(account: Account, connector: ImapConnector) -> None:
    ref = account.append(mail("text"))
    version = connector.version(ref)
    account.server.cut()
    account.server.start()
    answers: list[str | None] = []
    for _ in range(2):
        try:
            answers.append(connector.version(ref))
        except SourceUnavailable:
            pass  # the connection was used a moment ago, so it was not asked first; the bus tries again
    assert version in answers and None not in answers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@needs_dovecot
def test_tls_in_both_ways_and_only_to_a_server_that_is_trusted(certificate: tuple[Path, Path]) -> None:
    with running_dovecot(certificate=certificate) as server:
        account = Account(server)
        ref = account.append(mail("text"))
        ways = {"implicit": server.tls_port, "starttls": server.port}
        for tls, port in ways.items():
            connector = account.connect(tls=tls, port=port, ca_file=str(certificate[0]))
            assert connector.version(ref) is not None
            connector.close()
            with pytest.raises(SourceUnavailable, match="ca_file"):
                account.connect(tls=tls, port=port).version(ref)


@pytest.mark.parametrize(
    ("text", "doing", "kind", "wait_ms"),
    [
        ("b'[AUTHENTICATIONFAILED] Authentication failed.'", "logging in at h", NeedsAuth, None),
        ("b'LOGIN failed.'", "logging in at h", NeedsAuth, None),
        ("b'[UNAVAILABLE] Temporary authentication failure.'", "logging in at h", SourceUnavailable, None),
        ("b'[ALERT] Too many simultaneous connections. (Failure)'", "logging in at h", Throttled, None),
        ("b'[WEBALERT https://x] Web login required.'", "logging in at h", NeedsAuth, None),
        ("EXAMINE failed: [LIMIT] SELECT Rate limit hit.", "EXAMINE INBOX", Throttled, None),
        ("FETCH failed: [THROTTLED] (Failure)", "FETCH", Throttled, None),
        ("Request is throttled. Suggested Backoff Time: 299998 milliseconds", "FETCH", Throttled, 299_998),
        ("Account exceeded command or bandwidth limits. (Failure)", "FETCH", Throttled, None),
        ("got more than 1000000 bytes", "FETCH", SourceUnavailable, None),
    ],
)
def test_what_a_refusal_means(text: str, doing: str, kind: type[ConnectorError], wait_ms: int | None) -> None:
    """In the words of Dovecot, Gmail, Yahoo and Exchange Online."""
    from imapclient.exceptions import IMAPClientError

    error = meaning(IMAPClientError(text), doing)
    assert "b'" not in str(error), "said as the server said it, not as Python writes bytes"
    assert type(error) is kind or (kind is SourceUnavailable and isinstance(error, kind))
    if isinstance(error, Throttled):
        assert error.retry_after_ms == wait_ms


def test_a_mailbox_that_cannot_be_opened_is_not_gone(account: Account, connector: ImapConnector) -> None:
    with account.client() as client:
        client.create_folder("Work")
    kept, hidden = account.append(mail("kept")), account.append(mail("hidden"), "Work")
    before = walk(connector)[0]
    assert before.complete
    folder = account.server.folder / "mail" / account.user / "mailboxes" / "Work" / "dbox-Mails"
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_text("no folder")
    try:
        fresh = account.connect()
        listed, _ = walk(fresh)
        assert set(listed.found) == {kept} and not listed.complete
        with pytest.raises(SourceUnavailable):
            fresh.version(hidden)
        with pytest.raises(SourceUnavailable):
            walk(fresh, None, "Work")
        fresh.close()
    finally:
        folder.unlink()
        aside.rename(folder)
    assert set(walk(connector)[0].found) == {kept, hidden}


# -- names and settings


@pytest.mark.parametrize(
    "mailbox", ["INBOX", "Work/Deep", "a;UIDVALIDITY=1/;UID=2", "50%", "%3B", "Grüße & \N{SNOWMAN}", "a\nb", "a]b["]
)
def test_every_mailbox_has_names_of_its_own(mailbox: str) -> None:
    name = MessageName(mailbox, 7, 8)
    assert parse_ref(name.ref) == name
    assert name.ref.startswith(prefix_of(mailbox))
    assert not MessageName(mailbox + "/below", 7, 8).ref.startswith(prefix_of(mailbox))


@pytest.mark.parametrize(
    "ref",
    [
        "INBOX",
        "INBOX;UIDVALIDITY=1",
        "INBOX;UIDVALIDITY=0/;UID=1",
        "INBOX;UIDVALIDITY=1/;UID=01",
        "%41;UIDVALIDITY=1/;UID=1",
        ";UIDVALIDITY=1/;UID=1",
        "INBOX;UIDVALIDITY=1/;UID=٣",
        "%ff;UIDVALIDITY=1/;UID=1",
    ],
)
def test_a_message_has_one_name_only(ref: str) -> None:
    assert parse_ref(ref) is None


GOOD = {"host": "imap.example.org", "user": "ada"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"user": "ada"}, "host"),
        (GOOD | {"host": "imap.example.org/x"}, "host"),
        (GOOD | {"host": 7}, "host"),
        ({"host": "h"}, "user"),
        (GOOD | {"user": "a\r\nb"}, "user"),
        (GOOD | {"tls": "ssl"}, "tls"),
        (GOOD | {"tls": "none"}, "tls"),
        (GOOD | {"port": 0}, "port"),
        (GOOD | {"port": True}, "port"),
        (GOOD | {"auth": "ntlm"}, "auth"),
        (GOOD | {"include": "INBOX"}, "include"),
        (GOOD | {"exclude_special_use": ["spam"]}, "exclude_special_use"),
        (GOOD | {"max_bytes": 1}, "max_bytes"),
        (GOOD | {"idle_s": 1741}, "idle_s"),
        (GOOD | {"ca_file": 1}, "ca_file"),
        (GOOD | {"allow_plaintext": "yes"}, "allow_plaintext"),
        (GOOD | {"password": "x"}, "password"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ImapConnector.create(config, "secret")
    assert refused.value.field == f"config.{field}"


def test_plaintext_is_for_loopback_or_who_asks_for_it() -> None:
    for config in (GOOD | {"host": "localhost"}, GOOD | {"host": "::1"}, GOOD | {"allow_plaintext": True}):
        ImapConnector.create(config | {"tls": "none"}, "secret")
