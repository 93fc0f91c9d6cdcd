"""The policy of freshness, without any clock or I/O."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcebus.freshness import (
    ENOUGH,
    JITTER,
    Evidence,
    Feeding,
    complete_is_due,
    coverage_slot_ms,
    intervals_of,
    judge_feeding,
    may_spend,
    next_poll_s,
    renew_at_ms,
    retry_upkeep_ms,
    staleness_bound_s,
)
from sourcebus.model import Quota, Signal

HOUR_S = 3_600.0


@pytest.mark.parametrize(
    ("quota", "units"),
    [(Quota(), float("inf")), (Quota(2, 10), 10), (Quota(20, 10), 20), (Quota(0.1, 1), 1)],
)
def test_a_listing_spends_a_burst_or_a_second_of_the_rate(quota: Quota, units: float):
    assert may_spend(quota) == units


def test_a_complete_listing_comes_once_per_interval_and_never_on_a_webhook():
    now_ms = 1e12
    assert complete_is_due(Signal.POLL, None, now_ms, HOUR_S)
    assert complete_is_due(Signal.POLL, now_ms - HOUR_S * 1000, now_ms, HOUR_S)
    assert not complete_is_due(Signal.POLL, now_ms - HOUR_S * 999, now_ms, HOUR_S)
    assert complete_is_due(Signal.RECONCILE, now_ms - HOUR_S * 600, now_ms, HOUR_S)
    assert not complete_is_due(Signal.RECONCILE, now_ms - HOUR_S * 400, now_ms, HOUR_S)
    assert not complete_is_due(Signal.WEBHOOK, None, now_ms, HOUR_S)
    assert not complete_is_due(Signal.WATCH, 0, now_ms, HOUR_S)


@given(
    present_s=st.floats(0, 1e6),
    most_s=st.floats(1, 1e6),
    found=st.integers(0, 1000),
    took_s=st.floats(0, 1e5),
    failed=st.booleans(),
)
def test_the_interval_stays_between_its_bounds(present_s: float, most_s: float, found: int, took_s: float, failed: bool):
    every_s = next_poll_s(present_s, most_s, found=found, took_s=took_s, failed=failed)
    assert min(most_s, max(1, most_s / 10, 4 * took_s)) <= every_s <= most_s


def test_changes_shorten_it_quiet_and_errors_lengthen_it():
    assert next_poll_s(400, 600, found=3, took_s=1) == 200
    assert next_poll_s(100, 600, found=0, took_s=1) == 150
    assert next_poll_s(100, 600, found=3, took_s=1, failed=True) == 200
    assert next_poll_s(0, 600, found=0, took_s=1) == 600, "not polled before"
    assert next_poll_s(60, 600, found=9, took_s=100) == 400, "it does not list all the time"
    assert next_poll_s(60, 0, found=9, took_s=1) == 0


def test_the_bound_is_made_of_its_parts():
    assert staleness_bound_s(600, 30, 5) == 600 * JITTER + 35
    assert staleness_bound_s(0, 30, 5) is None


# --- relying on webhooks ----------------------------------------------------------------------------------------------

GOOD = Evidence(hears=True, wanted=True, subscribed=True, announced=100, missed=2)
BAD = replace(GOOD, announced=80, missed=20)
SILENT = replace(GOOD, unheard=5, quiet_scans=2, silent_ms=100_000, gap_ms=1_000)


@pytest.mark.parametrize("now", list(Feeding))
def test_what_does_not_hear_is_polled(now: Feeding):
    assert judge_feeding(now, Evidence(hears=False, announced=50)) == (Feeding.POLL, "")


def test_a_living_subscription_is_relied_on_until_it_is_proven_otherwise():
    assert judge_feeding(Feeding.POLL, Evidence(hears=True, wanted=True, subscribed=True)) == (Feeding.PUSH, "")
    assert judge_feeding(Feeding.PUSH, BAD) == (Feeding.FALLBACK, "only 80% of its changes were announced")
    assert judge_feeding(Feeding.PUSH, replace(BAD, announced=8, missed=2))[0] is Feeding.PUSH, "too few to judge by"


def test_webhooks_set_up_by_hand_are_relied_on_where_a_person_says_so_or_once_they_have_proven_good():
    heard = Evidence(hears=True)
    assert judge_feeding(Feeding.POLL, heard)[0] is Feeding.POLL
    assert judge_feeding(Feeding.POLL, replace(heard, by_hand=True))[0] is Feeding.PUSH
    assert judge_feeding(Feeding.POLL, replace(heard, announced=ENOUGH - 1))[0] is Feeding.POLL
    assert judge_feeding(Feeding.POLL, replace(heard, announced=ENOUGH))[0] is Feeding.PUSH
    assert judge_feeding(Feeding.POLL, replace(heard, announced=10, missed=10)) == (Feeding.POLL, "")
    assert judge_feeding(Feeding.PUSH, replace(heard, announced=0))[0] is Feeding.PUSH, "evidence begins anew with each switch"


def test_a_dead_subscription_is_not_relied_on_whatever_it_did_before():
    dead = replace(GOOD, subscribed=False)
    assert judge_feeding(Feeding.PUSH, dead) == (Feeding.FALLBACK, "its subscription has ended")
    assert judge_feeding(Feeding.FALLBACK, dead)[0] is Feeding.FALLBACK
    assert judge_feeding(Feeding.POLL, dead) == (Feeding.POLL, "")


def test_silence_while_changes_are_found_is_noticed_and_quiet_is_not():
    assert judge_feeding(Feeding.PUSH, SILENT) == (Feeding.FALLBACK, "nothing was heard while 5 changes were found")
    for less in ({"unheard": 4}, {"quiet_scans": 1}, {"silent_ms": 9_000}, {"silent_ms": None}, {"gap_ms": None}):
        assert judge_feeding(Feeding.PUSH, replace(SILENT, **less))[0] is Feeding.PUSH


def test_it_is_relied_on_again_only_when_it_has_proven_good():
    few = replace(GOOD, announced=5, missed=0)
    assert judge_feeding(Feeding.FALLBACK, few) == (Feeding.FALLBACK, "")
    assert judge_feeding(Feeding.FALLBACK, GOOD) == (Feeding.PUSH, "")
    assert judge_feeding(Feeding.FALLBACK, BAD)[0] is Feeding.FALLBACK


def test_what_is_never_polled_is_while_its_webhooks_fail():
    assert intervals_of(Feeding.PUSH, 0, HOUR_S) == (0, HOUR_S)
    assert intervals_of(Feeding.FALLBACK, 0, HOUR_S) == (600, HOUR_S)
    assert intervals_of(Feeding.FALLBACK, 0, 60) == (60, 60)
    assert intervals_of(Feeding.FALLBACK, 30, HOUR_S) == (30, HOUR_S)


def test_the_window_reaches_over_eight_reconcile_intervals():
    assert coverage_slot_ms(600, HOUR_S) * 16 == 8 * HOUR_S * 1000
    assert coverage_slot_ms(0, 0) > 0


# --- subscriptions ----------------------------------------------------------------------------------------------------


@given(life_ms=st.integers(1, 10**12), chance=st.floats(0, 1))
def test_a_subscription_is_renewed_at_about_two_thirds_of_its_life(life_ms: int, chance: float):
    at_ms = renew_at_ms(1_000, 1_000 + life_ms, chance)
    assert at_ms is not None and 0.61 * life_ms - 1 <= at_ms - 1_000 <= 0.71 * life_ms + 1


def test_one_without_an_end_is_not_renewed_and_one_that_has_ended_is_at_once():
    assert renew_at_ms(1_000, None, 0.5) is None
    assert renew_at_ms(1_000, 500, 0.5) == 1_000


def test_failures_are_tried_again_ever_more_rarely_up_to_an_hour():
    waits = [retry_upkeep_ms(failures, 0) for failures in range(1, 40)]
    assert waits[:3] == [10_000, 20_000, 40_000] and waits[-1] == 3_600_000 and waits == sorted(waits)
    assert retry_upkeep_ms(1, 1) == pytest.approx(6_667, abs=1)
