"""Cursors, complete listings that are cut and go on, and deletes that wait for a person."""

from __future__ import annotations

from dataclasses import replace

from sourcebus.catalog import Catalog
from sourcebus.model import Pass, Signal

BEGUN = Pass("page 2", 1, Signal.RECONCILE, 1_000, 1_000, {"listed": 2})


def test_cursors_belong_to_a_scope(catalog: Catalog) -> None:
    long = "scope/" * 1_000
    for scope, value in (("", "whole"), (long, "\0 any \udcff"), (long + "2", "")):
        listing = catalog.listings.get("s", scope)
        assert catalog.listings.keep_cursor(listing, "older", 1) and catalog.listings.keep_cursor(listing, value, 2)
        assert (catalog.listings.get("s", scope).cursor, catalog.listings.get("s", scope).version) == (value, 2)
    for scope in (long, "never"):
        assert catalog.listings.keep_cursor(catalog.listings.get("s", scope), None, 1)
    assert [catalog.listings.get("s", scope).cursor for scope in ("", long, long + "2")] == ["whole", None, ""]


def test_a_pass_goes_on_where_it_was_cut_and_knows_all_that_it_saw(catalog: Catalog) -> None:
    listing = catalog.listings.get("s", "")
    first = catalog.listings.keep_pass(listing, BEGUN, ["a", "b", "b\udcff"])
    assert first and catalog.listings.get("s", "").under_way == first
    second = catalog.listings.keep_pass(listing, replace(first, cursor="page 3"), ["b", "c" * 4_000])
    assert second and second.no == first.no and catalog.listings.get("s", "").under_way == second
    refs = ["a", "b", "b\udcff", "c" * 4_000, "d", *map(str, range(1_200))]
    assert catalog.listings.unsighted(second.no, refs) == refs[4:]
    assert catalog.listings.end_pass(listing, "delta", 1)
    after = catalog.listings.get("s", "")
    assert (after.cursor, after.under_way) == ("delta", None)
    assert catalog.listings.unsighted(second.no, ["a"]) == ["a"], "what it saw is forgotten"


def test_a_listing_that_was_forgotten_meanwhile_writes_nothing(catalog: Catalog) -> None:
    before = catalog.listings.get("s", "")
    assert catalog.listings.keep_pass(before, BEGUN, ["a"])
    assert catalog.listings.keep_cursor(catalog.listings.get("s", "other"), "c", 1)
    catalog.listings.forget("s")
    assert catalog.listings.get("s", "other").cursor is None and catalog.listings.get("s", "").under_way is None
    assert not catalog.listings.keep_cursor(before, "old", 1)
    assert catalog.listings.keep_pass(before, BEGUN, ["a"]) is None
    assert not catalog.listings.end_pass(before, "old", 1)
    assert catalog.listings.get("s", "").cursor is None


def test_held_deletes_are_let_go_or_kept_for_good(catalog: Catalog) -> None:
    assert catalog.listings.kept("s") is None
    catalog.listings.hold("s", "", ["z"])
    catalog.listings.hold("s", "", ["a", "b"])
    assert catalog.listings.keep_held("s") == 2, "the newer set takes the older one's place"
    kept = catalog.listings.kept("s")
    assert kept and catalog.listings.unsighted(kept, ["a", "b", "z"]) == ["z"]
    catalog.listings.hold("s", "", ["b", "c"])
    assert catalog.listings.keep_held("s") == 2 and catalog.listings.keep_held("s") == 0
    assert catalog.listings.unsighted(kept, ["a", "b", "c", "d"]) == ["d"]
    catalog.listings.sighted_again(kept, ["a", "b"])
    assert catalog.listings.unsighted(kept, ["a", "b", "c"]) == ["a", "b"]
    catalog.listings.hold("s", "", ["x"])
    catalog.listings.hold("s", "", ["y"], more=True)
    catalog.listings.let_go("s")
    assert catalog.listings.keep_held("s") == 0


def test_what_a_crash_left_of_a_listing_is_cleaned_up(catalog: Catalog) -> None:
    listing = catalog.listings.get("s", "")
    first = catalog.listings.keep_pass(listing, BEGUN, map(str, range(7_000)))
    assert first
    catalog.remove_source("s")
    catalog.maintain()
    assert catalog.listings.unsighted(first.no, ["5", "6999"]) == ["5", "6999"]
