"""Results on disk: the JSON, the plots, and the tables between the markers of README.md, which are made from the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import edits, svg
from benchmarks.result import Cell, Goal, Result, Table, number
from benchmarks.timing import median

FOLDER = Path(__file__).parent
LATEST = FOLDER / "results" / "latest.json"
SMOKE = FOLDER / "out" / "quick.json"
"""Where a quick run goes: its sizes are too small to be published, and git does not look there."""

README = FOLDER / "README.md"
BEGIN, END = "<!-- results: made by `python -m benchmarks`, do not edit -->", "<!-- end of results -->"
ORDER = (
    *("edits", "first_index", "storm"),
    *("starvation", "dispatch", "semantics", "latency", "stream", "scale", "memory", "emit", "neighbours"),
    *("receive", "reach", "lossy", "sharepoint"),
)


def store(result: Result, machine: dict[str, Any], *, quick: bool) -> None:
    """Puts one result in place of an older one of its name; the others stay."""
    path = SMOKE if quick else LATEST
    path.parent.mkdir(exist_ok=True)
    stored = load(path)
    stored[result.name] = {"machine": machine, **_rounded(result.to_json())}
    ordered = {name: stored[name] for name in ORDER if name in stored}
    path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def load(path: Path = LATEST) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _rounded(value: Any) -> Any:
    """Three decimals are more than any of these numbers can tell."""
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {key: _rounded(inner) for key, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]  # JSON
        case list():
            return [_rounded(inner) for inner in value]  # pyright: ignore[reportUnknownVariableType]  # JSON
        case _:
            return value


def render() -> None:
    """Makes the plots and README.md's tables anew from the JSON."""
    stored = load()
    results = {name: Result.from_json(entry) for name, entry in stored.items()}
    plots = _plots(results)
    for name, picture in plots.items():
        (LATEST.parent / name).write_text(picture, "utf-8")
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n\n".join(_sections(stored, results, set(plots)))
    README.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", "utf-8")


def _plots(results: dict[str, Result]) -> dict[str, str]:
    made: dict[str, str] = {}
    if "edits" in results:
        times: dict[str, dict[str, list[float]]] = results["edits"].raw["times_ms"]
        series = {name: [value for values in kinds.values() for value in values] for name, kinds in times.items()}
        limits = [(edits.P50_MS, "goal for p50"), (edits.P95_MS, "goal for p95")]
        made["edits.svg"] = svg.cumulative("From a change in the folder to seeing it in the index", series, limits)
    if "dispatch" in results:
        rates: dict[str, list[float]] = results["dispatch"].raw["consumed"]
        middle = {name: median(values) for name, values in rates.items()}
        ours, *peers = middle.values()
        note = "two worker processes each" + (f"; ours {ours / max(peers):.1f} times the fastest peer" if peers else "")
        made["dispatch.svg"] = svg.bars("No-op events consumed per second", middle, "/s", note)
    return made | {f"{name}.svg": _BUS_PLOTS[name](results[name].raw) for name in _BUS_PLOTS if name in results}


def _neighbours_plot(raw: dict[str, Any]) -> str:
    axis = "milliseconds from the emit until it is claimed, bursts on 200 cold sources"
    return svg.cumulative("Cold sources beside a hot one", raw["burst_claimed_ms"], axis=axis)


_BUS_PLOTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "stream": lambda raw: svg.bars(
        "Events claimed and acknowledged per second, batches of 64", raw["events_per_s"], "/s", "one process, 400 sources"
    ),
    "scale": lambda raw: svg.bars("Server CPU of a claim of 64", raw["claim_server_us"], "µs", "medians, same batch"),
    "memory": lambda raw: svg.bars(
        "Memory per event beyond its own bytes", raw["beyond_own_bytes"], "B", "used_memory, less the object's reference"
    ),
    "emit": lambda raw: svg.bars("Events emitted per second, batches of 100", raw["events_per_s"], "/s", "one process"),
    "neighbours": _neighbours_plot,
    "receive": lambda raw: svg.bars(
        "Signed deliveries received per second",
        {name: median(rates) for name, rates in raw["per_s"].items()},
        "/s",
        "one process",
    ),
}


def _sections(stored: dict[str, Any], results: dict[str, Result], plots: set[str]) -> list[str]:
    sections = [_markdown(goal_table(list(results.values())))]
    for name, result in results.items():
        sections.append(f"### {result.title}")
        if f"{name}.svg" in plots:
            sections.append(f"![{result.title}](results/{name}.svg)")
        sections += [f"{table.title}:\n\n{_markdown(table)}" for table in result.tables]
        if result.notes:
            sections.append("\n".join(f"- {note}" for note in result.notes))
        if corpus := result.raw.get("corpus"):
            sections.append(_corpus(corpus))
        sections.append(_machine(stored[name]["machine"]))
    return sections


def goal_table(results: list[Result]) -> Table:
    """Every goal of these results with what was measured."""
    rows: list[list[Cell]] = []
    for result in results:
        rows += [[result.name, goal.what, *_goal_cells(goal)] for goal in result.goals]
    return Table("", ["benchmark", "what", "goal", "measured", "margin", ""], rows)


def _goal_cells(goal: Goal) -> list[Cell]:
    limit = f"{'≤' if goal.sense == 'at most' else '≥'} {goal.limit:g} {goal.unit}".strip()
    if goal.measured is None:
        return [limit, "–", "–", f"not measured: {goal.why}"]
    measured = f"{goal.measured:g}" if goal.measured == int(goal.measured) else number(goal.measured)
    margin = "" if goal.margin is None else f"{number(goal.margin)} ×"
    return [limit, f"{measured} {goal.unit}".strip(), margin, "pass" if goal.met else "**miss**"]


def _markdown(table: Table) -> str:
    def cell(value: Cell) -> str:
        return "" if value is None else value if isinstance(value, str) else number(value)

    lines = [table.columns, ["---"] * len(table.columns), *([cell(value) for value in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _corpus(facts: dict[str, Any]) -> str:
    suffixes = ", ".join(f"{count:,} {suffix}" for suffix, count in facts["suffixes"].items())
    return (
        f"The corpus of this run: {facts['files']:,} files in {facts['folders']:,} folders, {facts['megabytes']} MB; half of "
        f"them below {facts['median_bytes']:,} bytes, 95 % below {facts['p95_bytes']:,}; {suffixes}; SHA-256 {facts['sha256']}…"
    )


def _machine(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    stolen = facts.get("stolen_percent")
    busy = "" if stolen is None else f", taken by the host for others meanwhile {stolen:g} %"
    return (
        f"*{facts['at']}: {facts['cpus']} × {facts['cpu']}, {facts['memory_gib']} GiB, {facts['system']}, "
        f"Python {facts['python']}, SQLite {facts['sqlite']}, {facts['server']}, {packages}; "
        f"load before the run {facts['load_before']}{busy}.*"
    )
