"""The data folder of one `sourcebus up`: taken by one at a time, and described for the other commands."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sourcebus.cli.place import INSTANCE, SECRET_KEY, read_instance
from sourcebus.errors import Conflict, InvalidInput

_LOCK = "up.lock"
_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run on a data folder. `fd` is the locked file: who inherits it keeps the folder taken."""

    data: Path
    fd: int


@contextmanager
def claim(data: Path) -> Generator[Claim]:
    """Takes the data folder, making it if needed; Conflict names the process that has it.

    The lock is the open file itself (flock). The embedded server inherits it, so that after a `kill -9` of the
    supervisor no second server is started on files that the first one still writes; we wait for it to end.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (data / "logs").mkdir(exist_ok=True)
        fd = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput("--data", f"{data} cannot be used: {error.strerror}", "name a folder that can be written") from None
    try:
        _lock(fd, data)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield Claim(data, fd)
    finally:
        os.close(fd)


def _lock(fd: int, data: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK}:
                raise InvalidInput("--data", f"{data} cannot be locked: {error.strerror}", "use a local disk") from None
        owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        if owner.isdigit() and _alive(int(owner)):
            raise Conflict(f"{data} is in use by another `sourcebus up` (pid {owner}); stop it, or choose another: --data DIR")
        if time.monotonic() > deadline:
            raise Conflict(f"{data} is still in use by the Valkey of an earlier run (supervisor pid {owner}); stop it")
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class Instance:
    """Where everything of this installation is."""

    data: Path
    redis_url: str
    database_url: str
    api_url: str

    def environment(self) -> dict[str, str]:
        """What every process of the installation is told, as environment variables."""
        return {
            "SOURCEBUS_DATA_DIR": str(self.data),
            "SOURCEBUS_REDIS_URL": self.redis_url,
            "SOURCEBUS_DATABASE_URL": self.database_url,
            "SOURCEBUS_API_URL": self.api_url,
            "SOURCEBUS_SECRET_KEY": os.environ.get("SOURCEBUS_SECRET_KEY") or _secret_key(self.data / SECRET_KEY),
        }

    def write(self) -> None:
        """Tells the other commands where we are. Only the owner may read it: addresses can hold passwords."""
        self._store(
            {
                "redis_url": self.redis_url,
                "database_url": self.database_url,
                "api_url": self.api_url,
                "pid": os.getpid(),
                "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )

    def mark_stopped(self) -> None:
        """Keeps the addresses (what is indexed can still be searched) and drops the process."""
        self._store({name: value for name, value in read_instance(self.data).items() if name != "pid"})

    def _store(self, values: dict[str, object]) -> None:
        new = self.data / f"{INSTANCE}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
        new.replace(self.data / INSTANCE)


def _secret_key(path: Path) -> str:
    """The installation's Fernet key, made on first use: 32 random bytes as URL-safe base64."""
    if not path.exists():
        from cryptography.fernet import Fernet

        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
        new.replace(path)
    return path.read_text("ascii").strip()
