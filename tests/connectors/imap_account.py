"""An account on a running Dovecot, changed as a mail program would, and connectors on it."""

from __future__ import annotations

import itertools
import re
from contextlib import AbstractContextManager
from email.message import EmailMessage
from typing import Any

from sourcebus.connectors.imap import ImapConnector
from sourcebus.connectors.imap.names import MessageName, parse_ref
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing import SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import Pass
from sourcebus.testing.dovecot import PASSWORD, Dovecot

_numbers = itertools.count(1)


def mail(text: str, subject: str = "A letter") -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <ada@example.org>", "bus@example.org", subject
    message.set_content(text)
    return bytes(message)


class Account(SourceUnderTest):
    """A new account, empty. Its outage is the server stopped."""

    def __init__(self, server: Dovecot, **settings: Any) -> None:
        self.server, self.settings, self.user = server, settings, f"user{next(_numbers)}"

    def config(self, **settings: Any) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.server.port, "tls": "none", "user": self.user, **self.settings, **settings}

    def connect(self, **settings: Any) -> ImapConnector:
        return ImapConnector.create(self.config(**settings), PASSWORD)

    def client(self) -> AbstractContextManager[Any]:
        return self.server.client(self.user)

    def append(self, message: bytes, mailbox: str = "INBOX") -> str:
        with self.client() as client:
            said = client.append(mailbox, message).decode()
        uidvalidity, uid = map(int, re.findall(r"\d+", said)[:2])
        return MessageName(mailbox, uidvalidity, uid).ref

    def write(self, name: str, text: str) -> str:
        """A message never changes: the same name again is another message."""
        return self.append(mail(text, name))

    def delete(self, ref: str) -> None:
        self.flag(ref, "\\Deleted")
        with self.client() as client:
            client.select_folder(name_of(ref).mailbox)
            client.uid_expunge([name_of(ref).uid])

    def flag(self, ref: str, flag: str, *, on: bool = True) -> None:
        with self.client() as client:
            client.select_folder(name_of(ref).mailbox)
            (client.add_flags if on else client.remove_flags)([name_of(ref).uid], [flag])

    def move(self, ref: str, mailbox: str) -> None:
        with self.client() as client:
            client.select_folder(name_of(ref).mailbox)
            client.move([name_of(ref).uid], mailbox)

    def rename(self, ref: str, name: str) -> str:
        not_applicable("a message has no name")

    def forbid(self, ref: str) -> None:
        not_applicable("permissions are of a whole mailbox")

    def expire_cursor(self, cursor: str | None) -> str | None:
        not_applicable("a mailbox that begins anew (UIDVALIDITY) has new messages")

    def break_off(self) -> None:
        self.server.cut()

    def mend(self) -> None:
        self.server.start()


def name_of(ref: str) -> MessageName:
    name = parse_ref(ref)
    assert name is not None, ref
    return name


def walk(connector: ImapConnector, cursor: str | None = None, scope: str = "") -> tuple[Pass, set[str]]:
    """One pass, and the scopes that it asks to have listed."""
    result, scopes = Pass(), set[str]()
    for item in connector.changes(cursor, scope):
        if isinstance(item, Cursor):
            result.cursor, result.complete = item.value, result.complete or item.complete
        elif item.change_kind is ChangeKind.SCAN:
            scopes.add(item.object_ref)
        elif item.change_kind is ChangeKind.DELETED:
            result.deleted.add(item.object_ref)
        else:
            result.found[item.object_ref] = item
    return result, scopes


def refs(changes: list[Change]) -> set[str]:
    return {change.object_ref for change in changes}
