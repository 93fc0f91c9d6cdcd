"""What a person types, and what is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sourcebus.catalog import Catalog, words
from sourcebus.errors import InvalidInput
from sourcebus.model import Document, Outcome, Source, from_ms

Make = Callable[..., Outcome]


def refs(catalog: Catalog, q: str) -> set[str]:
    return {hit.object_ref for hit in catalog.search(q)}


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("path", {"snake", "dotted", "words", "apart"}),
        ("os_path", {"snake", "dotted", "words"}),
        ("os.path", {"snake", "dotted", "words"}),
        ("os_pa", {"snake", "dotted", "words"}),
        ("pa os", set[str]()),
        ("os pa", {"snake", "dotted", "words", "apart"}),
        ("OS PATH", {"snake", "dotted", "words", "apart"}),
        ("creme", {"accents"}),
        ("CRÈME BRÛLÉE", {"accents"}),
        ("файл", {"cyrillic"}),
        ("2024", {"numbers"}),
        ("path missing", set[str]()),
        ("-> :: ()", set[str]()),
        ("c++ path", {"apart"}),
    ],
)
def test_words_phrases_and_prefixes(catalog: Catalog, indexed: Make, q: str, found: set[str]) -> None:
    texts = {
        "snake": "x = os_path(1)", "dotted": "import os.path", "words": "the os path is", "apart": "path of c and os",
        "accents": "Crème brûlée", "cyrillic": "Файлы системы", "numbers": "on 2024-05-06",
    }  # fmt: skip
    catalog.settle([indexed(ref, text) for ref, text in texts.items()])
    assert refs(catalog, q) == found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(q=st.text(st.characters(exclude_categories=[]), min_size=1, max_size=30).filter(str.strip))
@example(q='"')
@example(q="' OR 1=1 --")
@example(q="NEAR(a b) AND NOT title:x* ^y {z}")
@example(q="a" * 5_000)
@example(q="word " * 500)
@example(q="%s ? :name \\")
@example(q="a\0b \udcff")
def test_any_text_is_a_query(catalog: Catalog, q: str) -> None:
    assert catalog.search(q) == []


@pytest.mark.parametrize("q", ["", " \n\t"])
def test_an_empty_query_is_refused(catalog: Catalog, q: str) -> None:
    with pytest.raises(InvalidInput, match="q: is empty"):
        catalog.search(q)


@pytest.mark.parametrize(("limit", "offset"), [(0, 0), (1_001, 0), (20, -1)])
def test_pages_have_bounds(catalog: Catalog, limit: int, offset: int) -> None:
    with pytest.raises(InvalidInput):
        catalog.search("x", limit=limit, offset=offset)


def test_a_hit_says_where_it_is_from(catalog: Catalog) -> None:
    text = "<script>alert('x')</script> & then the needle itself"
    document = Document(text, title="A <title>")
    catalog.settle([Outcome("s", "a/b\udcff", 3, "indexed", 5_000, "v9", documents=[document])])
    (hit,) = catalog.search("needle")
    assert (hit.source_id, hit.object_ref, hit.title, hit.version, hit.indexed_at) == (
        "s", "a/b\udcff", "A <title>", "v9", from_ms(5_000),
    )  # fmt: skip
    assert "<mark>needle</mark>" in hit.snippet and "&lt;script&gt;" in hit.snippet and "&amp;" in hit.snippet
    assert "<script>" not in hit.snippet
    assert hit.score > 0


def test_a_text_cannot_forge_a_mark(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "<mark>forged</mark> \x02x\x03 needle")])
    (hit,) = catalog.search("needle")
    assert hit.snippet.count("<mark>") == 1


def test_the_title_weighs_more_and_can_match_alone(catalog: Catalog, indexed: Make) -> None:
    filler = "many other words stand here " * 3
    catalog.settle([indexed("in-text", "zebra " + filler, title="x"), indexed("in-title", filler + "tail", title="zebra")])
    assert [hit.object_ref for hit in catalog.search("zebra")] == ["in-title", "in-text"]
    assert [hit.object_ref for hit in catalog.search("zebra tail")] == ["in-title"]


def test_a_match_deep_in_a_long_text_is_shown(catalog: Catalog, indexed: Make) -> None:
    catalog.settle([indexed("a", "filler words " * 40_000 + "then os_path ends")])
    for q, shown in (("ends", "<mark>ends</mark>"), ("os_path", "path")):
        (hit,) = catalog.search(q)
        assert shown in hit.snippet and len(hit.snippet) < 1_000


def test_hits_can_be_narrowed_and_paged(catalog: Catalog, indexed: Make) -> None:
    catalog.add_source(Source("t", "filesystem", workspace="w"))
    catalog.settle([indexed(f"{n}", "pear", source=source) for n in range(6) for source in ("s", "t")])
    assert len(catalog.search("pear")) == 12
    assert {hit.source_id for hit in catalog.search("pear", source_id="t")} == {"t"}
    assert {hit.source_id for hit in catalog.search("pear", workspace="default")} == {"s"}
    assert catalog.search("pear", source_id="s", workspace="w") == catalog.search("pear", source_id="gone") == []
    pages = [catalog.search("pear", limit=5, offset=offset) for offset in (0, 5, 10, 15)]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert len({(hit.source_id, hit.object_ref) for page in pages for hit in page}) == 12


def test_a_vector_stays_within_what_postgresql_takes() -> None:
    many = words.vector("t", " ".join(f"word{n}" for n in range(300_000)))
    assert len(many) < 2_500_000 and many.endswith(f" '{words.PARTIAL}'")
    assert words.vector("os os path", "os") == "'os':1A,2A,5 'path':3A"


def test_snippets_mark_folded_words_in_place() -> None:
    text = "Straße ÄRGER ﬁnal Crème " * 3
    assert "<mark>Crème</mark>" in words.snippet(text, ["creme"])
    assert "<mark>ÄRGER</mark>" in words.snippet(text, ["arger"])
    assert words.snippet("nothing here", ["x"]) == "nothing here"
    assert words.snippet("a" * 1_000 + " pathlib", ["path"]).endswith("<mark>pathlib</mark>")
