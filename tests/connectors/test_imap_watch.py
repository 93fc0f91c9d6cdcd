"""The watch of the connector `imap` on Dovecot: what IDLE says by name, gaps, mailboxes that come and go, polling."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.connectors.imap_account import Account, mail

from sourcebus.connectors.imap import ImapConnector
from sourcebus.connectors.imap.names import scope_of
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind
from sourcebus.testing.connector_suite import PATIENCE_S, watching
from sourcebus.testing.dovecot import INSTALL, Dovecot, installed, running_dovecot

WHOLE = Change(WHOLE_SOURCE, ChangeKind.SCAN)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    if not installed():
        pytest.skip(f"Dovecot is not installed: {INSTALL}")
    with running_dovecot() as server:
        yield server


@pytest.fixture(scope="module")
def dovecot_without_qresync() -> Iterator[Dovecot]:
    if not installed():
        pytest.skip(f"Dovecot is not installed: {INSTALL}")
    with running_dovecot(capability="IMAP4rev1 SASL-IR LITERAL+ UIDPLUS MOVE IDLE") as server:
        yield server


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    return Account(dovecot)


@pytest.fixture
def connect() -> Iterator[Callable[..., ImapConnector]]:
    made: list[ImapConnector] = []

    def make(account: Account, **settings: object) -> ImapConnector:
        made.append(account.connect(**settings))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


Connect = Callable[..., ImapConnector]
Batches = queue.Queue[Sequence[Change]]


def until(batches: Batches, wanted: Callable[[Change], bool]) -> list[Change]:
    """All that is announced up to the first change that is wanted."""
    heard: list[Change] = []
    deadline = time.monotonic() + PATIENCE_S
    while not any(map(wanted, heard)):
        try:
            heard += batches.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            pytest.fail(f"only heard {heard}")
    return heard


def is_scan(scope: str) -> Callable[[Change], bool]:
    return lambda change: change == Change(scope, ChangeKind.SCAN)


def is_kind(kind: ChangeKind, ref: str) -> Callable[[Change], bool]:
    return lambda change: change.object_ref == ref and change.change_kind is kind


def quiet(batches: Batches, for_s: float = 0.3) -> list[Change]:
    heard: list[Change] = []
    until_s = time.monotonic() + for_s
    while (left_s := until_s - time.monotonic()) > 0:
        try:
            heard += batches.get(timeout=left_s)
        except queue.Empty:
            break
    return heard


def test_messages_are_announced_by_their_names(account: Account, connect: Connect) -> None:
    old = account.append(mail("old"))
    with watching(connect(account)) as batches:
        until(batches, lambda change: change == WHOLE)
        new = account.append(mail("new"))
        heard = until(batches, is_kind(ChangeKind.CREATED, new))
        account.delete(old)
        heard += until(batches, is_kind(ChangeKind.DELETED, old))
        assert not [change for change in heard if change.change_kind is ChangeKind.SCAN], "no listing is needed"


def test_a_burst_of_messages_is_announced_whole(account: Account, connect: Connect) -> None:
    with watching(connect(account)) as batches:
        until(batches, lambda change: change == WHOLE)
        with account.client() as client:
            for number in range(60):
                client.append("INBOX", mail(f"{number}"))
        last = account.append(mail("last"))
        heard = until(batches, lambda change: change.object_ref == last)
        assert len({change.object_ref for change in heard if change.change_kind is ChangeKind.CREATED}) == 61


def test_flags_are_no_news_unless_they_mean_deleted(account: Account, connect: Connect) -> None:
    ref = account.append(mail("text"))
    with watching(connect(account)) as batches:
        until(batches, lambda change: change == WHOLE)
        account.flag(ref, "\\Seen")
        account.flag(ref, "\\Deleted")
        assert until(batches, is_kind(ChangeKind.DELETED, ref)) == [Change(ref, ChangeKind.DELETED)]
        account.flag(ref, "\\Deleted", on=False)
        heard = until(batches, is_kind(ChangeKind.UPDATED, ref))
        assert [change.change_kind for change in heard] == [ChangeKind.UPDATED]


def test_a_move_is_heard_in_both_mailboxes(account: Account, connect: Connect) -> None:
    with account.client() as client:
        client.create_folder("Archive")
    ref = account.append(mail("text"))
    with watching(connect(account)) as batches:
        until(batches, lambda change: change == WHOLE)
        account.move(ref, "Archive")
        heard = until(batches, lambda change: change.object_ref.startswith("Archive;"))
        heard += [] if any(map(is_kind(ChangeKind.DELETED, ref), heard)) else until(batches, is_kind(ChangeKind.DELETED, ref))


def test_a_connection_that_was_cut_comes_back_with_a_scan(account: Account, connect: Connect) -> None:
    with watching(connect(account, poll_s=0.2)) as batches:
        until(batches, lambda change: change == WHOLE)
        account.server.cut()
        account.server.start()
        ref = account.append(mail("in the gap"))
        until(batches, lambda change: is_scan("INBOX")(change) or change.object_ref == ref)
        until(batches, is_scan("INBOX")) if not batches.empty() else None
        later = account.append(mail("later"))
        until(batches, lambda change: change.object_ref == later or is_scan("INBOX")(change))


def test_idle_is_asked_for_anew_before_the_server_hangs_up(account: Account, connect: Connect) -> None:
    with watching(connect(account, idle_s=1)) as batches:
        until(batches, lambda change: change == WHOLE)
        assert quiet(batches, 1.5) == [], "a new IDLE is no gap"
        ref = account.append(mail("text"))
        until(batches, is_kind(ChangeKind.CREATED, ref))


def test_beyond_the_bound_mailboxes_are_looked_at_in_turn(account: Account, connect: Connect) -> None:
    with account.client() as client:
        for name in ("Archive", "Work"):
            client.create_folder(name)
    with watching(connect(account, idle_mailboxes=1, poll_s=0.1)) as batches:
        until(batches, lambda change: change == WHOLE)
        account.append(mail("text"), "Work")
        until(batches, is_scan("Work"))
        ref = account.append(mail("text"))
        until(batches, is_kind(ChangeKind.CREATED, ref))
        assert quiet(batches) == []


def test_mailboxes_that_come_and_go_are_scanned(account: Account, connect: Connect) -> None:
    with watching(connect(account, poll_s=0.1)) as batches:
        until(batches, lambda change: change == WHOLE)
        with account.client() as client:
            client.create_folder("Neu & Grün")
        until(batches, is_scan(scope_of("Neu & Grün")))
        time.sleep(0.3)
        ref = account.append(mail("text"), "Neu & Grün")
        until(batches, lambda change: change.object_ref == ref)
        with account.client() as client:
            client.delete_folder("Neu & Grün")
        until(batches, is_scan(scope_of("Neu & Grün")))


def test_without_qresync_an_expunge_is_a_scan(dovecot_without_qresync: Dovecot, connect: Connect) -> None:
    account = Account(dovecot_without_qresync)
    ref = account.append(mail("text"))
    with watching(connect(account)) as batches:
        until(batches, lambda change: change == WHOLE)
        new = account.append(mail("new"))
        until(batches, is_kind(ChangeKind.CREATED, new))
        account.delete(ref)
        until(batches, is_scan("INBOX"))


@pytest.mark.skipif(not installed(), reason=f"Dovecot is not installed: {INSTALL}")
def test_without_idle_every_mailbox_is_looked_at() -> None:
    with running_dovecot(capability="IMAP4rev1 SASL-IR LITERAL+ UIDPLUS") as server:
        account = Account(server)
        connector = account.connect(poll_s=0.1)
        with watching(connector) as batches:
            until(batches, lambda change: change == WHOLE)
            account.append(mail("text"))
            until(batches, is_scan("INBOX"))
        connector.close()


def test_a_server_that_is_down_at_first_is_scanned_when_it_is_there(account: Account, connect: Connect) -> None:
    account.append(mail("text"))
    connector = connect(account, poll_s=0.1)
    account.server.cut()
    try:
        with watching(connector) as batches:
            until(batches, lambda change: change == WHOLE)
            account.server.start()
            until(batches, is_scan("INBOX"))
    finally:
        if account.server.port and not _answers(account):
            account.server.start()


def _answers(account: Account) -> bool:
    try:
        with account.client():
            return True
    except OSError:
        return False


def test_a_watch_ends_while_it_waits(account: Account, connect: Connect) -> None:
    connector, stop = connect(account), threading.Event()
    batches = connector.watch(stop, step_ms=5)
    assert next(batches) == [WHOLE]
    began = time.monotonic()
    stop.set()
    assert list(batches) == []
    assert time.monotonic() - began < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("imap-")]
