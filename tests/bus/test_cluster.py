"""On Redis Cluster a bus is one shard: a cluster node refuses scripts that touch keys of several slots."""

from __future__ import annotations

import time

from redis import Redis

from sourcebus.bus import Bus
from sourcebus.model import ChangeKind, Quota, SourceChanged
from sourcebus.testing import running_server
from sourcebus.testing.ports import free_ports


def _formed(client: Redis) -> bool:
    info = str(client.execute_command("CLUSTER INFO"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return "ok" in info.partition("cluster_state")[2][:8]


def test_every_key_of_a_bus_is_in_one_slot():
    options = ["--port", str(*free_ports(1)), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
    with running_server(options) as url:
        client = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")  # pyright: ignore[reportUnknownMemberType]
        deadline = time.monotonic() + 20
        while not _formed(client):
            assert time.monotonic() < deadline, "the cluster of one node did not form"
            time.sleep(0.02)
        bus = Bus(client, name="shard-1")
        bus.register("a", window_ms=0)
        bus.register("b", quota=Quota(rate=100, burst=10, bucket="tenant"))
        bus.emit([SourceChanged("a", "{other}tag"), SourceChanged("b", "x"), SourceChanged("b", "", ChangeKind.SCAN)])
        leases = bus.claim(10, consumer="c").leases
        assert len(leases) == 3
        bus.emit(SourceChanged("b", "x"))
        bus.extend(leases, running=leases[0])
        assert all(bus.ack(leases).done)
        bus.tick()
        assert bus.leave("c") == () and bus.unregister("a")
        client.close()
