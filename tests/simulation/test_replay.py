"""One world, one run: to the byte, whatever ran on the server before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sourcebus.simulation import random_world, schedule, simulate, sweep
from sourcebus.simulation.__main__ import main


@pytest.mark.parametrize("seed", [10, 36])
def test_the_same_seed_gives_the_same_trace(seed: int, url: str):
    lines: list[list[str]] = [[], []]
    first = simulate(random_world(seed), url, trace=lines[0].append)
    again = simulate(random_world(seed), url, trace=lines[1].append)
    assert lines[0] == lines[1]
    assert first == again
    assert first.lines == len(lines[0])
    for line in lines[0]:
        assert {"at", "did"} <= json.loads(line).keys()


def test_worlds_and_their_changes_depend_on_the_seed_alone():
    assert random_world(5) == random_world(5)
    assert random_world(5) != random_world(6)
    world = random_world(5)
    for source in world.sources:
        assert schedule(world, source) == schedule(world, source)
    assert sweep(world) == sweep(world)


def test_the_command_replays_a_seed_with_its_trace(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trace = tmp_path / "trace.jsonl"
    assert main(["--seed", "36", "--trace", str(trace), "--sweep", "--redis-url", url]) == 0
    said = capsys.readouterr().out
    assert "every promise was kept" in said
    assert "sweeps, the longest took" in said
    assert json.loads(trace.read_text().splitlines()[0])["did"] == "register"


def test_the_command_runs_many_seeds(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--seeds", "1", "--redis-url", url]) == 0
    assert "1 worlds" in capsys.readouterr().out
