"""A team's own extractor, as it was before sourcebus: it knows nothing of it, and imports nothing of it.

Here the "wiki" is a folder of JSON pages, so that the example runs anywhere; think of a client of a real wiki.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

WIKI = Path(os.environ.get("WIKI_DIR", "wiki"))


class NoSuchPage(Exception):
    """The wiki's 404."""


def page_ids() -> Iterator[str]:
    """Every page of the wiki."""
    for file in sorted(WIKI.glob("*.json")):
        yield file.stem


def page_revision(page_id: str) -> str:
    """The page's revision, without its text."""
    return str(_page(page_id)["revision"])


def page_text(page_id: str) -> str:
    """The page as plain text."""
    page = _page(page_id)
    return f"{page['title']}\n\n{page['body']}"


def _page(page_id: str) -> dict[str, str | int]:
    try:
        return json.loads((WIKI / f"{Path(page_id).name}.json").read_text())
    except FileNotFoundError as error:
        raise NoSuchPage(page_id) from error
