"""The parts of `sourcebus up` that need no process: its data folder, its socket, its checks."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from sourcebus.cli.place import read_instance
from sourcebus.cli.serve import require_loopback
from sourcebus.cli.up.instance import Instance, claim
from sourcebus.cli.up.server import Server
from sourcebus.errors import Conflict, InvalidInput


def test_a_data_folder_is_taken_by_one_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with claim(data):
        assert data.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Conflict, match=f"pid {os.getpid()}"), claim(data):
            pass
    with claim(data):
        pass


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="--data"), claim(tmp_path / "file"):
        pass


def test_the_instance_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCEBUS_SECRET_KEY", raising=False)
    instance = Instance(tmp_path, "unix:///x", "sqlite:///y", "http://127.0.0.1:1")
    key = instance.environment()["SOURCEBUS_SECRET_KEY"]
    assert instance.environment()["SOURCEBUS_SECRET_KEY"] == key, "made once"
    instance.write()
    assert read_instance(tmp_path)["pid"] == os.getpid()
    for name in ("instance.json", "secret.key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    instance.mark_stopped()
    assert read_instance(tmp_path)["redis_url"] == "unix:///x"
    assert "pid" not in read_instance(tmp_path)


@pytest.mark.parametrize("broken", ["", "{", "[1]", json.dumps("x")])
def test_a_broken_instance_is_none(tmp_path: Path, broken: str) -> None:
    (tmp_path / "instance.json").write_text(broken)
    assert read_instance(tmp_path) == {}


@pytest.mark.parametrize("name", ["plain", "with space", "ünïcode", "percent%20", "x" * 120])
def test_the_socket_has_a_path_that_a_socket_can_have(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    data.mkdir()
    server = Server.at(data)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(server.socket))
    server.socket.unlink()
    assert server.socket.parent.stat().st_mode & 0o077 == 0
    assert server.url == f"unix://{server.socket}"
    assert Server.at(data).socket == server.socket, "the same on every start"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_only_this_machine(host: str) -> None:
    with pytest.raises(InvalidInput, match="--host"):
        require_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_is_this_machine(host: str) -> None:
    require_loopback(host)
