"""A bus's keys as one thing, for those who break it on purpose: simulations and tests."""

# redis-py leaves its **kwargs untyped:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import redis
from redis import Redis

from sourcebus.bus import keys
from sourcebus.bus.bus import Bus

_SIZES = {b"hash": "HLEN", b"list": "LLEN", b"zset": "ZCARD", b"set": "SCARD"}


class Store:
    """Not atomic: nobody else may use the bus meanwhile. `client` as for `Bus`."""

    def __init__(self, client: Redis, *, name: str = "sourcebus") -> None:
        self._client, self._name, self._root = client, name, keys.root(name)
        self._wake = self._root.decode() + "wake"

    @classmethod
    def from_url(cls, url: str, *, name: str = "sourcebus") -> Store:
        """For one thread: on a single connection, which spares the pool's work."""
        return cls(redis.Redis.from_url(url, single_connection_client=True), name=name)

    def bus(self, clock_ms: Callable[[], float]) -> Bus:
        """The bus itself, on the same connection, by a clock of one's own."""
        return Bus(self._client, name=self._name, clock_ms=clock_ms)

    def close(self) -> None:
        self._client.close()

    def _keys(self) -> list[bytes]:
        pattern = self._root.replace(b"[", b"\\[") + b"*"
        return sorted(cast("list[bytes]", self._client.keys(pattern)))

    def wipe(self) -> None:
        """Everything is lost, as after FLUSHALL."""
        if found := self._keys():
            self._client.delete(*found)

    def copy(self) -> dict[bytes, bytes]:
        """Every key as it is now, for `put_back`."""
        found = self._keys()
        pipe = self._client.pipeline(transaction=False)
        for key in found:
            pipe.dump(key)
        return dict(zip(found, cast("list[bytes]", pipe.execute()), strict=True))

    def put_back(self, copy: dict[bytes, bytes]) -> None:
        """All that happened since the copy is lost, as after a power cut."""
        self.wipe()
        pipe = self._client.pipeline(transaction=False)
        for key, dumped in copy.items():
            pipe.restore(key, 0, cast("Any", dumped))
        pipe.execute()

    def sizes(self) -> dict[str, int]:
        """How many members each container of the bus has, by the key's name below the bus's root."""
        found = self._keys()
        pipe = self._client.pipeline(transaction=False)
        for key in found:
            pipe.type(key)
        counted = [
            (key, _SIZES[kind]) for key, kind in zip(found, cast("list[bytes]", pipe.execute()), strict=True) if kind in _SIZES
        ]
        for key, command in counted:
            pipe.execute_command(command, key)
        numbers = cast("list[int]", pipe.execute())
        return {key[len(self._root) :].decode(): number for (key, _), number in zip(counted, numbers, strict=True)}

    def woken(self) -> bool:
        """Takes one wake-up call without waiting for it; False where there is none."""
        return self._client.lpop(self._wake) is not None
