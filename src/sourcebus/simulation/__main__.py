"""``python -m sourcebus.simulation``: runs seeds, prints what broke and how to see it again. Exit code 1 if anything did."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from random import SystemRandom
from typing import TextIO

from sourcebus.bus.embedded import running_server
from sourcebus.simulation import Report, random_world, simulate, sweep
from sourcebus.simulation.show import shown_report, shown_sweep, shown_world


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 every promise was kept, 1 one was not, 2 wrong usage."""
    options = _options(argv)
    with ExitStack() as stack:
        url = options.redis_url or stack.enter_context(running_server())
        if options.seed is not None:
            return _one(options, url)
        return _many(options, url)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m sourcebus.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="run this world and show it in full")
    what.add_argument("--seeds", type=int, metavar="N", help="run the worlds 0 to N-1")
    what.add_argument("--minutes", type=float, help="run new worlds for so long")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="with --seed: write every step to FILE, as JSON lines")
    parser.add_argument("--sweep", action="store_true", help="with --seed: also run a sweep every 10 minutes on the same world")
    parser.add_argument("--redis-url", help="a server to use, under the bus name `simulation`; without: one of its own")
    options = parser.parse_args(argv)
    if options.seed is None and (options.trace or options.sweep):
        parser.error("--trace and --sweep belong to --seed")
    return options


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _writing(path: Path | None) -> Generator[TextIO | None]:
    if path is None:
        yield None
    else:
        with path.open("w", encoding="utf-8") as file:
            yield file


def _one(options: argparse.Namespace, url: str) -> int:
    world = random_world(options.seed)
    _say(shown_world(world))
    with _writing(options.trace) as file:
        began = time.monotonic()
        report = simulate(world, url, trace=file.write if file else None)
    _say(shown_report(report, time.monotonic() - began))
    if options.sweep:
        _say(shown_sweep(sweep(world), report))
    return 0 if report.good else 1


def _seeds(options: argparse.Namespace) -> Iterable[int]:
    if options.seeds is not None:
        yield from range(options.seeds)
        return
    end = time.monotonic() + options.minutes * 60
    first = SystemRandom().randrange(10**9)
    for seed in count(first):
        if time.monotonic() >= end:
            return
        yield seed


def _many(options: argparse.Namespace, url: str) -> int:
    began, virtual_ms, done, bad = time.monotonic(), 0.0, 0, 0
    for seed in _seeds(options):
        report = simulate(random_world(seed), url)
        done, virtual_ms = done + 1, virtual_ms + report.virtual_ms
        if not report.good:
            bad += 1
            _say(failure(report))
        if sys.stdout.isatty():
            sys.stdout.write(f"\r{done} worlds, {bad} bad, at seed {seed} ")
            sys.stdout.flush()
    real_s = time.monotonic() - began
    speed = f"{virtual_ms / 1000 / max(real_s, 0.001):,.0f} times real time"
    _say(f"\r{done} worlds, {virtual_ms / 3_600_000:.1f} virtual hours in {real_s:.0f} s ({speed}), {bad} bad")
    return 1 if bad else 0


def failure(report: Report) -> str:
    """What broke, and how to see it again."""
    lines = [f"seed {report.seed}: replay with `python -m sourcebus.simulation --seed {report.seed} --trace FILE`"]
    lines += [f"  promise {one['promise']} at {one['at_ms'] / 1000:.3f} s: {one['what']}" for one in map(asdict, report.broken)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
