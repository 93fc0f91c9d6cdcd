"""Signing in through MSAL against the simulated directory, and what a config may say."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
from tests.connectors.sharepoint_source import config, connect

from sourcebus.connectors import create
from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.errors import InvalidInput, NeedsAuth, SourceUnavailable, Throttled
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.server import Answer

SIGN_IN = "/[^/]*/oauth2/v2.0/token"


@pytest.fixture
def tenant() -> Generator[GraphSimulator]:
    with GraphSimulator(enforce=False) as simulated:
        yield simulated


@pytest.fixture
def drive(tenant: GraphSimulator) -> SimDrive:
    drive = tenant.drive()
    tenant.put(drive, "a.txt", "text")
    return drive


def sign_ins(tenant: GraphSimulator) -> int:
    return sum(asked.path.endswith("/oauth2/v2.0/token") for asked in tenant.asked)


def test_one_token_serves_all_sources_of_an_app(tenant: GraphSimulator, drive: SimDrive) -> None:
    """Also when eight threads come at once."""
    other = tenant.drive()
    with closing(connect(tenant, drive=drive.id)) as one, closing(connect(tenant, drive=other.id)) as two:
        threads = [threading.Thread(target=listing, args=(made,)) for made in [one, two] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sign_ins(tenant) == 1
    assert sum(asked.path.endswith("openid-configuration") for asked in tenant.asked) == 1


def test_a_token_that_was_withdrawn_is_fetched_anew(tenant: GraphSimulator, drive: SimDrive) -> None:
    with closing(connect(tenant, drive=drive.id)) as connector:
        listing(connector)
        tenant.revoke_tokens()
        assert listing(connector).complete
    assert sign_ins(tenant) == 2


def test_a_token_is_renewed_before_it_ends() -> None:
    """MSAL takes one that is good for less than five minutes for one that has ended."""
    with GraphSimulator(enforce=False, token_s=200) as tenant, closing(connect(tenant, drive=tenant.drive().id)) as connector:
        listing(connector)
        listing(connector)
        assert sign_ins(tenant) == 2


def test_a_graph_that_refuses_every_token_needs_a_person(tenant: GraphSimulator, drive: SimDrive) -> None:
    with closing(connect(tenant, drive=drive.id)) as connector:
        tenant.refuse(Answer(401, {"error": {"code": "InvalidAuthenticationToken"}}), times=10, path="/v1.0/.*")
        with pytest.raises(NeedsAuth):
            listing(connector)
    assert sign_ins(tenant) == 2


def test_either_of_two_living_secrets_signs_in(tenant: GraphSimulator, drive: SimDrive) -> None:
    """While a secret is being replaced, and whichever of them the directory knows already."""
    for known in (["new"], ["old"], ["old", "new"]):
        tenant.secrets = known
        secret = json.dumps({"client_secret": ["new", "old"]})
        with closing(SharePointConnector.create(config(tenant, drive=drive.id), secret)) as connector:
            tenant.revoke_tokens()
            assert listing(connector).complete


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret": "not it"}, "AADSTS7000215"),
        ({"client_id": "11111111-0000-4000-8000-000000000000"}, "AADSTS700016"),
        ({"tenant": "22222222-0000-4000-8000-000000000000"}, "AADSTS90002"),
    ],
)
def test_a_refusal_is_told_in_the_directorys_words(
    tenant: GraphSimulator, drive: SimDrive, wrong: dict[str, str], code: str
) -> None:
    given = dict(wrong)
    secret = given.pop("secret", tenant.secrets[0])
    made = SharePointConnector.create(config(tenant, drive=drive.id) | given, secret)
    with closing(made) as connector, pytest.raises(NeedsAuth, match=code) as refused:
        connector.version("01ABC")
    assert secret not in str(refused.value)


def test_a_busy_directory_is_waited_for(tenant: GraphSimulator, drive: SimDrive) -> None:
    with closing(connect(tenant, drive=drive.id)) as connector:
        tenant.refuse(Answer(429, {"error": "temporarily_unavailable"}, {"Retry-After": "5"}), path=SIGN_IN)
        with pytest.raises(Throttled) as throttled:
            connector.version("01ABC")
        assert throttled.value.retry_after_ms == 5_000
        for answer in (Answer(500, b"<html>"), Answer(200, b"<html>a proxy's page</html>")):
            tenant.refuse(answer, path=SIGN_IN)
            with pytest.raises(SourceUnavailable):
                connector.version("01ABC")
        assert connector.version("01ABC") is None


def test_a_directory_that_is_away_is_an_outage(tenant: GraphSimulator, drive: SimDrive) -> None:
    settings = config(tenant, drive=drive.id) | {"authority": "http://127.0.0.1:9"}
    with closing(SharePointConnector.create(settings, "secret")) as connector, pytest.raises(SourceUnavailable):
        connector.version("01ABC")


# settings

GOOD: dict[str, Any] = {"tenant": "contoso.com", "client_id": "app", "site": "contoso.sharepoint.com/sites/team"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant": None}, "config.tenant"),
        ({"client_id": " "}, "config.client_id"),
        ({"site": None}, "config.site"),
        ({"drive": "b!x"}, "config.drive"),
        ({"site": None, "drive": "../../me"}, "config.drive"),
        ({"site": "not a host"}, "config.site"),
        ({"site": "contoso.sharepoint.com/sites/team?x=1"}, "config.site"),
        ({"site": None, "user": "ada@contoso.com", "library": "Documents"}, "config.library"),
        ({"graph_url": "http://graph.example.com/v1.0"}, "config.graph_url"),
        ({"authority": "ftp://login.example.com"}, "config.authority"),
        ({"user_agent": "Mozilla/5.0"}, "config.user_agent"),
        ({"max_bytes": 0}, "config.max_bytes"),
        ({"max_bytes": True}, "config.max_bytes"),
        ({"folder": "x"}, "config.folder"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], field: str) -> None:
    given = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(InvalidInput) as refused:
        create("sharepoint", given, "secret")
    assert refused.value.field == field


@pytest.mark.parametrize("secret", [None, "", '{"password": "x"}', '{"client_secret": []}', "{"])
def test_a_wrong_secret_is_not_repeated(secret: str | None) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("sharepoint", GOOD, secret)
    assert refused.value.field == "secret"


def test_nothing_shows_the_secret() -> None:
    with closing(create("sharepoint", GOOD, "s3cret")) as connector:
        assert "s3cret" not in repr(vars(connector))


@pytest.mark.parametrize(
    "site", ["contoso.sharepoint.com", "https://contoso.sharepoint.com/sites/a b/", "contoso.sharepoint.com,1-2,3-4"]
)
def test_every_way_to_name_a_site(site: str) -> None:
    create("sharepoint", GOOD | {"site": site, "user_agent": "ISV|Contoso|Finder/2.1"}, "secret").close()
