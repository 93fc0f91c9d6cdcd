"""Several threads and processes at once: nobody meets a locked database, and the highest fence wins."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sourcebus.catalog
from sourcebus.catalog import Catalog
from sourcebus.model import Outcome

_WRITER = """
import sys
from sourcebus.catalog import Catalog
from sourcebus.model import Document, Outcome
name, rounds = sys.argv[2], int(sys.argv[3])
with Catalog.open(sys.argv[1]) as catalog:
    for fence in range(1, rounds + 1):
        mine = [Outcome("s", f"{name}{n}", fence, "indexed", fence, str(fence), documents=[Document(f"{name} word{fence}")])
                for n in range(8)]
        shared = [Outcome("s", f"shared{n}", fence, "indexed", fence, str(fence), documents=[Document(f"shared word{fence}")])
                  for n in range(8)]
        assert all(catalog.settle(mine)), fence
        catalog.settle(shared if name < "b" else shared[::-1])
        catalog.versions([("s", "shared0")])
"""


def test_processes_that_write_at_once_wait_for_each_other(catalog: Catalog, catalog_url: str) -> None:
    source_root = str(Path(sourcebus.catalog.__file__).parents[2])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, catalog_url, name, "20"], env={"PYTHONPATH": source_root}, stderr=subprocess.PIPE
        )
        for name in ("a", "b", "c")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()
    assert {version.fence for _, version in catalog.objects("s")} == {20}
    assert catalog.counts()["s"] == {"indexed": 32, "unreadable": 0, "deleted": 0, "documents": 32}
    assert len(catalog.search("word20", limit=100)) == 32
    assert catalog.search("word19 shared") == []


def test_whatever_the_order_the_highest_fence_wins(catalog: Catalog, indexed: Callable[..., Outcome]) -> None:
    refs = ["x", "y", "z"]
    batches = [[indexed(ref, f"word{fence}", fence=fence) for ref in refs] for fence in range(1, 41)]
    mixed = random.Random(7)
    mixed.shuffle(batches)
    for batch in batches:
        mixed.shuffle(batch)
    with ThreadPoolExecutor(8) as pool:
        applied = [done for result in pool.map(catalog.settle, batches) for done in result]
    assert applied.count(True) >= len(refs)
    assert {ref: version.fence for ref, version in catalog.objects("s")} == dict.fromkeys(refs, 40)
    assert len(catalog.search("word40")) == 3
    assert catalog.counts()["s"]["documents"] == 3


def test_a_child_of_a_fork_opens_its_own_connections(catalog: Catalog, indexed: Callable[..., Outcome]) -> None:
    catalog.settle([indexed("parent", fence=1)])
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if catalog.settle([indexed("child", fence=1)]) == [True] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    catalog.settle([indexed("parent", fence=2)])
    assert [ref for ref, _ in catalog.objects("s")] == ["child", "parent"]


def test_removing_a_source_while_it_is_being_filled_leaves_nothing(catalog: Catalog, indexed: Callable[..., Outcome]) -> None:
    def fill(part: int) -> None:
        for number in range(40):
            catalog.settle([indexed(f"{part}-{number}-{n}", fence=number + 1) for n in range(4)])

    with ThreadPoolExecutor(4) as pool:
        filling = [pool.submit(fill, part) for part in range(3)]
        removed = catalog.remove_source("s")
        for part in filling:
            part.result()
    assert removed >= 0
    assert catalog.counts() == {} and catalog.search("words") == []
