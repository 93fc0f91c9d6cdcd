"""The scene "git push → searchable": a real ``git push`` over HTTP, whose post-receive hook tells sourcebus.

`started` gives a `Scene`: what to register as a source, where to have the hook point, and `write`, which changes one object
as a person would and answers its reference.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sourcebus.testing.git_server import GitServer, Repository, WorkingCopy

HOOK = Path(__file__).parents[1] / "examples" / "git-post-receive" / "post-receive"
_SECRET = "only for this benchmark"


@dataclass(frozen=True)
class Scene:
    """A repository with a clone to push from. `connector`, `config` and `secret` are those of ``POST /v1/sources``."""

    repository: Repository
    copy: WorkingCopy
    config: Mapping[str, Any]
    connector: str = "git"
    secret: str = field(default_factory=lambda: json.dumps({"webhook": _SECRET}))

    def point(self, hook_url: str) -> None:
        """Have every push announced there, the source's ``POST /hooks/…`` address."""
        self.repository.install_hook(HOOK, hook_url, _SECRET)

    def write(self, name: str, text: str) -> str:
        """Commit and push this text; answers its `object_ref`. The push, hook included, is over when it returns."""
        self.stage(name, text)
        self.push()
        return f"{name}.md"

    def stage(self, name: str, text: str) -> str:
        """Commit without pushing, so that a clock can start with `push`."""
        (self.copy.folder / f"{name}.md").write_text(text, "utf-8")
        self.copy.commit(name)
        return f"{name}.md"

    def push(self) -> None:
        self.copy.push("HEAD:refs/heads/main")


@contextmanager
def started(folder: Path) -> Generator[Scene]:
    """Starts the git server, with one repository of one file. FileNotFoundError names what is not installed."""
    with GitServer() as server:
        repository = server.create("reach")
        repository.commit({"readme.md": b"# Reach\n"})
        copy = WorkingCopy(repository, folder / "copy")
        yield Scene(repository, copy, {"url": repository.url, "cache_dir": str(folder / "mirrors")})
