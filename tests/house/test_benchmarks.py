"""That every benchmark can be started, is explained and can be shown. What they measure is no test's business."""

from __future__ import annotations

import importlib
from xml.etree import ElementTree

import pytest
from benchmarks import publish, svg
from benchmarks.__main__ import BUS, INTAKE
from benchmarks.slow import jain

README = (publish.FOLDER / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", publish.ORDER)
def test_each_has_a_run_and_a_line_in_the_readme(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)
    assert f"| `{name}` |" in README


def test_those_of_the_groups_are_known() -> None:
    assert set(BUS) < set(publish.ORDER)
    assert set(INTAKE) < set(publish.ORDER)


def test_bars_of_any_number_are_drawn_with_their_names() -> None:
    picture = svg.bars("Some", {"one": 1.0, "a much longer name than the others have": 0.0, "<three>": 1e6}, "/s", "a note")
    texts = [text.text for text in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "<three>", "1,000,000 /s", "a note"} <= set(texts)


def test_jains_index_is_one_for_equals_and_the_share_of_one_who_has_all() -> None:
    assert jain([7, 7, 7, 7]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
