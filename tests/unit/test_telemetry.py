"""Names are well formed and stand once; what is logged shows no secret, in either form."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from sourcebus import telemetry
from sourcebus.settings import Settings


@pytest.fixture
def logs(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield capsys
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_metric_names_follow_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in telemetry.METRICS]
    assert len(set(names)) == len(names)
    for metric in telemetry.METRICS:
        assert re.fullmatch(r"sourcebus_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert metric.help


def test_every_metric_of_the_module_is_in_the_list() -> None:
    declared = {value.name for value in vars(telemetry).values() if isinstance(value, telemetry.Metric)}
    assert declared == {metric.name for metric in telemetry.METRICS}


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def logged() -> Iterator[str]:
    """The name of every log event in the code; of an f-string its fixed beginning and a star."""
    for path in sorted(Path(telemetry.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(ast.Name("_log"), method), args=[name, *_]) if method in LEVELS:
                    yield from names_in(name)
                case _:
                    pass


def names_in(name: ast.expr) -> Iterator[str]:
    match name:
        case ast.IfExp():
            yield from names_in(name.body)
            yield from names_in(name.orelse)
        case ast.JoinedStr([ast.Constant(value=str(beginning)), *_]):
            yield f"{beginning}*"
        case ast.Constant(value=str(whole)):
            yield whole
        case _:
            raise AssertionError(f"{ast.unparse(name)} cannot be held against the list")


def test_every_log_event_of_the_code_is_in_the_list_and_no_other() -> None:
    used = set(logged())
    missing = {name for name in used if not any(fnmatchcase(listed, name) for listed in telemetry.EVENTS)}
    unused = {listed for listed in telemetry.EVENTS if not any(fnmatchcase(listed, name) for name in used)}
    assert (missing, unused) == (set(), set())


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_is_logged(logs: pytest.CaptureFixture[str], as_json: bool) -> None:
    telemetry.configure_logging(Settings(log_json=as_json))
    log = structlog.get_logger("sourcebus.test")
    log.warning("http_error", secret="hunter2", config={"api_key": "hunter2", "deep": [{"password": "hunter2"}]})
    log.warning(
        "http_error", url="redis://user:hunter2@host/0", header="Authorization: Bearer hunter2", key=SecretStr("hunter2")
    )
    logging.getLogger("library").error("cannot connect to %s", "postgresql://me:hunter2@db/x")
    try:
        raise OSError("redis://:hunter2@host refused")
    except OSError:
        log.exception("http_error")
        logging.getLogger("library").exception("failed")
    shown = logs.readouterr().err
    assert "hunter2" not in shown
    assert shown.count("Traceback") == 2
    assert "redis://user:***@host/0" in shown
    assert "postgresql://me:***@db/x" in shown


def test_json_lines_are_json_and_carry_name_level_and_time(logs: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging(Settings(log_json=True))
    structlog.get_logger("sourcebus.test").info("http_error", tokens=3, has_secret=True)
    logging.getLogger("library").warning("line\nbreak")
    first, second = (json.loads(line) for line in logs.readouterr().err.splitlines())
    assert (
        first.items()
        >= {"event": "http_error", "level": "info", "logger": "sourcebus.test", "tokens": 3, "has_secret": True}.items()
    )
    assert second["event"] == "line\nbreak"
    assert second["timestamp"].endswith("Z")


def test_the_level_is_kept_and_a_second_call_does_not_double_the_lines(logs: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging(Settings(log_level="debug"))
    telemetry.configure_logging(Settings(log_level="warning"))
    structlog.get_logger("sourcebus.test").info("unseen")
    structlog.get_logger("sourcebus.test").error("seen")
    assert len(logs.readouterr().err.splitlines()) == 1


def test_the_page_has_both_lists() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text("utf-8")
    for metric in telemetry.METRICS:
        assert f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |\n" in page
    for name, when in telemetry.EVENTS.items():
        assert f"| `{name}` | {when} |\n" in page
    assert len(re.findall(r"^\| `", page, flags=re.M)) == len(telemetry.METRICS) + len(telemetry.EVENTS)
