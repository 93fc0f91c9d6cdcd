"""A pytest plugin: what the connector suite said of each connector, as a table in the connector's page.

``pytest -p sourcebus.testing.tables --suite-tables docs/connectors`` writes it between the two markers in ``NAME.md``, or at
the page's end where there are none. Only the suite's tests are run. A page is left as it is if one failed or was not run.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sourcebus.connectors import Connector
from sourcebus.testing.connector_suite import ConnectorSuite, WatchingConnectorSuite
from sourcebus.testing.connector_suite.faults import FaultTests
from sourcebus.testing.connector_suite.objects import ObjectTests
from sourcebus.testing.connector_suite.signals import SignalTests
from sourcebus.testing.connector_suite.source import NOT_APPLICABLE

BEGIN, END = "<!-- suite: begin -->", "<!-- suite: end -->"
PASS, FAILED = "pass", "failed"

_HEADING = "## What the connector suite says"
_PARTS: tuple[type, ...] = (ObjectTests, FaultTests, SignalTests, ConnectorSuite, WatchingConnectorSuite)


def rows_of(suite: type[ConnectorSuite]) -> list[str]:
    """The suite's tests in words, in their order."""
    parts = [part for part in _PARTS if issubclass(suite, part)]
    return [in_words(name) for part in parts for name in vars(part) if name.startswith("test_")]


def in_words(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def rows_on(page: str) -> list[str] | None:
    """The first column of a page's table; None where there is none."""
    if BEGIN not in page:
        return None
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    return [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]


def with_table(page: str, table: str) -> str:
    """The page with this table instead of its old one."""
    block = f"{BEGIN}\n{table}\n{END}"
    if BEGIN in page:
        before, _, rest = page.partition(BEGIN)
        return before + block + rest.partition(END)[2]
    return f"{page.rstrip()}\n\n{_HEADING}\n\n{block}\n"


@dataclass
class Column:
    """What one test class said: per row the outcome, the worst of a parametrized test's."""

    title: str
    rows: Sequence[str]
    connector: str = ""
    results: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, row: str, result: str) -> None:
        if self.results.get(row, PASS) == PASS or result == FAILED:
            self.results[row] = result


def table_of(columns: Sequence[Column]) -> str:
    """Markdown, a row per test. Where the test classes differ, a result names its class."""
    classes = ", ".join(f"*{column.title}*" for column in columns)
    made = f"Made by `make suite-tables` from what really ran: {classes}."
    rows = dict.fromkeys(row for column in columns for row in column.rows)
    lines = [f"| {row} | {_cell(row, columns)} |" for row in rows]
    return "\n".join([made, "", "| what | result |", "|---|---|", *lines])


def _cell(row: str, columns: Sequence[Column]) -> str:
    results = {column.title: column.results[row] for column in columns if row in column.results}
    if len(set(results.values())) == 1:
        return next(iter(results.values()))
    return "; ".join(f"*{title}*: {result}" for title, result in results.items())


class Tables:
    """Collects outcomes while pytest runs, and writes the pages at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: dict[type[ConnectorSuite], Column] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if _suite_of(item) is None]
        items[:] = [item for item in items if _suite_of(item) is not None]
        config.hook.pytest_deselected(items=others)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        suite = _suite_of(item)
        if suite is not None and isinstance(item, pytest.Function):
            self._note(suite, item, report)
        return report

    def _note(self, suite: type[ConnectorSuite], item: pytest.Function, report: pytest.TestReport) -> None:
        if suite not in self._columns:
            self._columns[suite] = Column(_title(suite), rows_of(suite))
        column, row = self._columns[suite], in_words(item.originalname)
        connector: object = item.funcargs.get("connector")
        if isinstance(connector, Connector):
            column.connector = connector.name
        if row in column.rows and (report.when == "call" or report.outcome != "passed"):
            column.note(row, _result(report))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        by_page: dict[Path, list[Column]] = {}
        for column in self._columns.values():
            by_page.setdefault(self._folder / f"{column.connector}.md", []).append(column)
        for page, columns in by_page.items():
            if page.is_file():
                terminalreporter.write_line(f"{page}: {_write(page, columns)}")


def _suite_of(item: pytest.Item) -> type[ConnectorSuite] | None:
    owner: object = getattr(item, "cls", None)
    return owner if isinstance(owner, type) and issubclass(owner, ConnectorSuite) else None


def _write(page: Path, columns: Sequence[Column]) -> str:
    for column in columns:
        for row in column.rows:
            if column.results.get(row, FAILED) == FAILED:
                return f"left as it is; in {column.title!r} this did not pass or was not run: {row}"
    page.write_text(with_table(page.read_text("utf-8"), table_of(columns)), "utf-8")
    return "written"


def _result(report: pytest.TestReport) -> str:
    if report.outcome == "passed":
        return PASS
    reason = report.longrepr[2] if report.outcome == "skipped" and isinstance(report.longrepr, tuple) else ""
    why = reason.removeprefix("Skipped: ")
    return why.replace("|", "/") if why.startswith(NOT_APPLICABLE) else FAILED


def _title(suite: type[ConnectorSuite]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", suite.__name__.removeprefix("Test")).lower()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--suite-tables", metavar="FOLDER", type=Path, help="write the connector suite's results into FOLDER/NAME.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--suite-tables")
    if folder is not None:
        config.pluginmanager.register(Tables(folder), "suite-tables-writer")
