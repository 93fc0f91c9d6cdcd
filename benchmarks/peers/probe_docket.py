"""pydocket probed: plain, a key, Cooldown, Debounce, RateLimit and ConcurrencyLimit. See `benchmarks.peers.probe`."""

# The peers are only there in the environment that make bench-bus fills:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated

from docket import ConcurrencyLimit, Cooldown, Debounce, Docket, RateLimit, Worker

from benchmarks.peers import probe

_WINDOW = timedelta(seconds=probe.WINDOW_S)
_open: list[Docket] = []


async def plain(key: str, seconds: float) -> None:
    await probe.job_async(key, seconds)


async def cooldown(key: Annotated[str, Cooldown(_WINDOW)], seconds: float) -> None:
    await probe.job_async(key, seconds)


async def debounce(key: Annotated[str, Debounce(_WINDOW)], seconds: float) -> None:
    await probe.job_async(key, seconds)


async def rate(key: Annotated[str, RateLimit(1, per=_WINDOW)], seconds: float) -> None:
    await probe.job_async(key, seconds)


async def cap(key: Annotated[str, ConcurrencyLimit(1)], seconds: float) -> None:
    await probe.job_async(key, seconds)


_TASKS = {"plain": plain, "key": plain, "cooldown": cooldown, "debounce": debounce, "rate": rate, "cap": cap}


def _docket() -> Docket:
    made = Docket("probe", url=probe.URL)
    made.register(_TASKS[probe.FEATURE])
    return made


async def send(key: str, seconds: float) -> None:
    if not _open:
        _open.append(await _docket().__aenter__())
    job_key = key if probe.FEATURE == "key" else None
    await _open[0].add(_TASKS[probe.FEATURE], key=job_key)(key, seconds)


async def _work() -> None:
    async with _docket() as docket, Worker(docket) as worker:
        await worker.run_forever()


if __name__ == "__main__":
    probe.main_async(send, lambda: asyncio.run(_work()))
