"""The tutorial of the README, typed as it stands: every shell block, in one shell, in order."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from sourcebus.testing.ports import free_ports

ROOT = Path(__file__).parents[2]

EXPECTED = {
    2: "sourcebus is up",
    4: "birds.txt",
    5: "more.md",
    6: "indexed",
    7: "tour",
    8: "no difference",
    9: "pages",
    10: "no difference",
}
"""What the output of a step must show, by its number."""


def steps(port: int, folder: Path) -> dict[int, str]:
    """The shell lines of each step; only the folder and the port are other ones, so that runs do not meet."""
    text = re.search(r"^## Tutorial\n(.*?)^## ", (ROOT / "README.md").read_text("utf-8"), flags=re.S | re.M)
    assert text
    found: dict[int, str] = {}
    for number, body in re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", text[1], flags=re.S | re.M):
        blocks = re.findall(r"^ +```sh\n(.*?)^ +```", body, flags=re.S | re.M)
        found[int(number)] = "".join(blocks).replace("/tmp/tour", str(folder / "tour")).replace("8099", str(port))
    return found


@pytest.mark.skipif(not (ROOT / ".venv" / ".installed").exists(), reason="`make run` would install first: run by make test")
def test_the_tutorial(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    todo = steps(port, tmp_path)
    assert list(todo) == list(range(1, 12))
    script = "".join(f"echo '=== {number}'\n{lines}\n" for number, lines in todo.items())
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SOURCEBUS_", "MAKE", "MFLAGS"))}
    # The steps are a person's: a `make test` around them must not make their `make run` a sub-make of its own.
    shell = subprocess.run(
        ["bash", "-eu"], input=script + "wait\n", cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=170
    )
    shown = shell.stdout + shell.stderr
    assert shell.returncode == 0, shown
    parts = re.split(r"^=== (\d+)\n", shell.stdout, flags=re.M)
    said = {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}
    for number, words in EXPECTED.items():
        # Verdicts are on standard error, which has no steps.
        assert words in said[number] or words in shell.stderr, f"step {number} does not show {words!r}:\n{shown}"
