"""The connector `imap` against Dovecot: listings, versions, deletes, moves, mailboxes that are replaced, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.connectors.imap_account import Account, mail, name_of, walk

from sourcebus.connectors import Costly
from sourcebus.connectors.imap import ImapConnector
from sourcebus.connectors.imap.listing import Listing
from sourcebus.connectors.imap.names import Mailboxes, scope_of
from sourcebus.connectors.imap.pool import Pool
from sourcebus.connectors.imap.session import Server, Session
from sourcebus.errors import CursorExpired, ObjectGone
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


def test_a_new_message_is_said_to_be_new(account: Account, connector: ImapConnector) -> None:
    account.append(mail("one"))
    cursor = walk(connector)[0].cursor
    ref = account.append(mail("two"))
    assert walk(connector, cursor)[0].found[ref].change_kind is ChangeKind.CREATED


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
