"""Signing in by a key file against the simulator, what a config may say, and one quota for all sources of a user."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.connectors.google_drive_source import config, connect, key_file

from sourcebus.connectors import create
from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.connectors.google_drive.connector import BURST, CONCURRENCY, RATE_PER_S
from sourcebus.errors import ConnectorError, InvalidInput, NeedsAuth, ObjectUnreadable, SourceUnavailable, Throttled
from sourcebus.model import Change, Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.google_drive import DriveFacts, GoogleDriveSimulator, refusal
from sourcebus.testing.providers.google_drive_files import DOCUMENT, SimDrive
from sourcebus.testing.providers.server import Answer


@pytest.fixture(scope="module")
def shared() -> Generator[GoogleDriveSimulator]:
    with GoogleDriveSimulator(enforce=False) as simulated:
        yield simulated


@pytest.fixture
def google(shared: GoogleDriveSimulator) -> Generator[GoogleDriveSimulator]:
    """Nobody is signed in."""
    shared.tokens.clear()
    shared.asked.clear()
    yield shared
    shared.accept_again()


@pytest.fixture
def drive(google: GoogleDriveSimulator) -> SimDrive:
    drive = google.shared_drive()
    google.put(drive, "a.txt", "text")
    return drive


def sign_ins(google: GoogleDriveSimulator) -> int:
    return sum(asked.path == "/token" for asked in google.asked)


def test_one_token_serves_all_sources_of_an_account(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    """Also when eight threads come at once."""
    secret = google.key_file()
    settings = [config(google, drive=one.id) for one in (drive, google.shared_drive())]
    one, two = (GoogleDriveConnector.create(one, secret) for one in settings)
    with closing(one), closing(two):
        threads = [threading.Thread(target=listing, args=(made,)) for made in [one, two] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sign_ins(google) == 1


def test_a_token_that_was_withdrawn_is_fetched_anew(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    with closing(connect(google, drive=drive.id)) as connector:
        listing(connector)
        google.tokens.clear()
        before = sign_ins(google)
        assert listing(connector).complete
    assert sign_ins(google) == before + 1


def test_a_token_is_renewed_before_it_ends(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    """Five minutes before, a short one at half its life; so nobody has to be refused first."""
    with closing(GoogleDriveConnector.create(config(google, drive=drive.id), google.key_file())) as connector:
        google.tokens["short"] = (google.email, float("inf"))
        google.refuse(Answer(200, {"access_token": "short", "expires_in": 1e-6}), path="/token")
        connector.version("1nonexistent")
        connector.version("1nonexistent")
        assert connector.version("1nonexistent") is None
    used = [asked.headers["authorization"] == "Bearer short" for asked in google.asked if asked.path != "/token"]
    assert used[0]
    assert not any(used[1:])
    assert sign_ins(google) == 2


def test_a_drive_that_refuses_every_token_needs_a_person(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    with closing(connect(google, drive=drive.id)) as connector:
        google.refuse(refusal(401, "authError", "Invalid Credentials"), times=10, path="/drive/.*")
        before = sign_ins(google)
        with pytest.raises(NeedsAuth):
            listing(connector)
    assert sign_ins(google) <= before + 2


def test_either_of_two_living_keys_signs_in(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    """While a key is being replaced, and whichever of them Google knows."""
    new, old = google.key_file(), google.key_file()
    secret = json.dumps({"service_account": [json.loads(new), old]})
    with closing(GoogleDriveConnector.create(config(google, drive=drive.id), secret)) as connector:
        assert listing(connector).complete
        google.delete_key(new)
        google.tokens.clear()
        assert listing(connector).complete
        before = sign_ins(google)
        google.tokens.clear()
        assert listing(connector).complete
        assert sign_ins(google) == before + 1, "the one that works is asked first from then on"
        google.delete_key(old)
        google.tokens.clear()
        with pytest.raises(NeedsAuth, match=r"invalid_grant: Invalid JWT Signature\.") as refused:
            listing(connector)
    assert "PRIVATE KEY" not in str(refused.value)


def test_a_user_whom_nobody_delegated_is_told_in_google_s_words(google: GoogleDriveSimulator) -> None:
    refused = pytest.raises(NeedsAuth, match=r"for eve@example\.com: unauthorized_client: Client is unauthorized")
    with closing(connect(google, subject="eve@example.com")) as connector, refused:
        listing(connector)


def test_a_busy_or_absent_sign_in_is_no_refusal(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    secret = google.key_file()
    with closing(GoogleDriveConnector.create(config(google, drive=drive.id), secret)) as connector:
        google.refuse(Answer(429, {"error": "rate_limit"}, {"Retry-After": "5"}), path="/token")
        with pytest.raises(Throttled) as throttled:
            connector.version("1nonexistent")
        assert throttled.value.retry_after_ms == 5_000
        for answer in (Answer(500, b"<html>"), Answer(200, b"<html>a proxy's page</html>"), Answer(200, [])):
            google.refuse(answer, path="/token")
            with pytest.raises(SourceUnavailable):
                connector.version("1nonexistent")
        assert connector.version("1nonexistent") is None
    away = config(google, drive=drive.id) | {"token_url": "http://127.0.0.1:9/token"}
    with closing(GoogleDriveConnector.create(away, secret)) as connector, pytest.raises(SourceUnavailable):
        connector.version("1nonexistent")


# what a refusal means


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (refusal(403, "userRateLimitExceeded", "slower"), Throttled),
        (refusal(403, "rateLimitExceeded", "slower"), Throttled),
        (refusal(403, "dailyLimitExceeded", "tomorrow"), Throttled),
        (refusal(429, "rateLimitExceeded", "slower"), Throttled),
        (Answer(429, b"slower"), Throttled),
        (Answer(503, b"", {"Retry-After": "3"}), Throttled),
        (Answer(403, {"error": {"details": [{"reason": "RATE_LIMIT_EXCEEDED"}], "message": "slower"}}), Throttled),
        (refusal(403, "insufficientFilePermissions", "no"), ObjectUnreadable),
        (refusal(403, "domainPolicy", "no"), ObjectUnreadable),
        (Answer(403, b"<html>"), ObjectUnreadable),
        (refusal(403, "accessNotConfigured", "the API is not enabled"), NeedsAuth),
        (Answer(403, {"error": {"details": [{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}), NeedsAuth),
        (refusal(500, "backendError", "sorry"), SourceUnavailable),
        (refusal(503, "transientError", "sorry"), SourceUnavailable),
        (refusal(400, "badRequest", "what?"), ConnectorError),
        (Answer(403, {"error": {"errors": ["no object"]}}), ObjectUnreadable),
    ],
    ids=lambda value: str(getattr(value, "body", value))[:80],
)
def test_what_a_refusal_means(google: GoogleDriveSimulator, drive: SimDrive, answer: Answer, meaning: type[Exception]) -> None:
    with closing(connect(google, drive=drive.id)) as connector:
        google.refuse(answer, path=".*/files/.*")
        with pytest.raises(ConnectorError) as refused:
            connector.version("1nonexistent")
    assert type(refused.value) is meaning
    if meaning is Throttled and "dailyLimit" in str(answer.body):
        assert isinstance(refused.value, Throttled)
        assert refused.value.retry_after_ms == 900_000


# settings


GOOD: dict[str, Any] = {"drive": "0AExampleExample", "folders": ["1folderfolder"], "subject": "ada@example.com"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"drive": "../../x"}, "config.drive"),
        ({"drive": 7}, "config.drive"),
        ({"folders": ["1folderfolder", "no id"]}, "config.folders[1]"),
        ({"folders": {"a": 1}}, "config.folders[0]"),
        ({"folders": ["1folderfolder"] * 51}, "config.folders"),
        ({"folders": "https://drive.example.com/drive/folders/1folderfolder"}, "config.folders[0]"),
        ({"subject": "ada"}, "config.subject"),
        ({"drive_url": "http://www.example.com/drive/v3"}, "config.drive_url"),
        ({"token_url": "file:///etc/passwd"}, "config.token_url"),
        ({"max_bytes": 0}, "config.max_bytes"),
        ({"max_bytes": True}, "config.max_bytes"),
        ({"folder": "1folderfolder"}, "config.folder"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_setting_is_named(google: GoogleDriveSimulator, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("google_drive", GOOD | change, key_file(google))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "folder",
    [
        "1folderfolder",
        " 1folderfolder ",
        "https://drive.google.com/drive/folders/1folderfolder",
        "https://drive.google.com/drive/u/0/folders/1folderfolder?usp=sharing",
    ],
)
def test_a_folder_may_be_named_by_its_address(google: GoogleDriveSimulator, folder: str) -> None:
    with closing(connect(google, drive="https://drive.google.com/drive/folders/0Adrivedrive", folders=folder)) as connector:
        google.refuse(refusal(404, "notFound", "File not found"), path=".*/files/1folderfolder")
        with pytest.raises(ConnectorError, match="the folder 1folderfolder does not exist"):
            listing(connector)


@pytest.mark.parametrize(
    "secret",
    [
        *(None, "", "{", "[]", "s3cret", '{"type": "service_account"}', '{"service_account": []}'),
        '{"service_account": ["s3cret"]}',
        '{"client_email": "a@b.c", "private_key": "s3cret"}',
        '{"service_account": {"private_key": "s3cret"}, "other": 1}',
    ],
)
def test_a_wrong_secret_is_not_repeated(secret: str | None) -> None:
    with pytest.raises(InvalidInput) as refused:
        create("google_drive", GOOD, secret)
    assert refused.value.field == "secret"
    assert "s3cret" not in str(refused.value)


def test_keys_of_two_accounts_are_a_mistake(google: GoogleDriveSimulator) -> None:
    one = json.loads(key_file(google))
    with pytest.raises(InvalidInput, match="several accounts"):
        create("google_drive", GOOD, json.dumps({"service_account": [one, one | {"client_email": "other@example.com"}]}))


def test_nothing_shows_the_key(google: GoogleDriveSimulator) -> None:
    with closing(connect(google, **GOOD)) as connector:
        assert "PRIVATE" not in repr(vars(connector))
        assert "rsa" not in repr(vars(connector)).lower()


# quota


def test_sources_of_one_user_share_one_quota(google: GoogleDriveSimulator) -> None:
    def bucket(**place: Any) -> str | None:
        with closing(connect(google, **place)) as connector:
            return connector.recommended.quota.bucket

    own = f"google_drive:{google.project}:{google.email}"
    assert bucket(drive="0Adrivedrive") == bucket(folders=["1folderfolder"]) == own
    assert bucket(subject="Ada@example.com") == f"google_drive:{google.project}:ada@example.com"


def test_what_calls_cost(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    """In Google's units, as the simulated provider counts them too."""
    document = google.put(drive, "in/plan", "text", DOCUMENT).id
    file = google.put(drive, "in/deep/a.txt", "text").id
    with (
        closing(connect(google, drive=drive.id)) as whole,
        closing(connect(google, drive=drive.id, folders=[drive.folder("in")])) as part,
    ):
        for connector, ask, units in (
            (whole, lambda: listing(whole), 5 + 5 + 100 + 100),
            (whole, lambda: listing(whole, listing(whole).cursor), 5 + 5 + 100 + 100 + 100),
            (whole, lambda: (whole.fingerprint(file), whole.version(file)), 5),
            (whole, lambda: (whole.fingerprint(file), whole.version(file), whole.extract(file)), 5 + 200),
            (whole, lambda: (whole.fingerprint(document), whole.version(document), whole.extract(document)), 5 + 200),
            (part, lambda: part.version(file), 5 + 5),
        ):
            before, _ = google.meter.spent, connector.take_cost()
            ask()
            assert connector.take_cost() == google.meter.spent - before == units


def test_a_batch_asks_for_the_folders_above_it_once(google: GoogleDriveSimulator) -> None:
    """And the next one anew: a folder may have moved before it was claimed."""
    drive = google.shared_drive()
    refs = [google.put(drive, f"in/deep/deeper/{number}.txt", "text").id for number in range(4)]
    with closing(connect(google, drive=drive.id, folders=[drive.folder("in")])) as connector:
        connector.begin_batch()
        assert all(connector.version(ref) for ref in refs)
        assert connector.take_cost() == 4 * 5 + 2 * 5
        drive.move(drive.folder("in/deep"), drive.id)
        connector.begin_batch()
        assert [connector.version(ref) for ref in refs] == [None] * 4


def test_an_overdrawn_quota_stops_a_listing_where_it_can_go_on() -> None:
    """In either of the two ways in which Google refuses."""
    with GoogleDriveSimulator(facts=replace(DriveFacts(), burst=320, rate_per_s=0.01)) as google:
        drive = google.shared_drive()
        refs = {google.put(drive, f"{number}.txt", "text").id for number in range(11)}
        google.page_size = 2
        told: list[Change | Cursor] = []
        with closing(connect(google, drive=drive.id)) as connector:
            with pytest.raises(Throttled):
                for item in connector.changes(None):
                    told.append(item)
            cut = next(item for item in reversed(told) if isinstance(item, Cursor))
            with pytest.raises(Throttled):
                listing(connector, cut.value)
            google.meter.enforce = False
            rest = listing(connector, cut.value)
        assert rest.complete
        assert {item.object_ref for item in told if isinstance(item, Change)} | set(rest.found) == refs


ROOT = Path(__file__).parents[2]
FACTS = next((path for above in ROOT.parents if (path := above / "shared" / "providers" / "providers.json").exists()), None)


@pytest.mark.skipif(FACTS is None, reason="needs ../shared/providers/providers.json, which is no part of the package")
def test_facts_are_as_gathered() -> None:
    assert FACTS is not None
    gathered = json.loads(FACTS.read_text("utf-8"))["sources"]["google_drive"]
    quota, costs, facts = gathered["quota"], gathered["unit_costs"], DriveFacts()
    assert (quota["rate_per_s"], quota["burst"]) == (facts.rate_per_s, facts.burst) == (RATE_PER_S, BURST)
    assert quota["concurrency"] == CONCURRENCY
    assert (costs["get"], costs["list"], costs["download"], costs["other"]) == (
        facts.get,
        facts.list,
        facts.download,
        facts.other,
    )
    assert gathered["subscription_ttl_s"] == facts.longest_channel_s
