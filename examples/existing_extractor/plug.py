"""What is written to plug the extractor in: two connectors, one of callables, one of the Celery task.

Run it: ``python plug.py`` makes a small wiki and reads it through both. To use them, declare them as entry points
(``[project.entry-points."sourcebus.connectors"]``: ``wiki = "plug:wiki"``) or call `register` where your workers start.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import extractor
import tasks

from sourcebus.connectors import Connector, connector_from, extract_with_task, register
from sourcebus.model import Change

wiki = connector_from(
    name="wiki",
    list=extractor.page_ids,
    version=extractor.page_revision,
    extract=extractor.page_text,
    gone_on=(extractor.NoSuchPage,),
)


def wiki_by_task(config: Mapping[str, Any], secret: str | None) -> Connector:
    """The factory form: a source's own config reaches the task's arguments."""
    del secret
    site = str(config.get("site", "main"))
    run = extract_with_task(tasks.extract_page, args=lambda page_id: (site, page_id))
    return connector_from(
        name="wiki_by_task",
        list=extractor.page_ids,
        version=extractor.page_revision,
        extract=lambda page_id: run(page_id)["text"],
        gone_on=(extractor.NoSuchPage,),
    )


register("wiki", wiki)
register("wiki_by_task", wiki_by_task)


def main() -> None:
    """Make a small wiki and read it through both connectors."""
    with tempfile.TemporaryDirectory() as folder:
        extractor.WIKI = Path(folder)
        for number, title in enumerate(("Welcome", "Travel expenses")):
            page = {"revision": 1, "title": title, "body": f"All about {title.lower()}."}
            (extractor.WIKI / f"page-{number}.json").write_text(json.dumps(page))
        for connector in (wiki, wiki_by_task({"site": "intranet"}, None)):
            for item in connector.changes(None):
                if isinstance(item, Change):
                    extraction = connector.extract(item.object_ref)
                    print(connector.name, item.object_ref, extraction.version, repr(extraction.documents[0].text))


if __name__ == "__main__":
    main()
