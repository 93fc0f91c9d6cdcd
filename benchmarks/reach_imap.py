"""The scene "mail delivered → searchable": a Dovecot that tells by IDLE."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from benchmarks.instance import Instance
from benchmarks.reach import NotHere, System, add_source
from sourcebus.connectors.imap.names import MessageName, parse_ref
from sourcebus.testing.dovecot import INSTALL, PASSWORD, USER, installed, running_dovecot


class Mail:
    """The account, as a mail program that stays connected changes it."""

    source_id = "reach-imap"
    kinds = ("create", "delete")

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, name: str, text: str) -> str:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = name, "bench@example.org", f"{USER}@example.org"
        message.set_content(text)
        said: bytes = self._client.append("INBOX", bytes(message))
        uidvalidity, uid = map(int, re.findall(rb"\d+", said)[:2])
        return MessageName("INBOX", uidvalidity, uid).ref

    def delete(self, ref: str) -> None:
        self._client.select_folder("INBOX")
        if name := parse_ref(ref):
            self._client.delete_messages([name.uid])
            self._client.expunge([name.uid])


class ImapIdle:
    """An account of Dovecot's."""

    name = "IMAP (Dovecot) → IDLE"

    @contextmanager
    def open(self, instance: Instance) -> Generator[System]:
        if not installed():
            raise NotHere(INSTALL)
        with running_dovecot() as server, server.client() as client:
            config = {"host": "127.0.0.1", "port": server.port, "tls": "none", "user": USER}
            add_source(instance, Mail.source_id, "imap", config, PASSWORD)
            yield Mail(client)
