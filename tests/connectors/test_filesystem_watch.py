"""What a watch says of every kind of change, and what it does when the kernel, or the root, lets it down."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.connectors.filesystem.inotify import Event, Mask
from sourcebus.connectors.filesystem.watching import STORM_STEP_S, WRITING_S, Batch
from sourcebus.connectors.patterns import Selection
from sourcebus.model import Change, ChangeKind
from sourcebus.testing.connector_suite import PATIENCE_S, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: these are inotify's own promises")

Batches = queue.Queue[Sequence[Change]]
WHOLE = Change("", ChangeKind.SCAN)


def until(batches: Batches, *wanted: Change) -> list[Change]:
    """Collect changes until all of `wanted` have come."""
    seen: list[Change] = []
    deadline = time.monotonic() + PATIENCE_S
    while not {*wanted} <= {*seen}:
        try:
            seen.extend(batches.get(timeout=max(0, deadline - time.monotonic())))
        except queue.Empty:
            pytest.fail(f"never came: { ({*wanted} - {*seen}) }; came: {seen[:20]}")
    return seen


def created(ref: str) -> Change:
    return Change(ref, ChangeKind.CREATED)


def updated(ref: str) -> Change:
    return Change(ref, ChangeKind.UPDATED)


def deleted(ref: str) -> Change:
    return Change(ref, ChangeKind.DELETED)


def scan(ref: str) -> Change:
    return Change(ref, ChangeKind.SCAN)


def test_files_created_changed_renamed_and_deleted(root: Path, connector: FilesystemConnector) -> None:
    (root / "d").mkdir()
    with watching(connector) as batches:
        until(batches, WHOLE)
        (root / "d" / "a.txt").write_text("one")
        until(batches, created("d/a.txt"))
        (root / "d" / "a.txt").write_text("two")
        until(batches, updated("d/a.txt"))
        (root / "d" / "a.txt").rename(root / "b.txt")
        until(batches, deleted("d/a.txt"), created("b.txt"))
        (root / "b.txt").unlink()
        until(batches, deleted("b.txt"))


def test_a_change_of_permission_or_an_unclosed_write_is_announced(root: Path, connector: FilesystemConnector) -> None:
    (root / "a.txt").write_text("one")
    with watching(connector) as batches:
        until(batches, WHOLE)
        (root / "a.txt").chmod(0o600)
        until(batches, updated("a.txt"))
        with (root / "a.txt").open("a") as log:
            log.write("line")
            log.flush()
            until(batches, updated("a.txt"))


def test_a_directory_is_scanned_when_it_comes_goes_or_moves(root: Path, tmp_path: Path, connector: FilesystemConnector) -> None:
    outside = tmp_path / "outside"
    (outside / "e").mkdir(parents=True)
    (outside / "e" / "a.txt").touch()
    with watching(connector) as batches:
        until(batches, WHOLE)
        outside.rename(root / "in")
        until(batches, scan("in/"))
        (root / "in" / "e" / "a.txt").write_text("watched there as well")
        until(batches, updated("in/e/a.txt"))
        (root / "in").rename(root / "moved")
        until(batches, scan("in/"), scan("moved/"))
        (root / "moved" / "e" / "b.txt").write_text("under its new name")
        until(batches, created("moved/e/b.txt"))
        (root / "moved").rename(outside)
        until(batches, scan("moved/"))
        (outside / "e" / "c.txt").write_text("no concern of ours")
        (root / "last.txt").touch()
        seen = until(batches, created("last.txt"))
        assert not any("c.txt" in change.object_ref for change in seen)
        (root / "gone").mkdir()
        until(batches, scan("gone/"))
        (root / "gone").rmdir()
        until(batches, scan("gone/"))


def test_nothing_in_a_tree_that_grows_fast_is_missed(root: Path, connector: FilesystemConnector) -> None:
    """Files made in a directory before its watch is placed are found by the directory's scan."""
    with watching(connector) as batches:
        until(batches, WHOLE)
        expected: set[str] = set()
        for number in range(60):
            directory = root / f"d{number}" / "e" / "f"
            directory.mkdir(parents=True)
            (directory / "a.txt").touch()
            expected.add(f"d{number}/e/f/a.txt")
        found: set[str] = set()
        deadline = time.monotonic() + PATIENCE_S
        while found != expected and time.monotonic() < deadline:
            for change in batches.get(timeout=PATIENCE_S):
                if change.change_kind is ChangeKind.SCAN:
                    listed = connector.changes(None, change.object_ref)
                    found |= {item.object_ref for item in listed if isinstance(item, Change)}
                else:
                    found.add(change.object_ref)
        assert found == expected


def test_a_file_replaced_by_a_folder_is_both(root: Path, connector: FilesystemConnector) -> None:
    (root / "a").write_text("file")
    with watching(connector) as batches:
        until(batches, WHOLE)
        (root / "a").unlink()
        (root / "a").mkdir()
        until(batches, deleted("a"), scan("a/"))
        (root / "a").rmdir()
        (root / "a").write_text("file")
        until(batches, scan("a/"), created("a"))


def test_what_is_excluded_is_not_announced_nor_watched(root: Path, connector: FilesystemConnector) -> None:
    (root / ".git").mkdir()
    with watching(connector) as batches:
        until(batches, WHOLE)
        (root / ".git" / "index").touch()
        (root / "node_modules").mkdir()
        (root / "node_modules" / "a.js").touch()
        (root / "a.txt.swp").touch()
        (root / "last.txt").touch()
        assert until(batches, created("last.txt")) == [created("last.txt")]


def test_any_name_is_announced(root: Path, connector: FilesystemConnector) -> None:
    names = [b"a\nb", b"\x01\x1f", "\N{PILE OF POO}".encode(), b"n" * 255, b"\xff\xfe"]
    with watching(connector) as batches:
        until(batches, WHOLE)
        for name in names:
            with open(os.fsencode(root) + b"/" + name, "wb"):
                pass
        until(batches, *(created(os.fsdecode(name)) for name in names))


def test_a_link_leads_no_watch_outside(root: Path, tmp_path: Path, connector: FilesystemConnector) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with watching(connector) as batches:
        until(batches, WHOLE)
        (root / "later").symlink_to(outside)
        (outside / "a.txt").touch()
        (root / "last.txt").touch()
        seen = until(batches, created("last.txt"))
        assert not any(change.object_ref.endswith("a.txt") for change in seen)


def test_the_root_removed_and_put_back(root: Path, connector: FilesystemConnector) -> None:
    (root / "a.txt").touch()
    with capture_logs() as logs, watching(connector) as batches:
        until(batches, WHOLE)
        away = root.with_name("away")
        root.rename(away)
        wait_for(lambda: any(line["event"] == "connectors.root_missing" for line in logs))
        assert batches.empty()
        away.rename(root)
        assert until(batches, WHOLE) == [WHOLE]
        (root / "b.txt").touch()
        until(batches, created("b.txt"))
        shutil.rmtree(root)
        root.mkdir()
        until(batches, WHOLE)
        (root / "c.txt").touch()
        until(batches, created("c.txt"))


def test_a_watch_may_begin_before_its_root_is_there(root: Path, connector: FilesystemConnector) -> None:
    root.rmdir()
    with watching(connector) as batches:
        root.mkdir()
        assert until(batches, WHOLE) == [WHOLE]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)


def test_an_overflow_in_the_kernel_is_a_scan_of_everything_and_is_said(root: Path, connector: FilesystemConnector) -> None:
    """The watch is not read while more happens than the kernel keeps."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("needs fs.inotify.max_queued_events of at most 100,000")
    stop = threading.Event()
    batches = iter(connector.watch(stop, step_ms=5))
    assert next(batches) == [WHOLE]
    a, b = root / "a", root / "b"
    a.touch()
    for _ in range(limit // 4 + 10):  # two events each way; alternating, so that the kernel cannot merge them
        a.rename(b)
        b.rename(a)
    with capture_logs() as logs:
        seen: list[Change] = []
        for batch in batches:
            seen.extend(batch)
            if WHOLE in batch:
                break
    assert "connectors.watch_overflow" in [line["event"] for line in logs]
    (root / "after.txt").touch()
    while created("after.txt") not in seen:
        seen.extend(next(batches))
    stop.set()
    assert [*batches] == []


LIMITED = """
import pathlib, sys, threading
from sourcebus.connectors.filesystem import FilesystemConnector
from sourcebus.model import Change, ChangeKind
root, limit = sys.argv[1], sys.argv[2]
pathlib.Path(f"/proc/sys/user/{limit}").write_text(sys.argv[3])
stop = threading.Event()
watch = iter(FilesystemConnector.create({"root": root, "rescan_s": 0.1}).watch(stop, step_ms=5))
whole = Change("", ChangeKind.SCAN)
assert [next(watch) for _ in range(3)] == [[whole]] * 3
pathlib.Path(f"/proc/sys/user/{limit}").write_text("1000")
assert next(watch) == [whole]
pathlib.Path(root, "d9", "a.txt").touch()
while Change("d9/a.txt", ChangeKind.CREATED) not in (batch := next(watch)):
    assert batch == [whole]
stop.set()
print("good")
"""


@pytest.mark.parametrize(("limit", "value"), [("max_inotify_watches", "5"), ("max_inotify_instances", "0")])
def test_at_the_kernels_limit_everything_is_listed_again_and_again(root: Path, limit: str, value: str) -> None:
    """In a user namespace of its own, which has its own limits. Once they are raised the watch takes over."""
    for number in range(10):
        (root / f"d{number}").mkdir()
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMITED, str(root), limit, value]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode and ("unshare" in done.stderr or f"/proc/sys/user/{limit}" in done.stderr):
        pytest.skip(f"needs user namespaces with limits of their own: {done.stderr.strip().splitlines()[-1]}")
    assert done.stdout.strip().endswith("good"), done.stderr
    assert done.stdout.count("connectors.watch_limit") == 1  # said once, not with every listing


# batches, with a clock turned by hand


def batch(step_s: float = 0.005) -> Batch:
    return Batch(Selection([], ["*.tmp", "out"]), step_s)


def test_a_closed_file_is_due_after_one_step_an_open_one_later() -> None:
    gathering = batch()
    assert gathering.due_in(0) == float("inf")
    gathering.add(Event(Mask.CREATE, "a"), 10.0)
    gathering.add(Event(Mask.MODIFY, "a"), 10.0)
    assert gathering.due_in(10.0) == pytest.approx(WRITING_S)
    gathering.add(Event(Mask.CLOSE_WRITE, "a"), 10.001)
    assert gathering.due_in(10.001) == pytest.approx(0.005)
    assert gathering.take(10.006) == [created("a")]
    assert gathering.due_in(11.0) == float("inf")


def test_an_endless_writer_is_announced_again_and_again() -> None:
    gathering, announced, now = batch(), 0, 0.0
    while now < 1.0:
        gathering.add(Event(Mask.MODIFY, "log"), now)
        if gathering.due_in(now) <= 0:
            announced += len(gathering.take(now))
        now += 0.01
    assert 8 <= announced <= 10


def test_an_open_file_does_not_keep_a_closed_one_waiting() -> None:
    gathering = batch()
    gathering.add(Event(Mask.MODIFY, "open"), 0.0)
    gathering.add(Event(Mask.CLOSE_WRITE, "closed"), 0.001)
    assert gathering.take(0.006) == [updated("closed")]
    assert gathering.due_in(0.006) == pytest.approx(WRITING_S - 0.006)
    assert gathering.take(WRITING_S) == [updated("open")]


def test_the_last_of_several_changes_counts() -> None:
    gathering = batch()
    for mask in (Mask.CLOSE_WRITE, Mask.DELETE, Mask.MOVED_TO, Mask.MOVED_FROM):
        gathering.add(Event(mask, "a"), 0.0)
    assert gathering.take(0.01) == [deleted("a")]


def test_scans_inside_of_a_scan_are_left_out() -> None:
    gathering = batch()
    for ref in ("a/b", "a", "a/b/c", "ab", "out"):
        gathering.add(Event(Mask.CREATE | Mask.ISDIR, ref), 0.0)
    gathering.add(Event(Mask.CLOSE_WRITE, "x.tmp"), 0.0)
    assert gathering.take(0.01) == [scan("a/"), scan("ab/")]


def test_a_storm_makes_few_batches_and_a_pause_makes_them_quick_again() -> None:
    gathering, taken, now = batch(), 0, 0.0
    while now < 5.0:
        gathering.add(Event(Mask.CLOSE_WRITE, f"f{round(now * 2000) % 100}"), now)
        if gathering.due_in(now) <= 0:
            gathering.take(now)
            taken += 1
        now += 0.0005
    assert taken <= 5 / STORM_STEP_S + 10
    gathering.take(now)
    gathering.add(Event(Mask.CLOSE_WRITE, "a"), now + 1)
    gathering.take(now + 1.1)
    gathering.add(Event(Mask.CLOSE_WRITE, "a"), now + 2)
    assert gathering.due_in(now + 2) == pytest.approx(0.005)


def test_what_came_due_while_the_last_batch_was_worked_on_is_announced_without_another_event(
    root: Path, connector: FilesystemConnector
) -> None:
    stop = threading.Event()
    batches = iter(connector.watch(stop, step_ms=1))
    next(batches)  # the scan it begins with
    with (root / "open.txt").open("w") as being_written:
        being_written.write("not closed yet")
        being_written.flush()
        (root / "closed.txt").write_text("closed")
        assert [change.object_ref for change in next(batches)] == ["closed.txt"]
        stop.wait(3 * WRITING_S)  # the bus takes its time; meanwhile the open file comes due
        guard = threading.Timer(PATIENCE_S, stop.set)  # a watch that sleeps for ever would hang the test
        guard.start()
        assert [change.object_ref for change in next(batches, list[Change]())] == ["open.txt"]
        guard.cancel()
    stop.set()
