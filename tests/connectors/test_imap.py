"""The connector `imap` against Dovecot: listings, versions, deletes, moves, mailboxes that are replaced, refusals."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.connectors.imap_account import Account, mail, name_of, walk

from sourcebus.connectors import Costly
from sourcebus.connectors.imap import ImapConnector
from sourcebus.connectors.imap.listing import Listing
from sourcebus.connectors.imap.names import Mailboxes, MessageName, parse_ref, prefix_of, scope_of
from sourcebus.connectors.imap.pool import Pool
from sourcebus.connectors.imap.session import Server, Session, meaning
from sourcebus.errors import ConnectorError, CursorExpired, InvalidInput, NeedsAuth, ObjectGone, SourceUnavailable, Throttled
from sourcebus.model import ChangeKind, Cursor
from sourcebus.testing import SourceUnderTest, WatchingConnectorSuite
from sourcebus.testing.dovecot import INSTALL, PASSWORD, Dovecot, installed, running_dovecot

needs_dovecot = pytest.mark.skipif(not installed(), reason=f"Dovecot is not installed: {INSTALL}")

PLAIN = "IMAP4rev1 SASL-IR LITERAL+ ENABLE UIDPLUS MOVE"


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if not installed():
        pytest.skip(f"Dovecot is not installed: {INSTALL}")
    with running_dovecot() as server:
        yield server


@pytest.fixture(scope="module")
def dovecot_condstore() -> Iterator[Dovecot]:
    """As Gmail: CONDSTORE, no QRESYNC, IDLE."""
    with running_dovecot(capability=f"{PLAIN} CONDSTORE IDLE") as server:
        yield server


@pytest.fixture(scope="module")
def dovecot_plain() -> Iterator[Dovecot]:
    """As Exchange Online, and without IDLE besides."""
    with running_dovecot(capability=PLAIN) as server:
        yield server


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    return Account(dovecot)


@pytest.fixture
def connector(account: Account) -> Iterator[ImapConnector]:
    connector = account.connect()
    yield connector
    connector.close()


class TestImap(WatchingConnectorSuite):
    @pytest.fixture
    def source(self, account: Account) -> SourceUnderTest:
        return account


# -- listing


def test_each_page_of_a_listing_can_be_its_last(account: Account) -> None:
    """A pass that is cut after any page is taken up there, and says complete of all of it."""
    account.settings["connections"] = 1
    with account.client() as client:
        client.create_folder("Work")
        for mailbox in ("INBOX", "Work"):
            for number in range(7):
                client.append(mailbox, mail(f"{number}"))
        client.select_folder("INBOX")
        client.delete_messages([2, 3])
        client.expunge()
    pool = Pool(lambda: Session(Server("127.0.0.1", account.server.port, "none"), lambda c: c.login(account.user, PASSWORD)), 1)
    listing = Listing(pool, Mailboxes((), (), ()), page=2)
    found: set[str] = set()
    cursor, complete, passes = None, False, 0
    while not complete:
        passes += 1
        for item in listing.changes(cursor, ""):
            if isinstance(item, Cursor):
                cursor, complete = item.value, item.complete
                break
            found.add(item.object_ref)
    pool.close()
    assert len(found) == 12
    assert passes >= 7


def test_a_mailbox_replaced_between_two_pages_starts_the_listing_anew(account: Account) -> None:
    with account.client() as client:
        client.create_folder("Work")
        for number in range(5):
            client.append("Work", mail(f"{number}"))
    pool = Pool(lambda: Session(Server("127.0.0.1", account.server.port, "none"), lambda c: c.login(account.user, PASSWORD)), 1)
    listing = Listing(pool, Mailboxes(("Work",), (), ()), page=2)
    first = next(item for item in listing.changes(None, "") if isinstance(item, Cursor))
    with account.client() as client:
        client.delete_folder("Work")
        client.create_folder("Work")
    with pytest.raises(CursorExpired):
        next(listing.changes(first.value, ""))
    pool.close()


def test_nothing_new_costs_one_command_a_mailbox(account: Account, connector: ImapConnector) -> None:
    account.append(mail("one"))
    cursor = walk(connector)[0].cursor
    assert isinstance(connector, Costly)
    connector.take_cost()
    result, scopes = walk(connector, cursor)
    assert not result.found and not result.deleted and not scopes
    assert connector.take_cost() == 2  # LIST, EXAMINE


def test_expunged_messages_are_named(account: Account, connector: ImapConnector) -> None:
    kept, lost = account.append(mail("kept")), account.append(mail("lost"))
    cursor = walk(connector)[0].cursor
    account.delete(lost)
    result, _ = walk(connector, cursor)
    assert result.deleted == {lost}
    assert not result.found
    assert connector.version(lost) is None
    assert connector.version(kept) is not None


def test_flags_change_no_version(account: Account, connector: ImapConnector) -> None:
    ref = account.append(mail("text"))
    before = connector.version(ref)
    cursor = walk(connector)[0].cursor
    account.flag(ref, "\\Seen")
    account.flag(ref, "$Label1")
    result, _ = walk(connector, cursor)
    assert connector.version(ref) == before
    assert {change.version for change in result.found.values()} <= {before}, "the listing must not look like a change"


def test_marked_deleted_is_gone_and_comes_back_with_the_mark(account: Account, connector: ImapConnector) -> None:
    ref = account.append(mail("text"))
    cursor = walk(connector)[0].cursor
    account.flag(ref, "\\Deleted")
    result, _ = walk(connector, cursor)
    assert result.deleted == {ref}
    assert connector.version(ref) is None
    assert ref not in walk(connector)[0].found
    account.flag(ref, "\\Deleted", on=False)
    result, _ = walk(connector, result.cursor)
    assert set(result.found) == {ref}
    assert connector.extract(ref).documents[0].title == "A letter"


def test_a_moved_message_is_gone_here_and_new_there(account: Account, connector: ImapConnector) -> None:
    with account.client() as client:
        client.create_folder("Archive")
    ref = account.append(mail("text"))
    cursor = walk(connector)[0].cursor
    account.move(ref, "Archive")
    result, _ = walk(connector, cursor)
    assert result.deleted == {ref}
    (moved,) = result.found
    assert name_of(moved).mailbox == "Archive"
    assert "text" in connector.extract(moved).documents[0].text


def test_a_new_mailbox_a_renamed_one_and_a_deleted_one_get_scans_of_their_own(
    account: Account, connector: ImapConnector
) -> None:
    with account.client() as client:
        client.create_folder("Old")
        client.create_folder("Gone")
    old, gone = account.append(mail("old"), "Old"), account.append(mail("gone"), "Gone")
    cursor = walk(connector)[0].cursor
    with account.client() as client:
        client.rename_folder("Old", "New; 100% Grüße")
        client.delete_folder("Gone")
    result, scopes = walk(connector, cursor)
    assert scopes == {"Old", "Gone", scope_of("New; 100% Grüße")}
    assert connector.version(old) is None and connector.version(gone) is None
    for scope in ("Old", "Gone"):
        listed, _ = walk(connector, None, scope)
        assert listed.complete and not listed.found, "what is absent from a complete listing is deleted"
    listed, _ = walk(connector, None, scope_of("New; 100% Grüße"))
    assert len(listed.found) == 1
    assert not walk(connector, result.cursor)[1], "asked for once"


def test_a_mailbox_made_anew_under_its_old_name_holds_other_messages(account: Account, connector: ImapConnector) -> None:
    with account.client() as client:
        client.create_folder("Work")
    before = account.append(mail("before"), "Work")
    whole, of_work = walk(connector)[0].cursor, walk(connector, None, "Work")[0].cursor
    with account.client() as client:
        client.delete_folder("Work")
        client.create_folder("Work")
    after = account.append(mail("after"), "Work")
    assert name_of(before).uid == name_of(after).uid, "only the UIDVALIDITY tells them apart"
    with pytest.raises(CursorExpired):
        walk(connector, of_work, "Work")
    listed, scopes = walk(connector, whole)
    assert scopes == {"Work"} and not listed.complete
    assert connector.version(before) is None
    with pytest.raises(ObjectGone):
        connector.extract(before)
    listed, _ = walk(connector, None, "Work")
    assert set(listed.found) == {after} and listed.complete


def test_a_scope_is_one_mailbox_without_those_below_it(account: Account, connector: ImapConnector) -> None:
    with account.client() as client:
        client.create_folder("Work")
        client.create_folder("Work/Deep")
    upper, deep = account.append(mail("a"), "Work"), account.append(mail("b"), "Work/Deep")
    listed, _ = walk(connector, None, "Work")
    assert set(listed.found) == {upper} and listed.complete
    assert upper.startswith(connector.scope_prefix("Work")) and not deep.startswith(connector.scope_prefix("Work"))
    second = account.append(mail("c"), "Work")
    later, _ = walk(connector, listed.cursor, "Work")
    assert set(later.found) == {second} and not later.complete


def test_mailboxes_are_chosen(account: Account) -> None:
    with account.client() as client:
        for name in ("Trash", "Work", "Work/Deep", "Work/Drafts", "[Other]/All Mail"):
            client.create_folder(name)
    texts = {name: account.append(mail(name), name) for name in ("INBOX", "Trash", "Work", "Work/Deep", "[Other]/All Mail")}

    def listed(**settings: Any) -> set[str]:
        connector = account.connect(**settings)
        try:
            found = set(walk(connector)[0].found)
            taken = {name for name, ref in texts.items() if ref in found}
            for name, ref in texts.items():
                assert (connector.version(ref) is not None) == (name in taken), "what is left out counts as gone"
            return taken
        finally:
            connector.close()

    assert listed() == {"INBOX", "Work", "Work/Deep", "[Other]/All Mail"}
    assert listed(exclude_special_use=[]) == set(texts)
    assert listed(include=["inbox", "Work/%"]) == {"INBOX", "Work/Deep"}
    assert listed(include=["[Other]/*"]) == {"[Other]/All Mail"}
    assert listed(exclude=["Work*"]) == {"INBOX", "[Other]/All Mail"}


@pytest.mark.parametrize("cursor", ["", "x", "[]", '{"v":2,"boxes":{}}', '{"v":1,"boxes":{"INBOX":[1]}}', '{"v":1,"boxes":3}'])
def test_a_cursor_that_makes_no_sense_has_expired(connector: ImapConnector, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        next(connector.changes(cursor))


# -- servers that can do less


@needs_dovecot
@pytest.mark.parametrize("kind", ["dovecot_condstore", "dovecot_plain"])
def test_without_qresync_a_delete_asks_for_the_mailbox_as_a_whole(kind: str, request: pytest.FixtureRequest) -> None:
    account = Account(request.getfixturevalue(kind))
    connector = account.connect()
    kept, lost = account.append(mail("kept")), account.append(mail("lost"))
    cursor, of_inbox = walk(connector)[0].cursor, walk(connector, None, "INBOX")[0].cursor
    new = account.append(mail("new"))
    result, scopes = walk(connector, cursor)
    assert new in result.found and not scopes and not result.complete
    account.delete(lost)
    later, scopes = walk(connector, result.cursor)
    assert scopes == {"INBOX"} and lost not in later.found
    listed, _ = walk(connector, of_inbox, "INBOX")
    assert listed.complete and set(listed.found) == {kept, new}
    assert walk(connector, later.cursor)[1] == set()
    assert walk(connector, listed.cursor, "INBOX")[0].complete is False
    connector.close()


@needs_dovecot
def test_with_condstore_alone_a_mark_is_noticed(dovecot_condstore: Dovecot) -> None:
    account = Account(dovecot_condstore)
    connector = account.connect()
    ref = account.append(mail("text"))
    cursor = walk(connector)[0].cursor
    account.flag(ref, "\\Deleted")
    assert walk(connector, cursor)[0].deleted == {ref}
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
    assert type(error) is kind or (kind is SourceUnavailable and isinstance(error, kind))
    if isinstance(error, Throttled):
        assert error.retry_after_ms == wait_ms


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


def test_a_new_message_is_said_to_be_new(account: Account, connector: ImapConnector) -> None:
    account.append(mail("one"))
    cursor = walk(connector)[0].cursor
    ref = account.append(mail("two"))
    assert walk(connector, cursor)[0].found[ref].change_kind is ChangeKind.CREATED


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


def test_a_server_that_has_forgotten_what_was_expunged_is_listed_as_a_whole(account: Account, connector: ImapConnector) -> None:
    """It then calls every free UID vanished (RFC 7162 §3.2.5.2): no list of deletes, only the end of one."""
    ref = account.append(mail("text"))
    name = name_of(ref)
    with account.client() as client:
        for _ in range(30):
            client.append("INBOX", mail("gone"))
        client.select_folder("INBOX")
        client.delete_messages(range(2, 32))
        client.expunge()
        modseq = client.folder_status("INBOX", ["HIGHESTMODSEQ"])[b"HIGHESTMODSEQ"]
        assert modseq > 2
    # a cursor of before all that, which knew one message and says that the next would be 32
    cursor = f'{{"v":1,"boxes":{{"INBOX":[{name.uidvalidity},32,1,1]}}}}'
    result, scopes = walk(connector, cursor)
    assert scopes == {"INBOX"} and not result.deleted
    listed, _ = walk(connector, cursor, "INBOX")
    assert listed.complete and set(listed.found) == {ref}
