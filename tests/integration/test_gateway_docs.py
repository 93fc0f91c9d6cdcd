"""docs/api.md: its examples are sent as they stand, and they are all the calls and all the problems that there are."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from sourcebus.bus import Settle
from sourcebus.gateway.problems import TITLES
from sourcebus.model import SourceChanged
from sourcebus.runtime import Runtime

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
EXAMPLES: list[tuple[str, str]] = re.findall(r"```http\n(.*?)```\n→ ([^\n]*)", PAGE, flags=re.S)


def send(http: httpx.Client, example: str) -> httpx.Response:
    head, _, body = example.strip().partition("\n\n")
    line, *headers = head.splitlines()
    method, address = line.split(" ")
    sent = dict(header.split(": ", 1) for header in headers)
    if body:
        sent.setdefault("Content-Type", "application/json")
    return http.request(method, address, content=body.encode(), headers=sent)


def give_up(runtime: Runtime) -> str:
    """A dead letter of `docs`; answers its id."""
    runtime.sources.resume("docs")
    runtime.bus.emit(SourceChanged("docs", "broken.pdf"))
    runtime.bus.nack(runtime.bus.claim(100).leases, "broken", how=Settle.HOPELESS)
    return runtime.bus.dead_letters("docs")[-1].id


def test_every_example_is_answered_as_it_says(http: httpx.Client, runtime: Runtime, folder: Path) -> None:
    for example, promised in EXAMPLES:
        letter = give_up(runtime) if "LETTER" in example else ""
        answer = send(http, example.replace("/srv/docs", str(folder)).replace("LETTER", letter))
        assert str(answer.status_code) in re.findall(r"\b[2-5]\d\d\b", promised), f"{example}\n{answer.text}"


def test_every_call_has_its_example(http: httpx.Client) -> None:
    lines = [example.splitlines()[0] for example, _ in EXAMPLES]
    shown = [(method, address.partition("?")[0]) for method, _, address in (line.partition(" ") for line in lines)]
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        for method in methods:
            assert any(one == method.upper() and pattern.fullmatch(address) for one, address in shown), f"{method} {path}"


def test_the_table_of_problems_is_complete() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \| (\d+) \|$", PAGE, flags=re.M) == [
        (name, str(int(status))) for name, (status, _) in TITLES.items()
    ]
