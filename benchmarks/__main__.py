"""``python -m benchmarks [bus|intake|render] [--quick] [--only NAME]...``: measure, show, write down."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from types import FrameType

from rich.table import Table as Shown

from benchmarks import publish
from benchmarks.machine import Theft, facts
from benchmarks.progress import console
from benchmarks.result import Result

_DESCRIPTION = "Measure what sourcebus promises, beside what others reach in the same run."

BUS = ("starvation", "dispatch", "semantics", "latency", "stream", "scale", "memory", "emit", "neighbours")
INTAKE = ("receive", "reach", "lossy", "sharepoint")


def main(arguments: list[str]) -> int:
    """0: every goal was met (or the run was quick), 1: one was missed, 130: stopped by Ctrl-C."""
    given = _parse(arguments)
    if given.what == "render":
        publish.render()
        return 0
    signal.signal(signal.SIGTERM, _as_interrupt)
    names = given.only or {"bus": BUS, "intake": INTAKE}.get(given.what, publish.ORDER)
    results: list[Result] = []
    try:
        for at, name in enumerate(names, 1):
            console.print(f"[bold]{name}[/bold] ({at} of {len(names)})", highlight=False)
            machine, theft = facts(), Theft()
            result: Result = import_module(f"benchmarks.{name}").run(given.quick)
            publish.store(result, machine | {"stolen_percent": theft.percent()}, quick=given.quick)
            console.print(_shown([result]))
            results.append(result)
    except KeyboardInterrupt:
        console.print("stopped; everything that was started has ended", style="yellow")
        return 130
    if len(results) > 1:
        console.print(_shown(results))
    _publish(quick=given.quick)
    missed = any(goal.met is False for result in results for goal in result.goals)
    return int(missed and not given.quick)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_DESCRIPTION)
    parser.add_argument(
        "what", nargs="?", choices=("all", "bus", "intake", "render"), default="all", help="bus, intake: only of these"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, a minute or two; nothing is published")
    parser.add_argument("--only", action="append", choices=publish.ORDER, help="only this one; may be repeated")
    return parser.parse_args(arguments)


def _shown(results: list[Result]) -> Shown:
    made = publish.goal_table(results)
    shown = Shown(title=results[0].title if len(results) == 1 else "All goals", title_justify="left")
    for column in made.columns:
        shown.add_column(column, justify="right" if column in ("goal", "measured", "margin") else "left")
    for row in made.rows:
        *cells, verdict = (str(cell) for cell in row)
        style = {"pass": "green", "**miss**": "bold red"}.get(verdict, "yellow")
        shown.add_row(*cells, f"[{style}]{verdict.strip('*')}[/{style}]")
    return shown


def _publish(*, quick: bool) -> None:
    if quick:
        shown = publish.SMOKE.relative_to(publish.FOLDER.parent)
        console.print(f"written to {shown}; a quick run is too small to judge by, README.md was left as it is", style="dim")
        return
    publish.render()
    console.print(f"written to {publish.LATEST.relative_to(publish.FOLDER.parent)} and benchmarks/README.md", style="dim")


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
