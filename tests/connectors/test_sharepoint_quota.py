"""One quota for all sources of an app, and what happens when it is overdrawn."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from tests.connectors.sharepoint_source import connect

from sourcebus.errors import Throttled
from sourcebus.model import Change, Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_meter import GraphFacts, Meter


def test_sources_of_one_app_share_one_quota() -> None:
    with (
        GraphSimulator() as tenant,
        closing(connect(tenant, drive="b!one")) as one,
        closing(connect(tenant, site="contoso.sharepoint.com/sites/two")) as two,
    ):
        quota = one.recommended.quota
        assert quota == two.recommended.quota
        assert (quota.rate, quota.burst, quota.concurrency) == (15, 40, 8)
        assert quota.bucket == f"graph:{tenant.tenant}:{tenant.client_id}"


def test_the_simulated_quota_refuses_and_tells_when_to_come_back() -> None:
    now = [0.0]
    meter = Meter(GraphFacts(), clock_s=lambda: now[0])
    answers = [meter.charge(1) for _ in range(50)]
    assert [granted for granted, _headers in answers].count(True) == 40
    assert answers[0][1] == {}
    assert "RateLimit-Remaining" in answers[39][1]
    now[0] += float(answers[-1][1]["Retry-After"])
    assert meter.charge(1)[0]


def test_an_overdrawn_quota_stops_a_listing_where_it_can_go_on() -> None:
    """The provider counts for all sources of the app together, and what it has granted is not lost."""
    with GraphSimulator(facts=replace(GraphFacts(), burst=5, rate_per_s=0.01)) as tenant:
        drive = tenant.drive()
        refs = {tenant.put(drive, f"{number}.txt", "text").id for number in range(11)}
        tenant.page_size = 2
        told: list[Change | Cursor] = []
        with closing(connect(tenant, drive=drive.id)) as connector:
            with pytest.raises(Throttled) as throttled:
                for item in connector.changes(None):
                    told.append(item)
            assert (throttled.value.retry_after_ms or 0) >= 1_000
            cut = next(item for item in reversed(told) if isinstance(item, Cursor))
            tenant.meter.enforce = False
            rest = listing(connector, cut.value)
        assert rest.complete
        assert {item.object_ref for item in told if isinstance(item, Change)} | set(rest.found) == refs
