"""The scene "git push → searchable": a real ``git push`` over HTTP, whose post-receive hook tells sourcebus."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.instance import Instance
from benchmarks.processes import scratch
from benchmarks.reach import KINDS, NotHere, System, add_source, await_hook
from sourcebus.testing.git_server import GitServer, WorkingCopy

_HOOK = Path(__file__).parents[1] / "examples" / "git-post-receive" / "post-receive"
_SECRET = "only for this benchmark"


class Pushed:
    """A clone to push from. A push, hook included, is over when the call returns."""

    source_id = "reach-git"
    kinds = KINDS

    def __init__(self, copy: WorkingCopy) -> None:
        self._copy = copy

    def write(self, name: str, text: str) -> str:
        (self._copy.folder / f"{name}.md").write_text(text, "utf-8")
        self._push(name)
        return f"{name}.md"

    def delete(self, ref: str) -> None:
        (self._copy.folder / ref).unlink()
        self._push(f"without {ref}")

    def _push(self, message: str) -> None:
        self._copy.commit(message)
        self._copy.push("HEAD:refs/heads/main")


class GitPush:
    """A bare repository behind nginx and git http-backend."""

    name = "git push → post-receive hook"

    @contextmanager
    def open(self, instance: Instance) -> Generator[System]:
        hook = f"/hooks/{Pushed.source_id}"
        with ExitStack() as stack:
            folder = stack.enter_context(scratch())
            try:
                server = stack.enter_context(GitServer())
            except FileNotFoundError as missing:
                raise NotHere(str(missing)) from missing
            repository = server.create("reach")
            repository.commit({"readme.txt": b""})
            config = {"url": repository.url, "cache_dir": str(folder / "mirrors"), "include": ["*.md"]}
            add_source(instance, Pushed.source_id, "git", config, json.dumps({"webhook": _SECRET}))
            await_hook(instance, hook)
            repository.install_hook(_HOOK, f"http://127.0.0.1:{instance.port}{hook}", _SECRET)
            yield Pushed(WorkingCopy(repository, folder / "copy"))
