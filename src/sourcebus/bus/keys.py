"""The bus's keys. All of one bus share a hash tag, so on Redis Cluster a bus is one shard, and no user text is part of a key.

Sources and shared buckets are known to Redis by small numbers; an object is the field ``<number>:<o|s><ref>`` of one hash
(``o`` an object, ``s`` a scope to scan). References may therefore hold any character without meeting another's.
Why so: docs/decisions/0001-sources-are-numbers-in-redis.md.

=========  ======  =====================================================================
key        type    holds
=========  ======  =====================================================================
m          string  counters and clocks (struct M)
ids names  hash    source id → number, number → source id
n src      hash    number → struct N (counts); structs S, B, C (source, its own bucket, the rest)
bkt        hash    b<number> of a shared bucket → struct B
bids       hash    shared bucket's name → number
r          hash    object → its record (struct R, and X while in flight)
q0 q1 q2   list    q<lane>:<number>: ready objects; backfill, live, manual
d          zset    delayed objects by due time, ms
x          zset    leases by deadline, ms
z          zset    ready buckets by start tag, ms of work
w          zset    waiting buckets, and sources of a shared bucket that are away, by wake time, ms
bs         zset    bs:<bucket>: runnable sources of a shared bucket by start tag
c          list    c:<second>: cooling objects whose window ends in that second
pl         zset    polled sources by next poll, ms
dl dlz     hash    dead letters by id; dlz (zset) orders them by time of death, ms
dlk        hash    object → id of its dead letter
cov        hash    cov:<number>: changes announced (a<slot>) and missed (m<slot>) by slot of time, and since `anew`
late       zset    late:<number>: objects whose change a listing found, by slot; their webhook may only be late
hd         zset    hd:<number>: digests of the deliveries that were stored, by when they are forgotten, ms
con wt     zset    live and waiting consumers by expiry, ms
inv        zset    unanswered invitations by expiry, ms
wake       list    one element wakes one waiting consumer
gone       hash    number of a removed source that is still being taken down → how far
=========  ======  =====================================================================
"""

from __future__ import annotations

OBJECT, SCOPE = b"o", b"s"


def root(bus_name: str) -> bytes:
    """The common prefix, with the hash tag that keeps a bus on one shard."""
    return b"{" + bus_name.encode() + b"}:"


def encode_ref(ref: str) -> bytes:
    """A reference as bytes. Reversible for every `str`, also file names that are not UTF-8 (lone surrogates)."""
    return ref.encode("utf-8", "surrogatepass")


def decode_ref(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")
