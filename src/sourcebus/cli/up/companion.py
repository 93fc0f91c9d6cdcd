"""Beside the supervisor: brings the watched folders in as sources, says when everything is ready, and shows how far a
long first listing is.
"""

from __future__ import annotations

import glob
import hashlib
import http.client
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sourcebus.cli.look import progress_text
from sourcebus.cli.place import DEFAULT_DATA, visible_path
from sourcebus.cli.up.instance import Instance
from sourcebus.cli.up.screen import Screen
from sourcebus.clock import duration
from sourcebus.errors import BusUnavailable, CatalogUnavailable, InvalidInput, StorageFull

if TYPE_CHECKING:
    from sourcebus.model import Source
    from sourcebus.runtime import Runtime
    from sourcebus.settings import Settings

_LOOK_EVERY_S = 1.0
_READY_WITHIN_S = 60.0


class Companion(threading.Thread):
    """One thread with a runtime of its own. What it cannot get over goes to `report`, which ends the supervision."""

    def __init__(
        self,
        settings: Settings,
        instance: Instance,
        folders: Sequence[Path],
        exclude: Sequence[str],
        screen: Screen,
        report: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="companion", daemon=True)
        self.ready = threading.Event()
        self._settings, self._instance, self._folders = settings, instance, folders
        self._exclude = exclude
        self._screen, self._report = screen, report
        self._ended = threading.Event()
        self._begun = time.monotonic()

    def stop(self) -> None:
        """Ends it within a moment."""
        self._ended.set()
        if self.is_alive():
            self.join(5)

    def run(self) -> None:
        try:
            from sourcebus.runtime import build
            from sourcebus.worker import invite

            with build(self._settings, invite=invite) as runtime:
                sources = [bring_in(runtime, folder, self._exclude, self._instance.data) for folder in self._folders]
                self._await_ready()
                self._welcome(sources)
                self._follow(runtime)
        except Exception as error:  # noqa: BLE001  # whatever it is, the person at the terminal must see it and not wait
            if not self._ended.is_set():
                self._report(error)

    # -- ready

    def _await_ready(self) -> None:
        """Until the gateway says that a worker and a beat are there too; after a minute it goes on and says what is missing."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._ended.wait(0.05):
            status, answer = self._ask("/readyz")
            if status == 200:
                self.ready.set()
                return
            if time.monotonic() > deadline:
                self._screen.line(f"not everything is up yet: {answer or 'the gateway does not answer'}", style="yellow")
                return

    def _ask(self, path: str) -> tuple[int, str]:
        address = urlsplit(self._instance.api_url)
        line = http.client.HTTPConnection(address.hostname or "", address.port, timeout=2)
        try:
            line.request("GET", path)
            answer = line.getresponse()
            return answer.status, answer.read(2000).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            line.close()

    def _welcome(self, watched: Sequence[Source]) -> None:
        if self._ended.is_set():
            return
        say, command = self._screen.line, command_name()
        data = self._instance.data
        flag = "" if data == DEFAULT_DATA.absolute() else f" --data {visible_path(data)}"
        say()
        say(f"sourcebus is up: {self._instance.api_url}", style="bold green")
        for source in watched:
            say(f"  watching  {source.config['root']}  (source {source.id})")
        if not watched:
            say(f"  watching  what it knows already; add a folder: {command} up --watch DIR")
        say(f"  search    {command} search{flag} WORDS   or the page above")
        say(f"  look      {command} status{flag}")
        say(f"  kept in   {data}  (logs in {visible_path(data / 'logs')})")
        say(f"  stop      Ctrl-C   (up in {time.monotonic() - self._begun:.1f} s)")
        say()

    # -- progress

    def _follow(self, runtime: Runtime) -> None:
        """Shows the listing that is under way, as one line, and says when it is done; the first one also if it was short."""
        begun: float | None = self._begun
        while not self._ended.wait(_LOOK_EVERY_S if begun is None else 0.3):
            try:
                rows = runtime.desk.status()
            except (BusUnavailable, CatalogUnavailable, StorageFull):
                continue  # being restarted, or full: the processes say so themselves
            busy = [row for row in rows if row.get("progress")]
            if busy:
                begun = begun or time.monotonic()
                shown = [f"{row['id']}: {progress_text(row['progress'])}" for row in busy[:4]]
                self._screen.progress("indexing " + " · ".join(shown))
            elif begun is not None and all(row.get("last_scan_at") and not row.get("pending") for row in rows):
                self._screen.progress(None)
                if rows:
                    self._screen.line(f"{summary(rows)}, {duration(time.monotonic() - begun)} after the start")
                begun = None


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """``12,345 objects are searchable, 6 cannot be read`` …"""
    indexed, unreadable, dead = (sum(row.get(name) or 0 for row in rows) for name in ("indexed", "unreadable", "dead"))
    text = f"{indexed:,} objects are searchable"
    if unreadable:
        text += f", {unreadable:,} cannot be read"
    if dead:
        text += f", {dead:,} failed (sourcebus dlq list)"
    return text


def bring_in(runtime: Runtime, folder: Path, exclude: Sequence[str], data: Path) -> Source:
    """The filesystem source of a folder: the one that is there already, or a new one, with these patterns left out.

    Our own data folder, if it lies inside, is left out too: indexing it would change it, for ever.
    """
    wanted = [*exclude, *_ours(folder, data)]
    known = _known(runtime, folder)
    if known is None:
        config: dict[str, Any] = {"root": str(folder), **({"exclude": wanted} if wanted else {})}
        new = {"id": _id_for(runtime, folder), "connector": "filesystem", "config": config}
        return runtime.sources.add(runtime.sources.parse(new))
    excluded = list(known.config.get("exclude") or [])
    if missing := [pattern for pattern in wanted if pattern not in excluded]:
        return runtime.sources.change(known.id, config={**known.config, "exclude": [*excluded, *missing]})
    return known


def _known(runtime: Runtime, folder: Path) -> Source | None:
    after: str | None = None
    while page := runtime.catalog.sources(after=after, limit=500):
        for source in page:
            if source.connector == "filesystem" and source.config.get("root") == str(folder):
                return source
        after = page[-1].id
    return None


def _id_for(runtime: Runtime, folder: Path) -> str:
    """The folder's own name where it is free, else with a suffix that depends on nothing but its path."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-.")[:60] or "root"
    taken = {source.id for source in runtime.catalog.sources(limit=10_000)}
    return plain if plain not in taken else f"{plain}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]}"


def _ours(folder: Path, data: Path) -> list[str]:
    """The pattern of the data folder below a watched one, if it is there."""
    try:
        below = data.resolve().relative_to(folder.resolve())
    except ValueError:
        return []
    if not below.parts:
        raise InvalidInput("--watch", f"{folder} is the data folder itself", "watch another, or move the data: --data DIR")
    return [glob.escape(below.as_posix()) + "/"]


def command_name() -> str:
    """How the person would call this command from where they are."""
    beside = Path(sys.executable).parent / "sourcebus"
    found = shutil.which("sourcebus")
    if found is not None and Path(found) == beside:
        return "sourcebus"
    return visible_path(beside) if beside.exists() else f"{visible_path(Path(sys.executable))} -m sourcebus"
