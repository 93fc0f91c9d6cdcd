"""A scene for `benchmarks.reach`: mail is delivered to a Dovecot, and how long is it until it is found?"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from sourcebus.connectors.imap.names import MessageName
from sourcebus.testing.dovecot import INSTALL, PASSWORD, USER, Dovecot, installed, running_dovecot

NAME = "imap"
CONNECTOR = "imap"
NEEDS = INSTALL


def possible() -> bool:
    """Whether this machine has what the scene needs; `NEEDS` installs it."""
    return installed()


@dataclass
class Mail:
    """The account, as a mail program that stays connected changes it."""

    server: Dovecot
    client: Any

    @property
    def config(self) -> dict[str, Any]:
        """The `config` of the source."""
        return {"host": "127.0.0.1", "port": self.server.port, "tls": "none", "user": USER}

    @property
    def secret(self) -> str:
        return PASSWORD

    def write(self, text: str) -> str:
        """Deliver a message with this text; its `object_ref`. It is on the server when this returns."""
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = "Measured", "bench@example.org", f"{USER}@example.org"
        message.set_content(text)
        said: bytes = self.client.append("INBOX", bytes(message))
        uidvalidity, uid = map(int, re.findall(rb"\d+", said)[:2])
        return MessageName("INBOX", uidvalidity, uid).ref


@contextmanager
def started() -> Generator[Mail]:
    """A running server with an empty account."""
    with running_dovecot() as server, server.client() as client:
        yield Mail(server, client)
