"""What the numbers were measured on, without saying whose machine it is."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sourcebus.testing import server_binary

_PACKAGES = ("sourcebus", "celery", "redis", "hiredis", "sqlalchemy", "cocoindex")


def facts() -> dict[str, Any]:
    """Processors, memory, versions, and how busy the machine was when the run began."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "server": _server(),
        "packages": {name: found for name in _PACKAGES if (found := installed(name))},
        "load_before": round(os.getloadavg()[0], 1),
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


class Theft:
    """How much processor time the machine's host gave to others since this was made; only Linux counts it."""

    def __init__(self) -> None:
        self._before = self._read()

    @staticmethod
    def _read() -> list[int]:
        try:
            return [int(ticks) for ticks in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
        except OSError:
            return []

    def percent(self) -> float | None:
        spent = [now - before for now, before in zip(self._read(), self._before, strict=True)]
        return round(100 * spent[7] / max(1, sum(spent)), 1) if spent else None


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _server() -> str:
    said = subprocess.run([server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"(\w+) server v=([\d.]+)", said)
    return f"{found[1]} {found[2]}" if found else said.split(" sha=")[0]
