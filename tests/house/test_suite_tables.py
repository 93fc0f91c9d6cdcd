"""Each connector's page has the table that the connector suite made, with the suite's tests as they are now."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from sourcebus.testing import ConnectorSuite, WatchingConnectorSuite
from sourcebus.testing.connector_suite.source import NOT_APPLICABLE
from sourcebus.testing.tables import BEGIN, END, PASS, Column, rows_of, rows_on, table_of, with_table

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONNECTORS = sorted(PROJECT["entry-points"]["sourcebus.connectors"])
ANEW = "make suite-tables ARGS=tests/connectors/…"


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_table_has_the_rows_of_the_suite(name: str) -> None:
    page = (ROOT / "docs" / "connectors" / f"{name}.md").read_text("utf-8")
    rows = rows_on(page)
    assert rows is not None, f"docs/connectors/{name}.md has no table: {ANEW}"
    assert rows in (rows_of(ConnectorSuite), rows_of(WatchingConnectorSuite)), f"the table is an old one: {ANEW}"
    table = page.partition(BEGIN)[2].partition(END)[0]
    for row in rows:
        (result,) = re.findall(rf"^\| {re.escape(row)} \| (.+) \|$", table, flags=re.M)
        for part in re.split(r"; (?=\*)", result):
            said = re.sub(r"^\*[^*]+\*: ", "", part)
            assert said == PASS or said.startswith(NOT_APPLICABLE), f"{row}: {part}"


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    column = Column("here", ["one", "two"], results={"one": PASS, "two": f"{NOT_APPLICABLE}why"})
    page = with_table("# Page\n", table_of([column]))
    assert rows_on(page) == ["one", "two"]
    column.note("two", "failed")
    column.note("two", PASS)
    assert column.results["two"] == "failed"
    assert with_table(page, table_of([column])).count(BEGIN) == 1
    assert with_table(page, table_of([column])).startswith("# Page\n")
