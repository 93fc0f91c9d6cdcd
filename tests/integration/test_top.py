"""`sourcebus top` as a process: over a real server with a source in each state, in a pipe and in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from sourcebus import Bus, Quota, SourceChanged
from sourcebus.bus import Settle
from sourcebus.runtime import Runtime
from sourcebus.settings import Settings
from sourcebus.testing import running_server

WHY = {
    "cap": r"● running; at its cap of 2",
    "held": r"■ paused by a person",
    "idle": r"○ nothing to do",
    "pause": r"◷ provider said wait, \d+ min",
    "ready": r"△ ready, no worker is free",
    "tokens": r"◷ waits for tokens, \d+ min",
    "window": r"◷ window or back-off, \d+ min",
}


def fill(bus: Bus) -> None:
    """A source in every state that a live consumer leaves, and `ready` with all of them busy."""
    hour_ms = 3_600_000
    bus.register("tokens", quota=Quota(rate=1 / 3_000, burst=1), window_ms=0)
    bus.register("cap", quota=Quota(concurrency=2))
    bus.register("pause")
    bus.register("window", window_ms=3_000_000)
    bus.register("idle")
    bus.register("held", paused=True)
    for name in ("tokens", "cap", "pause", "window", "held"):
        bus.emit([SourceChanged(name, f"o{i}") for i in range(1 if name == "window" else 4)])
    while leases := bus.claim(1, consumer="c", lease_ms=hour_ms).leases:
        (lease,) = leases
        if lease.source_id == "pause":
            bus.nack(leases, how=Settle.THROTTLED, wait_ms=3_000_000)
        elif lease.source_id != "cap":
            bus.ack(leases)
    bus.emit(SourceChanged("window", "o0"))
    bus.register("ready")
    bus.emit(SourceChanged("ready", "o"))


def environment(settings: Settings, redis_url: str | None = None) -> dict[str, str]:
    """What a shell has set that speaks to this installation. The size is the terminal's own (pytest-xdist sets another)."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SOURCEBUS_", "COLUMNS", "LINES"))}
    return plain | {
        "SOURCEBUS_REDIS_URL": redis_url or settings.redis_url,
        "SOURCEBUS_DATABASE_URL": settings.database_url,
        "SOURCEBUS_BUS_NAME": settings.bus_name,
        "SOURCEBUS_DATA_DIR": str(settings.data_dir / "none"),
        "TERM": "xterm-256color",
    }


def top(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sourcebus", "top", "--every", "0.2", *words]
    return subprocess.run(line, env=environment(settings), capture_output=True, text=True, check=False, timeout=60)


# -- in a pipe


def test_once_shows_every_source_and_why(runtime: Runtime, settings: Settings) -> None:
    fill(runtime.bus)
    done = top(settings, "--once")
    assert done.returncode == 0, done.stderr
    for name, words in WHY.items():
        assert re.search(rf"^{name}  +{words}", done.stdout, re.M), f"{name}: {done.stdout}"
    assert "1 worker seen, none free · 7 sources" in done.stdout and "429s 1" in done.stdout
    assert "\x1b" not in done.stdout


def test_without_workers_it_says_so_and_gates_stay_gates(runtime: Runtime, settings: Settings) -> None:
    runtime.bus.register("lacking")
    runtime.bus.emit(SourceChanged("lacking", "o"))
    runtime.bus.register("held", paused=True)
    runtime.bus.emit(SourceChanged("held", "o"))
    done = top(settings, "--once")
    assert "NO WORKER IS RUNNING" in done.stdout
    assert re.search(r"^lacking  +▲ ready, no worker is running", done.stdout, re.M), done.stdout
    assert re.search(r"^held  +■ paused by a person", done.stdout, re.M)


def test_status_and_the_page_use_the_same_words(runtime: Runtime, settings: Settings) -> None:
    fill(runtime.bus)
    stats = {one.source_id: one for one in runtime.bus.stats(sorted(WHY)) if one}
    for name, words in WHY.items():
        assert re.fullmatch(words.partition(" ")[2], stats[name].why)
    folder = settings.data_dir / "folder"
    folder.mkdir()
    runtime.sources.add(runtime.sources.parse({"id": "shown", "connector": "filesystem", "config": {"root": str(folder)}}))
    runtime.bus.pause("shown")
    assert runtime.desk.status(["shown"])[0]["why"] == "paused by a person"
    line = [sys.executable, "-m", "sourcebus", "status"]
    done = subprocess.run(line, env=environment(settings), capture_output=True, text=True, check=True, timeout=60)
    assert "paused by a person" in done.stdout


def test_json_and_a_pattern(runtime: Runtime, settings: Settings) -> None:
    fill(runtime.bus)
    found = json.loads(top(settings, "--json", "--source", "[ct]*").stdout)
    assert {item["id"]: item["reason"] for item in found["items"]} == {"cap": "cap", "tokens": "tokens"}
    assert (found["consumers"], found["waiting_consumers"], found["next"]) == (1, 0, None)
    assert all(item["acks_per_s"] == 0 and "waited_ms" in item for item in found["items"])


def test_a_wrong_order_is_wrong_usage(settings: Settings, runtime: Runtime) -> None:
    done = top(settings, "--once", "--sort", "luck")
    assert done.returncode == 2 and "attention" in done.stderr


def test_once_without_a_server_is_not_good(settings: Settings) -> None:
    done = top(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}), "--once")
    assert done.returncode == 1 and "does not" not in done.stdout and "Redis did not take this" in done.stderr


def test_in_a_pipe_it_writes_at_every_look_until_told_to_end(runtime: Runtime, settings: Settings, tmp_path: Path) -> None:
    fill(runtime.bus)
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sourcebus", "top", "--every", "0.2"], env=environment(settings), stdout=file
        )
    try:
        until(lambda: out.read_text("utf-8").count("at its cap of 2") >= 3, lambda: out.read_text("utf-8"))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


# -- in a terminal


def until(condition: Callable[[], object], explain: Callable[[], str], within_s: float = 40) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


class Terminal:
    """A process in a pseudo-terminal of a given size; `shown` is what it has written."""

    def __init__(self, env: dict[str, str], rows: int = 30, columns: int = 100) -> None:
        self.shown = ""
        self._own, theirs = pty.openpty()
        self.resize(rows, columns)
        self._before = termios.tcgetattr(self._own)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sourcebus", "top", "--every", "0.2"],
            env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> None:
        while select.select([self._own], [], [], 0)[0]:
            try:
                self.shown += os.read(self._own, 65_536).decode("utf-8", "replace")
            except OSError:  # the other end is closed
                return

    def until(self, words: str) -> None:
        """Until these words come, from now on."""
        self.read()
        start = len(self.shown)

        def came() -> bool:
            self.read()
            return re.search(words, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown[start:])) is not None

        until(came, lambda: f"{words!r} never came: {self.shown[-3_000:]!r}")

    def type(self, keys: bytes) -> None:
        os.write(self._own, keys)

    def ended_well(self) -> None:
        """By itself, with code 0, and the terminal is as it was: own screen left, cursor shown, modes restored."""

        def over() -> bool:
            self.read()
            return self.process.poll() is not None

        until(over, lambda: "it does not end")
        self.read()
        assert self.process.returncode == 0, self.shown[-2_000:]
        assert self.shown.count("\x1b[?1049h") == self.shown.count("\x1b[?1049l") == 1
        assert self.shown.rfind("\x1b[?25h") > self.shown.rfind("\x1b[?25l")
        assert termios.tcgetattr(self._own) == self._before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)


@pytest.fixture
def terminal(runtime: Runtime, settings: Settings) -> Iterator[Terminal]:
    fill(runtime.bus)
    opened = Terminal(environment(settings))
    yield opened
    opened.close()


def test_live_it_shows_every_state_and_ctrl_c_ends_it(terminal: Terminal, runtime: Runtime) -> None:
    terminal.until(r"tokens +◷ waits for tokens, \d+ min")
    for name, words in WHY.items():
        terminal.until(rf"{name} +{words}")
    runtime.bus.emit(SourceChanged("idle", "o"))
    terminal.until(r"idle +△ ready, no worker is free")
    terminal.type(b"\x03")
    terminal.ended_well()


def test_keys_and_another_size(terminal: Terminal) -> None:
    terminal.until("by attention")
    terminal.type(b"\x1b[A\x1a")  # an arrow key, and Ctrl-Z: nothing
    terminal.type(b"s")
    terminal.until("by name")
    terminal.resize(12, 44)
    terminal.until(r"and \d more: ")
    terminal.type(b"q")
    terminal.ended_well()


def test_a_request_to_end_leaves_the_terminal_in_order(terminal: Terminal) -> None:
    terminal.until("by attention")
    terminal.process.send_signal(signal.SIGTERM)
    terminal.ended_well()


def test_a_server_that_goes_is_told_and_what_was_seen_is_old(settings: Settings, runtime: Runtime) -> None:
    with running_server() as url:
        client = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves **kwargs untyped
        fill(Bus(client, name=settings.bus_name))
        terminal = Terminal(environment(settings, url))
        try:
            terminal.until("bus answers")
            client.shutdown(nosave=True)  # pyright: ignore[reportUnknownMemberType]
            terminal.until(r"THE BUS DOES NOT ANSWER: these figures are [\d.]+ s old")
            terminal.until("these figures are [2-9] s old")
            assert terminal.process.poll() is None, "it goes on trying"
            terminal.type(b"q")
            terminal.ended_well()
        finally:
            terminal.close()
            client.close()
