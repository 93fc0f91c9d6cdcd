"""Worlds and reports as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sourcebus.simulation.report import Freshness, Report, SourceReport
from sourcebus.simulation.sweep import SweepReport
from sourcebus.simulation.world import SimSource, World

Row = Sequence[str]


def _table(head: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )


def _span(ms: float) -> str:
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= 1.5 * size:
            return f"{ms / size:.1f} {unit}"
    return f"{ms:.0f} ms"


def _times(freshness: Freshness) -> list[str]:
    if not freshness.arrived:
        return ["-", "-", "-", str(freshness.missing)]
    return [_span(ms) for ms in (freshness.p50_ms, freshness.p95_ms, freshness.max_ms)] + [str(freshness.missing)]


def shown_world(world: World) -> str:
    """What there is and what will go wrong."""
    head = ["source", "objects", "changes/h", "webhooks", "poll", "extraction", "quota", "true rate"]
    lines = [
        f"world {world.seed}: {_span(world.duration_ms)}, {world.slots} slots",
        "",
        _table(head, list(map(_source_row, world.sources))),
    ]
    if world.happenings:
        lines.append("")
    for one in world.happenings:
        rest = {name: getattr(one, name) for name in one.__slots__ if name != "at_ms"}
        said = ", ".join(f"{name} {getattr(value, 'id', value)}" for name, value in rest.items())
        lines.append(f"{_span(one.at_ms):>9}  {type(one).__name__}: {said}")
    return "\n".join(lines) + "\n"


def _source_row(source: SimSource) -> Row:
    quota = source.quota
    shared = f" in {quota.bucket}" if quota.bucket else ""
    rate = "free" if quota.rate is None else f"{quota.rate:.2f}/s +{quota.burst:g}"
    return [
        source.id,
        str(source.objects),
        f"{source.changes_per_hour:.0f}",
        "none" if source.webhooks is None else f"{1 - source.webhooks.lost:.0%}",
        _span(source.poll_ms) if source.poll_ms else "none",
        _span(source.extract.median_ms),
        f"{rate}, {quota.concurrency} at once{shared}",
        "as said" if source.true_rate is None else f"{source.true_rate:.2f}/s",
    ]


def shown_report(report: Report, real_s: float) -> str:
    """Freshness, where time went, and whether every promise was kept."""
    head = ["source", "changes", "looked", "429", "failed", "dead", "fresh p50", "p95", "max", "missing", "waited for"]
    rows = [_report_row(source) for source in report.sources]
    speed = report.virtual_ms / 1000 / max(real_s, 0.001)
    lines = [
        _table(head, rows),
        "",
        f"slots {report.slot_busy:.0%} busy · {report.calls:,} calls to the bus · {_span(report.virtual_ms)} in {real_s:.1f} s"
        f" ({speed:,.0f} times real time)",
        f"{report.lines:,} steps, trace {report.trace_sha256}",
    ]
    small = [source.id for source in report.sources if source.quota_too_small]
    if small:
        lines.append(f"quota too small: {', '.join(small)}")
    lines += [f"BROKEN promise {one.promise} at {one.at_ms / 1000:.3f} s: {one.what}" for one in report.broken]
    return "\n".join([*lines, "" if report.broken else "every promise was kept"])


def _report_row(source: SourceReport) -> Row:
    counts = (source.changes, source.looked, source.throttled, source.failed, source.dead)
    total = sum(source.waits_ms.values())
    parts = sorted(source.waits_ms.items(), key=lambda part: -part[1])
    waited = ", ".join(f"{reason} {ms / total:.0%}" for reason, ms in parts if ms >= total / 100) if total else "-"
    return [source.id, *map(str, counts), *_times(source.freshness), waited]


def shown_sweep(swept: SweepReport, report: Report) -> str:
    """The sweep's freshness beside the bus's."""
    mine = {source.id: source.freshness for source in report.sources}
    rows = [[name, *_times(mine[name])[:3], *_times(swept.sources[name])[:3]] for name in swept.sources]
    head = ["source", "bus p50", "p95", "max", "sweep p50", "p95", "max"]
    return f"\n{_table(head, rows)}\n\n{swept.sweeps} sweeps, the longest took {_span(swept.longest_ms)}"
