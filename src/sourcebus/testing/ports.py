"""Ports for servers that have to be told one before they listen on it."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import SystemRandom

_PORTS = range(10_000, 20_000)
"""Below what systems hand out by themselves (Linux from 32768, others from 49152), so that neither a connection nor a server
on port 0 takes one away before its server listens; and 10,000 above each there is room for Redis's cluster bus."""

_random = SystemRandom()  # not the shared one, which tests seed: processes that ask at the same time must not agree


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on now, all different, drawn at random."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            port = _random.choice(_PORTS)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        return found
