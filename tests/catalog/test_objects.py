"""Listings and lookups: any reference, its order, prefixes, pages, counts, stories."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sourcebus.catalog import Catalog
from sourcebus.catalog.keys import from_bytes, ref_key, ref_of, to_bytes
from sourcebus.errors import UnknownSource
from sourcebus.model import Outcome, Source

any_text = st.text(st.characters(exclude_categories=[]), max_size=40)
LONG = "d/" * 600
AWKWARD = [
    "", "a", "a\nb", "a\0b", "a%", "a_", "a\\", "ab", "A", "é", "e\u0301", "😀", "\uffff", "\x1f", os.fsdecode(b"\xff\xfe"),
    "\ud83d\ude00", "'", LONG + "x", LONG + "y", LONG + "y\udcff", LONG, "z" * 4096, "\U0010ffff", "\U0010ffff" * 300 + "a",
]  # fmt: skip


@given(any_text)
@example(LONG)
def test_a_reference_comes_back_as_it_was(ref: str) -> None:
    head, tail, _ = ref_key(ref)
    assert ref_of(head, tail) == ref


@given(st.lists(any_text, min_size=2, max_size=2))
def test_bytes_sort_like_the_text(texts: list[str]) -> None:
    assert (to_bytes(texts[0]) < to_bytes(texts[1])) == (texts[0] < texts[1])
    assert from_bytes(to_bytes(texts[0])) == texts[0]


@pytest.fixture
def filled(catalog: Catalog, indexed: Callable[..., Outcome]) -> Iterator[Catalog]:
    assert all(catalog.settle([indexed(ref) for ref in AWKWARD]))
    yield catalog


def test_awkward_references_are_stored_found_and_ordered(filled: Catalog) -> None:
    assert [ref for ref, _ in filled.objects("s")] == sorted(AWKWARD)
    assert set(filled.versions([("s", ref) for ref in AWKWARD])) == {("s", ref) for ref in AWKWARD}
    assert all(filled.story("s", ref) for ref in AWKWARD)


@pytest.mark.parametrize("page", [1, 2, 7])
def test_pages_have_every_object_once(filled: Catalog, page: int) -> None:
    found: list[str] = []
    while batch := filled.objects("s", after=found[-1] if found else None, limit=page):
        assert len(batch) <= page
        found += [ref for ref, _ in batch]
    assert found == sorted(AWKWARD)


@pytest.mark.parametrize("prefix", [*AWKWARD, "d/", LONG[:-1], "nothing", "\U0010ffff" * 300, "\U0010ffff" * 250])
def test_a_prefix_is_taken_literally(filled: Catalog, prefix: str) -> None:
    assert [ref for ref, _ in filled.objects("s", prefix=prefix)] == sorted(ref for ref in AWKWARD if ref.startswith(prefix))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(refs=st.sets(any_text, max_size=12), prefix=st.text(max_size=2), after=st.none() | any_text)
def test_listing_is_what_a_sorted_list_would_give(
    catalog: Catalog, indexed: Callable[..., Outcome], refs: set[str], prefix: str, after: str | None
) -> None:
    if "h" in {source.id for source in catalog.sources()}:
        catalog.remove_source("h")
    catalog.add_source(Source("h", "filesystem"))
    fence = 1 + max((version.fence for version in catalog.versions([("s", "fence")]).values()), default=0)
    catalog.settle([indexed("fence", fence=fence)] + [indexed(ref, source="h", fence=fence) for ref in refs])
    expected = sorted(ref for ref in refs if ref.startswith(prefix) and (after is None or ref > after))
    assert [ref for ref, _ in catalog.objects("h", prefix=prefix, after=after)] == expected


def test_lookups_reach_over_sources_and_repeat(catalog: Catalog, indexed: Callable[..., Outcome]) -> None:
    catalog.add_source(Source("other", "filesystem"))
    catalog.settle([indexed("a", fence=1), indexed("a", fence=2, source="other")])
    keys = [("s", "a"), ("other", "a"), ("s", "a"), ("gone", "a"), ("s", "b")]
    assert {key: version.fence for key, version in catalog.versions(keys).items()} == {("s", "a"): 1, ("other", "a"): 2}
    assert catalog.versions([]) == {}


def test_counts_name_every_source_asked_for(catalog: Catalog, indexed: Callable[..., Outcome]) -> None:
    catalog.add_source(Source("empty", "filesystem"))
    catalog.settle([indexed("a"), indexed("b"), Outcome("s", "c", 1, "deleted", 1), Outcome("s", "d", 1, "note", 1)])
    nothing = {"indexed": 0, "unreadable": 0, "deleted": 0, "documents": 0}
    assert catalog.counts() == {"s": nothing | {"indexed": 2, "deleted": 1, "documents": 2}, "empty": nothing}
    assert catalog.counts(["empty", "gone"]) == {"empty": nothing}
    assert catalog.counts([]) == {}


def test_the_story_keeps_the_last_lines_and_the_last_failures(catalog: Catalog) -> None:
    failures = [Outcome("s", "a", 1, "note", at, detail={"what": "failed", "error": f"e{at}"}) for at in range(30)]
    good = [Outcome("s", "a", 1, "unchanged", at) for at in range(100, 125)]
    for outcome in failures + good:
        catalog.settle([outcome])
    story = catalog.story("s", "a")
    assert [line.at_ms for line in story] == [*range(124, 104, -1), *range(29, 9, -1)]
    assert story[-1].what == "failed" and story[-1].detail == {"error": "e10"}
    assert catalog.story("s", "a", limit=3) == story[:3]
    assert catalog.story("s", "never") == []


def test_a_story_line_stays_small(catalog: Catalog) -> None:
    catalog.settle([Outcome("s", "a", 1, "note", 1, detail={"error": "x" * 100_000})])
    catalog.settle([Outcome("s", "a", 1, "note", 2, detail={str(n): "y" * 900 for n in range(100)})])
    assert [len(str(line.detail)) < 5_000 for line in catalog.story("s", "a")] == [True, True]


def test_an_unknown_source_is_named(catalog: Catalog) -> None:
    for call in (lambda: catalog.objects("gone"), lambda: catalog.story("gone", "a")):
        with pytest.raises(UnknownSource, match="gone"):
            call()
