"""The words for each standing: one sentence each, the same on every screen."""

from __future__ import annotations

import pytest

from sourcebus.bus import COUNTED_AS, REASONS, WAITED
from sourcebus.bus.standing import in_words


@pytest.mark.parametrize(
    ("state", "reason", "left_s", "in_flight", "words"),
    [
        ("idle", "", None, 0, "nothing to do"),
        ("ready", "", None, 2, "running"),
        ("ready", "", None, 0, "about to run"),
        ("waiting", "tokens", 3.0, 0, "waits for tokens, 3 s"),
        ("waiting", "tokens", 0.4, 1, "running; waits for tokens, 0.4 s"),
        ("waiting", "provider_pause", 41.0, 0, "provider said wait, 41 s"),
        ("waiting", "out_of_reach", 41.0, 0, "out of reach, tries again in 41 s"),
        ("waiting", "window_or_backoff", 12.0, 0, "window or back-off, 12 s"),
        ("waiting", "window_or_backoff", None, 0, "window or back-off"),
        ("blocked", "cap", None, 4, "running; at its cap of 4"),
        ("blocked", "cap", None, 0, "at its cap of 4"),
        ("ready", "no_worker", None, 0, "ready, no worker is running"),
        ("ready", "no_worker", None, 3, "ready, no worker is running"),
        ("ready", "workers_busy", None, 0, "ready, no worker is free"),
        ("ready", "workers_busy", None, 1, "running; no worker is free for more"),
        ("blocked", "paused", None, 0, "paused by a person"),
        ("blocked", "paused", None, 1, "paused by a person; what was begun is finished"),
    ],
)
def test_words(state: str, reason: str, left_s: float | None, in_flight: int, words: str) -> None:
    assert in_words(state, reason, left_s, in_flight=in_flight, cap=4, shared=False) == words


def test_every_reason_but_a_persons_is_counted_under_a_known_name() -> None:
    assert set(COUNTED_AS) == set(REASONS) - {"paused"}
    assert set(COUNTED_AS.values()) == set(WAITED)
