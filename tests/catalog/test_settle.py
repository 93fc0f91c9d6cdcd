"""Outcomes: what each kind leaves, the fence, and one transaction for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sourcebus.catalog import Catalog
from sourcebus.errors import InvalidInput
from sourcebus.model import Document, Outcome, Source, Version

Make = Callable[..., Outcome]


def refs_found(catalog: Catalog, q: str) -> list[str]:
    return sorted(hit.object_ref for hit in catalog.search(q))


def test_indexed_stores_the_version_and_makes_the_documents_searchable(catalog: Catalog) -> None:
    outcome = Outcome(
        "s", "a", 7, "indexed", 1_234, "etag-1", "10:99", [Document("one apple"), Document("two pears", part="2")]
    )
    assert catalog.settle([outcome]) == [True]
    assert catalog.versions([("s", "a"), ("s", "b")]) == {("s", "a"): Version("etag-1", "10:99", 7, 1_234, "indexed")}
    assert refs_found(catalog, "apple") == refs_found(catalog, "pears") == ["a"]
    assert catalog.counts() == {"s": {"indexed": 1, "unreadable": 0, "deleted": 0, "documents": 2}}


def test_indexing_again_replaces_every_document(catalog: Catalog, indexed: Make) -> None:
    catalog.settle(
        [Outcome("s", "a", 1, "indexed", 1, "v", documents=[Document("first"), Document("second"), Document("third")])]
    )
    catalog.settle([indexed("a", "fourth", fence=2)])
    assert [refs_found(catalog, q) for q in ("first", "second", "third", "fourth")] == [[], [], [], ["a"]]
    assert catalog.counts()["s"]["documents"] == 1


def test_deleted_removes_the_documents_and_leaves_a_tombstone(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "apple", fence=5)])
    assert catalog.settle([Outcome("s", "a", 6, "deleted", 2_000)]) == [True]
    assert refs_found(catalog, "apple") == []
    assert catalog.versions([("s", "a")])["s", "a"].state == "deleted"
    assert catalog.objects("s") == []
    assert catalog.settle([indexed("a", "apple", fence=5)]) == [False]
    assert refs_found(catalog, "apple") == []
    assert catalog.settle([indexed("a", "apple", fence=7)]) == [True]
    assert refs_found(catalog, "apple") == ["a"]


def test_a_delete_of_something_unknown_still_fences_off_older_leases(catalog: Catalog, indexed: Make) -> None:
    assert catalog.settle([Outcome("s", "a", 9, "deleted", 1)]) == [True]
    assert catalog.settle([indexed("a", fence=8)]) == [False]


def test_unreadable_keeps_the_version_and_removes_the_documents(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "apple")])
    catalog.settle([Outcome("s", "a", 2, "unreadable", 3_000, "v2", "fp2", detail={"reason": "binary"})])
    assert refs_found(catalog, "apple") == []
    assert catalog.objects("s") == [("a", Version("v2", "fp2", 2, 3_000, "unreadable"))]
    assert catalog.counts()["s"] == {"indexed": 0, "unreadable": 1, "deleted": 0, "documents": 0}


def test_unchanged_moves_fingerprint_and_fence_only(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "apple", fence=1, at_ms=1_000)])
    assert catalog.settle([Outcome("s", "a", 4, "unchanged", 9_000, "ignored", "fp4")]) == [True]
    assert catalog.versions([("s", "a")])["s", "a"] == Version("v1", "fp4", 4, 1_000, "indexed")
    assert refs_found(catalog, "apple") == ["a"]
    assert catalog.settle([Outcome("s", "a", 5, "unchanged", 9_000)]) == [True]
    assert catalog.versions([("s", "a")])["s", "a"].fingerprint == "fp4"


def test_unchanged_proves_nothing_about_what_is_not_there(catalog: Catalog) -> None:
    assert catalog.settle([Outcome("s", "a", 3, "deleted", 1), Outcome("s", "a", 4, "unchanged", 2, "v", "fp")]) == [True, True]
    assert catalog.versions([("s", "a")])["s", "a"] == Version("", None, 4, 1, "deleted")
    assert catalog.settle([Outcome("s", "b", 4, "unchanged", 2, "v", "fp")]) == [True]
    assert catalog.versions([("s", "b")]) == {}


def test_a_note_leaves_a_line_and_no_version(catalog: Catalog, indexed: Make) -> None:
    assert catalog.settle([Outcome("s", "new", 3, "note", 1, detail={"error": "time-out"})]) == [True]
    assert catalog.versions([("s", "new")]) == {} and catalog.objects("s") == []
    assert [line.what for line in catalog.story("s", "new")] == ["note"]
    catalog.settle([indexed("new", fence=1)])
    assert catalog.versions([("s", "new")])["s", "new"].fence == 1


@pytest.mark.parametrize(("fence", "applied"), [(4, False), (5, True), (6, True)])
@pytest.mark.parametrize("what", ["indexed", "deleted", "unreadable", "unchanged", "note"])
def test_only_a_fence_at_least_as_high_applies(catalog: Catalog, indexed: Make, what: str, fence: int, applied: bool) -> None:
    catalog.settle([indexed("a", fence=5)])
    before = (catalog.versions([("s", "a")]), catalog.story("s", "a"))
    assert catalog.settle([Outcome("s", "a", fence, what, 2, "new")]) == [applied]
    assert (before == (catalog.versions([("s", "a")]), catalog.story("s", "a"))) is not applied


def test_one_object_many_times_in_one_call_is_taken_in_order(catalog: Catalog, indexed: Make) -> None:
    outcomes = [
        indexed("a", "first", fence=1),
        Outcome("s", "a", 3, "deleted", 2),
        indexed("a", "zombie", fence=2),
        indexed("a", "last", fence=3),
        Outcome("s", "a", 3, "note", 4, detail={"what": "looked"}),
    ]
    assert catalog.settle(outcomes) == [True, True, False, True, True]
    assert [refs_found(catalog, q) for q in ("first", "zombie", "last")] == [[], [], ["a"]]
    assert [line.what for line in catalog.story("s", "a")] == ["looked", "indexed", "deleted", "indexed"]


def test_an_unknown_source_is_dropped_and_spoils_nothing(catalog: Catalog, indexed: Make) -> None:
    assert catalog.settle([indexed("a", source="nobody"), indexed("a")]) == [False, True]
    assert catalog.settle([]) == []


def test_a_removed_and_readded_source_is_not_touched_by_what_the_old_one_left(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "old", fence=50), indexed("b", "old", fence=40)])
    assert catalog.remove_source("s") == 2
    assert catalog.settle([indexed("a", "late", fence=51)]) == [False]
    catalog.add_source(Source("s", "filesystem"))
    assert catalog.versions([("s", "a")]) == {} and refs_found(catalog, "old") == []
    assert catalog.settle([indexed("b", "late", fence=45)]) == [False]
    assert catalog.settle([indexed("b", "fresh", fence=60)]) == [True]
    assert refs_found(catalog, "fresh") == ["b"]
    catalog.remove_source("s")
    catalog.add_source(Source("s", "filesystem"))
    assert catalog.settle([indexed("b", "late", fence=60)]) == [False]


def test_what_means_nothing_is_refused_before_anything_is_written(catalog: Catalog, indexed: Make) -> None:
    with pytest.raises(InvalidInput, match=r"outcomes\[1\]\.what"):
        catalog.settle([indexed("a"), Outcome("s", "b", 1, "guessed", 1)])
    with pytest.raises(InvalidInput, match=r"outcomes\[0\]\.version"):
        catalog.settle([Outcome("s", "b", 1, "indexed", 1)])
    assert catalog.objects("s") == []


def test_a_batch_larger_than_one_query(catalog: Catalog, indexed: Make) -> None:
    outcomes = [indexed(f"{number:05}", f"word{number}", fence=number) for number in range(1_201)]
    assert all(catalog.settle(outcomes))
    assert all(catalog.settle(outcomes))
    assert catalog.counts()["s"] == {"indexed": 1_201, "unreadable": 0, "deleted": 0, "documents": 1_201}
    assert len(catalog.versions([("s", outcome.object_ref) for outcome in outcomes])) == 1_201


def test_texts_of_any_content(catalog: Catalog) -> None:
    texts = [
        "nul\0 inside",
        "lone \udcff surrogate",
        "\x1f\x02 control",
        "emoji 😀 zebra",
        "",
        "x" * 2_000_000,
        "'quoted' \\ %s ? :x",
    ]
    documents = [Document(text, title=text[:50], part=text[:9], metadata={"t": text[:9], "o": object()}) for text in texts]
    assert catalog.settle([Outcome("s", "a", 1, "indexed", 1, "v\0\udcff", "f\0", documents, {"error": "\0\udcff"})]) == [True]
    for q in ("inside", "surrogate", "control", "zebra", "quoted"):
        assert refs_found(catalog, q) == ["a"]
    assert catalog.story("s", "a")[0].detail == {"error": "\0\udcff"}
