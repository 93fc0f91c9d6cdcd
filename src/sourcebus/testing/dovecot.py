"""A Dovecot of one's own on a loopback port: IMAP with IDLE, CONDSTORE and QRESYNC, to test and measure against.

Needs Debian's ``dovecot-imapd``. Its mailboxes, logs and sockets live in a temporary folder that goes with it.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imapclient import IMAPClient

from sourcebus.testing.ports import free_ports

INSTALL = "apt-get install --no-install-recommends dovecot-imapd"
USER, PASSWORD = "heron", "shallow-water"

_START_S = 10.0

_CONFIG = """
protocols = imap
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
mail_location = mdbox:{folder}/mail/%u
mail_uid = {mail}
mail_gid = {mail_group}
first_valid_uid = 1
auth_mechanisms = plain login
auth_failure_delay = 0
disable_plaintext_auth = no
mail_max_userip_connections = {connections}
ssl = {ssl}
{tls}
{capability}
{more}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Trash {{
    auto = no
    special_use = \\Trash
  }}
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = home={folder}/mail/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


@dataclass
class Dovecot:
    """A server that runs, and the account in it. `cut` and `start` stop it in the middle of everything and bring it back."""

    folder: Path
    port: int
    tls_port: int
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(self.folder / "dovecot.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until_s = time.monotonic() + _START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError as error:
                if time.monotonic() > until_s or self._process.poll() is not None:
                    log = self.folder / "dovecot.log"
                    raise RuntimeError(f"Dovecot does not start: {log.read_text() if log.exists() else error}") from error
                time.sleep(0.02)

    def cut(self) -> None:
        """Ends the server and every connection to it, at once: asked kindly, it would serve those that it has to their end."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    @contextlib.contextmanager
    def client(self, user: str = USER) -> Generator[Any]:
        """An `IMAPClient` of a mail program's (it has no types), logged in as `user`."""
        client = IMAPClient("127.0.0.1", self.port, ssl=False)
        try:
            client.login(user, PASSWORD)
            yield client
            client.logout()
        finally:
            if client.socket().fileno() >= 0:
                client.shutdown()


def installed() -> bool:
    return shutil.which("dovecot") is not None


@contextlib.contextmanager
def running_dovecot(
    *, connections: int = 50, capability: str = "", certificate: tuple[Path, Path] | None = None, more: str = ""
) -> Generator[Dovecot]:
    """A server with an account that has any name and `PASSWORD`.

    `connections` is how many one user may have, `capability` what it shall say that it can (its own list, if empty),
    `certificate` a PEM certificate and its key, with which it also speaks TLS, `more` lines of configuration.
    """
    folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
    folder.chmod(0o755)
    port, tls_port = free_ports(2) if certificate else (*free_ports(1), 0)
    internal, group, login, mail, mail_group = _users()
    (folder / "mail").mkdir()
    if os.getuid() == 0:
        shutil.chown(folder / "mail", mail, mail_group)
    tls = "ssl_cert = <{}\nssl_key = <{}".format(*certificate) if certificate else ""
    values = {"folder": folder, "port": port, "tls_port": tls_port, "connections": connections, "tls": tls, "more": more}
    values |= {"internal": internal, "group": group, "login": login, "mail": mail, "mail_group": mail_group}
    values |= {"ssl": "yes" if certificate else "no", "password": PASSWORD}
    values["capability"] = f"imap_capability = {capability}" if capability else ""
    (folder / "dovecot.conf").write_text(_CONFIG.format(**values))
    server = Dovecot(folder, port, tls_port)
    try:
        server.start()
        yield server
    finally:
        server.cut()
        shutil.rmtree(folder, ignore_errors=True)


def _users() -> tuple[str, str, str, str, str]:
    """Whose processes they are. Root must not own mail; anybody else can only be themselves."""
    if os.getuid() == 0:
        return "dovecot", "dovecot", "dovenull", "nobody", "nogroup"
    name = getpass.getuser()
    group = grp.getgrgid(os.getgid()).gr_name
    return name, group, name, name, group
