"""The plots of README.md, written by hand: small files that read well on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from xml.etree import ElementTree

from benchmarks.result import number
from benchmarks.timing import quantile

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .limit { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 4; }
  .back { fill: #ffffff; }
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
  .s0 { stroke: #0969da; } .s1 { stroke: #bc4c00; }
  .f0 { fill: #0969da; } .f1 { fill: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; } .small { fill: #9198a1; } .grid { stroke: #3d444d; } .limit { stroke: #9198a1; }
    .back { fill: #0d1117; }
    .s0 { stroke: #4493f8; } .s1 { stroke: #f0883e; }
    .f0 { fill: #4493f8; } .f1 { fill: #f0883e; }
  }
"""

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 64, 52


def cumulative(
    title: str,
    series: Mapping[str, Sequence[float]],
    limits: Sequence[tuple[float, str]] = (),
    *,
    axis: str = "milliseconds from the change until it is seen",
) -> str:
    """The share of events (upwards) that took so many milliseconds at most (to the right, logarithmic), one line per system.

    `limits` are upright lines with their names, `axis` says what took the milliseconds.
    """
    values = [value for one in series.values() for value in one] + [limit for limit, _name in limits]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))

    def across(value: float) -> float:
        return _LEFT + (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low)) * (_WIDTH - _LEFT - _RIGHT)

    parts = [*_share_axis(), *_time_axis(low, high, across, axis)]
    for limit, name in limits:
        x = across(limit)
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(_text(x, _TOP - 6, name, "small", "middle"))
    foot = _HEIGHT - _BOTTOM
    parts.append(f'<rect class="back" x="{_WIDTH - 308}" y="{foot - 64}" width="280" height="{20 * len(series) + 10}"/>')
    for at, (name, times) in enumerate(series.items()):
        ordered = sorted(times)
        points = [(across(value), _up((rank + 1) / len(ordered))) for rank, value in enumerate(ordered)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(points[0][0], _up(0)), *points])
        parts.append(f'<polyline class="line s{at}" points="{path}"/>')
        label = f"{name}: p50 {number(quantile(times, 0.5))} ms, p95 {number(quantile(times, 0.95))} ms"
        parts.append(f'<rect class="f{at}" x="{_WIDTH - 300}" y="{foot - 56 + 20 * at}" width="12" height="12"/>')
        parts.append(_text(_WIDTH - 282, foot - 45 + 20 * at, label))
    return _page(title, parts, _HEIGHT)


def bars(title: str, values: Mapping[str, float], unit: str, note: str) -> str:
    """One bar per system, its length the value, with the value written beside it; the first, ours, in a colour of its own."""
    most, row, name_width = max(values.values()), 40, max(160, round(7.2 * max(map(len, values))) + 24)
    height = _TOP + row * len(values) + 44
    parts: list[str] = []
    for at, (name, value) in enumerate(values.items()):
        y = _TOP + at * row
        width = max(2.0, value / most * (_WIDTH - name_width - 130))
        parts.append(_text(name_width - 10, y + 17, name, anchor="end"))
        parts.append(f'<rect class="f{min(at, 1)}" x="{name_width}" y="{y}" width="{width:.1f}" height="24" rx="3"/>')
        parts.append(_text(name_width + width + 8, y + 17, f"{number(round(value))} {unit}"))
    parts.append(_text(name_width, height - 20, note, "small"))
    return _page(title, parts, height)


def _share_axis() -> list[str]:
    parts: list[str] = []
    for share in (0, 0.25, 0.5, 0.75, 0.95, 1):
        y = _up(share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if share != 0.95:
            parts.append(_text(_LEFT - 8, y + 4, f"{share:.0%}", "small", "end"))
    parts.append(_text(_WIDTH - _RIGHT, _up(0.95) + 14, "95%", "small", "end"))
    return parts


def _time_axis(low: float, high: float, across: Callable[[float], float], name: str) -> list[str]:
    parts: list[str] = []
    foot = _HEIGHT - _BOTTOM
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        for step in (1, 2, 5):
            value = step * 10**power
            if value > high:
                continue
            x = across(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{foot}" y2="{foot + 5}"/>')
            parts.append(_text(x, foot + 19, f"{value:g}", "small", "middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, _HEIGHT - 12, name, "small", "middle"))
    return parts


def _up(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(title: str, parts: Sequence[str], height: int) -> str:
    shown = escape(title)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{shown}">'
    back = f'<rect class="back" width="{_WIDTH}" height="{height}" rx="6"/>'
    page = "\n".join([head, f"<style>{_STYLE}</style>", back, _text(20, 28, title, "title"), *parts, "</svg>"]) + "\n"
    ElementTree.fromstring(page)  # a plot that is not well-formed is not written
    return page
