"""The simulator's numbers are those that were gathered of the provider, where that collection is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sourcebus.connectors.sharepoint.connector import BURST, CONCURRENCY, RATE_PER_S
from sourcebus.testing.providers.graph_meter import GraphFacts

ROOT = Path(__file__).parents[2]
FACTS = next((path for above in ROOT.parents if (path := above / "shared" / "providers" / "providers.json").exists()), None)


@pytest.mark.skipif(FACTS is None, reason="needs ../shared/providers/providers.json, which is no part of the package")
def test_facts_are_as_gathered() -> None:
    assert FACTS is not None
    gathered = json.loads(FACTS.read_text("utf-8"))["sources"]["msgraph_files"]
    quota, costs, facts = gathered["quota"], gathered["unit_costs"], GraphFacts()
    assert (quota["rate_per_s"], quota["burst"]) == (facts.rate_per_s, facts.burst) == (RATE_PER_S, BURST)
    assert quota["concurrency"] == CONCURRENCY
    assert costs["get_item"] == costs["delta_with_token"] == costs["download"] == facts.single
    assert costs["list_or_delta_without_token"] == facts.several
    assert costs["permissions"] == facts.permissions
    assert gathered["ack_deadline_s"] == facts.ack_deadline_s
    assert gathered["subscription_ttl_s"] == facts.longest_subscription_s
    assert gathered["handshake"]["deadline_s"] == facts.handshake_s
    assert gathered["signature"]["max_len"] == facts.client_state_chars
