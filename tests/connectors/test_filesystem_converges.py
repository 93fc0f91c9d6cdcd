"""Watch, scans, versions together: whatever is done to a tree, who follows the connector ends with what is there.

The follower is a small consumer: an object's event looks at the object, a scan lists its scope and drops what is absent.
"""

from __future__ import annotations

import queue
import random
import shutil
import time
from pathlib import Path

import pytest

from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.model import Change, ChangeKind
from sourcebus.testing.connector_suite import PATIENCE_S, watching

NAMES = ("a", "b", "c", "d\n", "\x1f")


class Follower:
    def __init__(self, connector: FilesystemConnector) -> None:
        self.connector = connector
        self.index: dict[str, str] = {}

    def take(self, change: Change) -> None:
        if change.change_kind is ChangeKind.SCAN:
            self.scan(change.object_ref)
        else:
            self.look(change.object_ref)

    def look(self, ref: str) -> None:
        version = self.connector.version(ref)
        if version is None:
            self.index.pop(ref, None)
        else:
            self.index[ref] = version

    def scan(self, scope: str) -> None:
        seen: set[str] = set()
        for item in self.connector.changes(None, scope):
            if isinstance(item, Change):
                seen.add(item.object_ref)
                self.look(item.object_ref)
            elif item.complete:
                prefix = self.connector.scope_prefix(scope)
                for ref in [ref for ref in self.index if ref.startswith(prefix) and ref not in seen]:
                    self.look(ref)


def disturb(root: Path, chance: random.Random) -> None:
    """One random operation somewhere in the tree; what is not possible there is left out."""
    path = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
    other = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 4)))
    try:
        match chance.randrange(7):
            case 0 | 1:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(chance.random()))
            case 2:
                path.mkdir(parents=True)
            case 3:
                path.unlink()
            case 4:
                shutil.rmtree(path)
            case 5:
                path.rename(other)
            case _:
                path.chmod(chance.choice((0o600, 0o644)) | (0o100 if path.is_dir() else 0))
    except OSError:
        pass


@pytest.mark.parametrize("watcher", ["inotify", "watchfiles"])
@pytest.mark.parametrize("seed", range(4))
def test_the_follower_ends_with_what_is_there(root: Path, seed: int, watcher: str) -> None:
    connector = FilesystemConnector.create(
        {"root": str(root), "watcher": watcher, "rescan_s": 1 if watcher == "watchfiles" else 30}
    )
    follower, chance = Follower(connector), random.Random(seed)
    with watching(connector) as batches:

        def follow(timeout: float) -> None:
            for change in batches.get(timeout=timeout):
                follower.take(change)

        follow(PATIENCE_S)
        for _ in range(600):
            disturb(root, chance)
            if chance.random() < 0.1:
                try:
                    follow(0.01)
                except queue.Empty:
                    pass
        deadline = time.monotonic() + PATIENCE_S
        while follower.index != what_is_there(connector):
            assert time.monotonic() < deadline, f"seed {seed}: {follower.index.items() ^ what_is_there(connector).items()}"
            try:
                follow(0.05)
            except queue.Empty:
                pass
        assert follower.index, "the disturbance left nothing to compare"


def what_is_there(connector: FilesystemConnector) -> dict[str, str]:
    follower = Follower(connector)
    follower.scan("")
    return follower.index
