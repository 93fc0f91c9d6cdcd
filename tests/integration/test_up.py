"""`sourcebus up` for real: one command, a folder, and everything that can be done to it."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

CHILDREN = {
    "valkey": "valkey-server",
    "gateway": "sourcebus gateway",
    "worker": "sourcebus.worker worker",
    "beat": "sourcebus.worker beat",
    "watcher": "sourcebus watch",
}


class Up:
    """One `sourcebus up` on a folder of its own, and the commands of a second shell beside it."""

    def __init__(self, base: Path) -> None:
        self.base, self.notes, self.data = base, base / "notes", base / "sourcebus-data"
        self.out = base / "up.out"
        self.notes.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sourcebus", "up", "--watch", "notes", "--port", "0", *flags],
                cwd=self.base, env=clean(), stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        until(lambda: "sourcebus is up" in self.said() or self.process is None or self.process.poll() is not None, self.said)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.out.read_text("utf-8", "replace")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return command(self.base, *words)

    def found(self, words: str) -> set[str]:
        done = self.run("search", words, "--limit", "1000", "--json")
        return {hit["object_ref"] for hit in json.loads(done.stdout)["hits"]} if done.returncode == 0 else set()

    def until_verified(self, source: str = "notes") -> None:
        until(
            lambda: self.run("verify", source).returncode == 0,
            lambda: self.run("verify", source).stdout + self.said(),
            every_s=0.3,
        )

    def pid_of(self, name: str) -> int | None:
        assert self.process is not None
        for pid, parent, args in processes():
            if parent == self.process.pid and CHILDREN[name] in args:
                return pid
        return None

    def family(self) -> set[int]:
        """The supervisor and everything below it."""
        assert self.process is not None
        return below(self.process.pid)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sourcebus", *words]
    return subprocess.run(line, cwd=cwd, env=clean(), capture_output=True, text=True, check=False, timeout=120)


def clean() -> dict[str, str]:
    """An environment without settings but one: what a killed worker held is free again sooner than after 30 s."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SOURCEBUS_")}
    return plain | {"SOURCEBUS_LEASE_MS": "3000"}


def processes() -> list[tuple[int, int, str]]:
    done = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in done.stdout.splitlines()]
    return [(int(pid), int(parent), args) for pid, parent, stat, args in rows if not stat.startswith("Z")]


def below(pid: int) -> set[int]:
    """The process and all that it started, and they."""
    family, everyone = {pid}, processes()
    while new := {child for child, parent, _ in everyone if parent in family} - family:
        family |= new
    return family


def alive(pids: set[int]) -> set[int]:
    return pids & {pid for pid, _, _ in processes()}


def until(condition: Callable[[], object], explain: Callable[[], str], *, within_s: float = 90, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(every_s)


def write(folder: Path, names: Sequence[str], text: str) -> None:
    for name in names:
        (folder / name).write_text(f"{text} in {name}\n")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"))
    write(up.notes, [f"first-{i}.txt" for i in range(50)], "heron")
    up.start()
    yield up
    if up.process is not None and up.process.poll() is None:
        up.stop(signal.SIGTERM)


# -- a running one


def test_a_change_is_searchable_and_explained(up: Up) -> None:
    up.until_verified()
    assert len(up.found("heron")) == 50
    (up.notes / "first-0.txt").write_text("a kingfisher")
    (up.notes / "first-1.txt").unlink()
    (up.notes / "line\nbreak \x1b[31m.txt").write_text("odd kingfisher")
    until(lambda: len(up.found("kingfisher")) == 2 and len(up.found("heron")) == 48, up.said)
    shown = up.run("search", "odd").stdout
    assert "line\\nbreak \\x1b[31m.txt" in shown and "\x1b[31m." not in shown
    assert "indexed" in up.run("why", "notes", "first-0.txt").stdout
    assert "deleted" in up.run("why", "notes", "first-1.txt").stdout


def test_other_commands_find_it(up: Up) -> None:
    (row,) = json.loads(up.run("status", "--json").stdout)["items"]
    assert row["id"] == "notes" and row["indexed"] >= 48
    elsewhere = command(up.base.parent, "source", "list", "--json", "--data", str(up.data))
    (source,) = json.loads(elsewhere.stdout)["items"]
    assert source["config"]["root"] == str(up.notes)
    until(lambda: up.run("doctor").returncode == 0, lambda: up.run("doctor").stdout)
    assert json.loads(up.run("dlq", "list", "--json").stdout)["items"] == []
    assert json.loads(up.run("subscriptions", "--json").stdout)["items"] == []
    assert "SOURCEBUS_PUBLIC_URL" in up.run("subscriptions").stderr
    assert up.run("source", "drop", "notes").stdout == "kept 0 objects of notes\n"
    shown = json.loads(up.run("source", "show", "notes", "--json").stdout)
    assert shown["staleness_bound_s"] > shown["staleness"]["scan_s"]


def test_sources_are_added_changed_paused_and_removed(up: Up) -> None:
    other = up.base / "other"
    other.mkdir()
    (other / "a.md").write_text("an otter")
    (other / "b.log").write_text("an otter too")
    added = up.run("source", "add", "more", "filesystem", "root=other", 'include=["*.md"]', "--rate", "50", "--burst", "10")
    assert added.returncode == 0, added.stderr
    up.until_verified("more")
    assert up.found("otter") == {"a.md"}
    assert up.run("source", "add", "more", "filesystem", "root=other").returncode == 1
    assert up.run("source", "set", "more", "--rate", "unlimited", "--concurrency", "3", "include=null").returncode == 0
    assert up.run("source", "set", "more", "--reconcile-interval-s", "7200").returncode == 0
    quota = json.loads(up.run("source", "show", "more", "--json").stdout)["quota"]
    assert (quota["rate"], quota["concurrency"]) == (None, 3)
    until(lambda: up.found("otter") == {"a.md", "b.log"}, up.said)
    assert up.run("source", "pause", "more").returncode == 0
    assert up.run("source", "resume", "more").returncode == 0
    assert up.run("emit", "more", "a.md").stdout.startswith("1 accepted")
    first, second = up.run("refresh", "more"), up.run("refresh", "more")
    assert (first.returncode, second.returncode) == (0, 1)
    assert "possible in" in second.stderr
    assert up.run("source", "remove", "more").returncode == 2, "nobody is there to ask"
    assert up.run("source", "remove", "more", "--yes").returncode == 0
    assert up.found("otter") == set()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["status", "nobody"], "nobody"),
        (["why", "nobody", "x"], "nobody"),
        (["verify", "nobody"], "nobody"),
        (["emit", "notes"], "REF"),
        (["emit", "notes", "x", "--kind", "exploded"], "change_kind"),
        (["emit", "--file", "missing.json"], "--file"),
        (["source", "add", "x", "filesystem"], "root"),
        (["source", "add", "x", "carrier-pigeon"], "filesystem"),
        (["source", "add", "x", "filesystem", "root"], "KEY=VALUE"),
        (["source", "add", "x", "filesystem", "root=notes", "--rate", "fast"], "--rate"),
        (["source", "set", "notes"], "nothing to change"),
        (["source", "drop", "nobody"], "nobody"),
        (["dlq", "replay"], "--all"),
        (["dlq", "drop", "nothing"], "dead letter"),
        (["gateway", "--host", "0.0.0.0"], "--host"),
        (["up", "--watch", "missing"], "--watch"),
        (["search"], "WORDS"),
        (["fly"], "fly"),
    ],
)
def test_wrong_usage_is_named(up: Up, words: list[str], names: str) -> None:
    done = up.run(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert names in done.stderr and "Traceback" not in done.stderr


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    assert up.process is not None
    done = up.run("up", "--port", "0")
    assert done.returncode == 1
    assert f"pid {up.process.pid}" in done.stderr


def test_a_taken_port_is_said_before_anything_starts(up: Up, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(tmp_path, "up", "--port", str(port))
    assert done.returncode == 1
    assert f"--port {port + 1}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CHILDREN)
def test_any_process_may_be_killed_while_indexing(up: Up, name: str) -> None:
    fresh = [f"{name}-{i}.txt" for i in range(400)]
    write(up.notes, fresh, f"plover{name}")
    until(lambda: up.found(f"plover{name}"), up.said)
    victim = up.pid_of(name)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    write(up.notes, fresh[:100], f"dunlin{name}")
    for gone in fresh[100:150]:
        (up.notes / gone).unlink()
    write(up.notes, [f"{name}-late-{i}.txt" for i in range(50)], f"dunlin{name}")
    until(lambda: up.pid_of(name) not in (None, victim), up.said)
    assert f"{name} was killed by SIGKILL" in up.said()
    up.until_verified()
    assert len(up.found(f"plover{name}")) == 250
    assert len(up.found(f"dunlin{name}")) == 150


def test_ctrl_c_stops_everything(up: Up) -> None:
    """The last one on this `up`."""
    family = up.family()
    assert len(family) >= 9  # supervisor, guard, five processes, a pool of two
    assert up.stop(signal.SIGINT) == 0, up.said()
    until(lambda: not alive(family), lambda: str(alive(family)), within_s=5)
    still = up.run("search", "kingfisher")
    assert "first-0.txt" in still.stdout, "what is indexed can be searched while it is stopped"
    gone = up.run("emit", "notes", "first-0.txt")
    assert gone.returncode == 1
    assert "sourcebus up" in gone.stderr and "Traceback" not in gone.stderr


# -- others


def test_a_killed_supervisor_leaves_nobody_and_the_next_start_goes_on(tmp_path: Path) -> None:
    up = Up(tmp_path)
    write(up.notes, [f"n{i}.txt" for i in range(600)], "curlew")
    up.start()
    family = up.family()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    write(up.notes, ["n0.txt"], "lapwing")
    (up.notes / "n1.txt").unlink()
    up.start()  # at once: it waits for the old server to end
    until(lambda: not alive(family), lambda: str(alive(family)), within_s=20)
    up.until_verified()
    assert up.found("lapwing") == {"n0.txt"} and len(up.found("curlew")) == 598
    assert len(json.loads(up.run("source", "list", "--json").stdout)["items"]) == 1, "the folder is the same source"
    assert up.stop(signal.SIGTERM) == 0


def test_its_own_data_is_left_out_of_a_watched_folder(tmp_path: Path) -> None:
    up = Up(tmp_path)
    (tmp_path / "notes" / "a.txt").write_text("a sandpiper")
    up.data = tmp_path / "notes" / "kept here"
    up.start("--data", "notes/kept here")  # a name that no URL takes as it is
    until(lambda: command(tmp_path, "verify", "notes", "--data", str(up.data)).returncode == 0, up.said)
    listed = command(tmp_path, "status", "--json", "--data", str(up.data))
    assert json.loads(listed.stdout)["items"][0]["indexed"] == 1
    assert up.stop() == 0


def test_it_stops_in_the_middle_of_a_long_first_listing_and_goes_on_later(tmp_path: Path) -> None:
    up = Up(tmp_path)
    for number in range(3000):
        (up.notes / f"n{number}.txt").write_text(f"whimbrel {number}\n" * 20)
    up.start()
    assert up.stop() == 0
    up.start()
    up.until_verified()
    until(lambda: "objects are searchable" in up.said(), up.said)
    shown = re.search(r"up in ([\d.]+) s", up.said())
    assert shown and float(shown[1]) < 10
    assert up.stop() == 0


def test_the_version_is_the_installed_one(tmp_path: Path) -> None:
    assert command(tmp_path, "--version").stdout == f"sourcebus {version('sourcebus')}\n"


def test_a_server_that_is_not_there_ends_it_with_its_address(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    done = command(tmp_path, "up", "--watch", "notes", "--port", "0", "--redis-url", "redis://127.0.0.1:1")
    assert done.returncode == 1
    assert "redis://127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr


def test_nothing_has_run_here(tmp_path: Path) -> None:
    done = command(tmp_path, "status")
    assert done.returncode == 1
    assert "sourcebus up" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick(tmp_path: Path) -> None:
    """In processor time, which other work on the machine does not change: nothing heavy may be imported for it."""
    assert command(tmp_path, "--help").returncode == 0  # compiled from here on
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert command(tmp_path, "--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1) to give it a terminal")
def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """Through a pseudo-terminal, where the key reaches the whole foreground group."""
    (tmp_path / "notes").mkdir()
    # exec: a shell that stayed would end by the same key, and its exit code would hide ours.
    line = f"exec {sys.executable} -m sourcebus up --watch notes --port 0"
    process = subprocess.Popen(
        ["script", "-qfec", line, str(tmp_path / "typescript")],
        cwd=tmp_path,
        env=clean(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    shown = tmp_path / "typescript"
    try:
        until(lambda: shown.exists() and b"sourcebus is up" in shown.read_bytes(), lambda: shown.read_text("utf-8", "replace"))
        family = below(process.pid)
        assert len(family) >= 9
        assert process.stdin is not None
        process.stdin.write(b"\x03")
        process.stdin.flush()
        process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0, shown.read_text("utf-8", "replace")
    until(lambda: not alive(family), lambda: str(alive(family)), within_s=5)
