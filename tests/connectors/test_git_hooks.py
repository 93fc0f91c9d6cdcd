"""Push hooks: a real `git push` over HTTP with the hook of examples/git-post-receive, and what the git hosts send."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.connectors.git_serving import Open, git_open, git_server, repository

from sourcebus.connectors.git import GitConnector
from sourcebus.errors import InvalidInput, SourcebusError, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard
from sourcebus.testing.git_server import GitServer, Repository, WorkingCopy
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

fixtures = (git_open, git_server, repository)

SCRIPT = Path(__file__).parents[2] / "examples" / "git-post-receive" / "post-receive"
SCAN = [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
ZERO, OLD, NEW = "0" * 40, "1" * 40, "2" * 40


class Receiver:
    """A hook's address, as the gateway gives one: it parses what arrives and answers 202, or 401."""

    def __init__(self, provider: ProviderServer, connector: GitConnector) -> None:
        self.connector, self.url = connector, f"{provider.url}/hooks/project"
        self.heard: list[Heard] = []
        self.asked: list[Asked] = []
        self.refused: list[SourcebusError] = []
        provider.on("POST", "/hooks/project", self._answer)

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        delivery = Delivery("POST", asked.headers, asked.body, int(time.time() * 1000))
        try:
            self.heard.append(self.connector.parse_webhook(delivery, ()))
        except SourcebusError as refused:
            self.refused.append(refused)
            return Answer(401)
        return Answer(202)

    def last(self) -> dict[str, ChangeKind]:
        """The push hook waits for our answer, so what it sent is here when the push is over."""
        return {change.object_ref: change.change_kind for change in self.heard[-1].changes}


@pytest.fixture
def receiver(repository: Repository, git_open: Open) -> Iterator[Receiver]:
    with ProviderServer() as provider:
        receiver = Receiver(provider, git_open('{"webhook": ["newer", "told to the hook"]}', exclude=["*.log"]))
        repository.install_hook(SCRIPT, receiver.url, "told to the hook")
        yield receiver


@pytest.fixture
def copy(receiver: Receiver, repository: Repository, tmp_path: Path) -> WorkingCopy:
    """A clone with one commit pushed."""
    repository.commit({"a.md": b"one", "b.md": b"two"})
    return WorkingCopy(repository, tmp_path / "copy")


# the real thing


def test_a_push_names_every_path(receiver: Receiver, copy: WorkingCopy) -> None:
    (copy.folder / "a.md").write_text("changed")
    (copy.folder / "b.md").rename(copy.folder / "ünï \N{SNOWMAN}.md")
    (copy.folder / "noise.log").write_text("not an object of this source")
    copy.commit()
    (copy.folder / "later.md").write_text("in a second commit")
    copy.commit()
    copy.push()
    assert receiver.last() == {
        "a.md": ChangeKind.UPDATED,
        "b.md": ChangeKind.DELETED,
        "ünï \N{SNOWMAN}.md": ChangeKind.CREATED,
        "later.md": ChangeKind.CREATED,
    }
    for path, kind in receiver.last().items():
        assert (receiver.connector.version(path) is None) is (kind is ChangeKind.DELETED)


def test_a_path_that_is_no_utf8_is_named_as_the_listing_names_it(receiver: Receiver, copy: WorkingCopy) -> None:
    name = b"caf\xe9.md".decode("utf-8", "surrogateescape")
    (copy.folder / name).write_text("x")
    copy.commit()
    copy.push()
    assert receiver.last() == {name: ChangeKind.CREATED}
    assert receiver.connector.version(name) is not None


def test_a_force_push_names_what_it_took_back(receiver: Receiver, copy: WorkingCopy) -> None:
    (copy.folder / "regretted.md").write_text("x")
    copy.commit()
    copy.push()
    copy.git("reset", "--quiet", "--hard", "HEAD~1")
    (copy.folder / "instead.md").write_text("x")
    copy.commit()
    copy.push("--force", "HEAD")
    assert receiver.last() == {"regretted.md": ChangeKind.DELETED, "instead.md": ChangeKind.CREATED}


def test_other_branches_and_tags_say_nothing(receiver: Receiver, copy: WorkingCopy) -> None:
    (copy.folder / "c.md").write_text("x")
    copy.commit()
    copy.push("HEAD:refs/heads/topic")
    assert (receiver.last(), "not to main" in receiver.heard[-1].note) == ({}, True)
    copy.git("tag", "-a", "v1", "-m", "release")
    copy.push("v1")
    assert len(receiver.heard) == 1  # the script tells of branches only
    copy.push("HEAD", "v1:refs/tags/v2", "HEAD:refs/heads/topic2")  # three refs in one push: two branches, two deliveries
    assert sorted(len(heard.changes) for heard in receiver.heard) == [0, 0, 1]
    copy.push(":refs/heads/topic")
    assert receiver.last() == {}


def test_a_branch_that_is_deleted_and_comes_back(receiver: Receiver, copy: WorkingCopy, repository: Repository) -> None:
    repository.git("config", "receive.denyDeleteCurrent", "ignore")
    copy.push(":refs/heads/main")
    assert (receiver.heard[-1].changes, "deleted" in receiver.heard[-1].note) == (SCAN, True)
    copy.push("HEAD:refs/heads/main")
    assert receiver.heard[-1].changes == SCAN


def test_a_push_of_very_many_files_is_a_scan(receiver: Receiver, copy: WorkingCopy) -> None:
    for number in range(1_001):
        (copy.folder / f"f{number}.md").touch()
    copy.commit()
    copy.push()
    assert receiver.heard[-1].changes == SCAN


def test_who_pushes_reads_that_sourcebus_was_not_told(receiver: Receiver, copy: WorkingCopy, repository: Repository) -> None:
    """And the push stands."""
    repository.git("config", "sourcebus.secret", "not the right one")
    copy.commit()
    said = subprocess.run(
        ["git", "-C", str(copy.folder), "push", "origin", "HEAD"], capture_output=True, text=True, check=True, env=quiet()
    ).stderr
    assert "sourcebus: not told of refs/heads/main" in said
    assert "not the right one" not in said
    assert isinstance(receiver.refused[0], Unverified)
    assert repository.head() == copy.git("rev-parse", "HEAD").strip()


def quiet() -> Mapping[str, str]:
    from sourcebus.testing.git_server import ENVIRONMENT

    return ENVIRONMENT


# proofs


def connector(secret: str | None = '{"webhook": ["new", "old"]}', **config: Any) -> GitConnector:
    return GitConnector.create({"url": "https://git.example/Group/Project.git", "cache_dir": "/nowhere", **config}, secret)


def signed(body: bytes, secret: str = "new") -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def hear(headers: Mapping[str, str], body: bytes, to: GitConnector | None = None, *, at_s: float | None = None) -> Heard:
    made = to or connector()
    try:
        return made.parse_webhook(Delivery("POST", headers, body, round((at_s or time.time()) * 1000)), ())
    finally:
        made.close()


def github(push: Any, *, event: str = "push", secret: str = "new", to: GitConnector | None = None) -> Heard:
    body = json.dumps(push).encode()
    headers = {
        "x-github-event": event,
        "x-github-delivery": "72d3162e",
        "x-hub-signature-256": "sha256=" + signed(body, secret),
    }
    return hear(headers, body, to)


def commit(oid: str = NEW, **paths: list[Any]) -> dict[str, Any]:
    none: dict[str, list[Any]] = {"added": [], "removed": [], "modified": []}
    return {"id": oid, **none, **paths}


def push(**changed: Any) -> dict[str, Any]:
    """As docs.github.com, "Webhook events and payloads", push."""
    return {
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "created": False,
        "deleted": False,
        "forced": False,
        "repository": {"full_name": "group/project", "default_branch": "main"},
        "commits": [commit(added=["new.md"], removed=["old.md"], modified=["docs/a.md"])],
    } | changed


@pytest.mark.parametrize("secret", ["new", "old"])
def test_every_living_secret_proves(secret: str) -> None:
    assert github(push(), secret=secret).changes


def test_gitea_forgejo_and_gogs_sign_under_their_own_names() -> None:
    body = json.dumps({key: value for key, value in push().items() if key not in ("forced", "created", "deleted")}).encode()
    for host in ("gitea", "forgejo", "gogs"):
        headers = {f"x-{host}-event": "push", f"x-{host}-delivery": host, f"x-{host}-signature": signed(body)}
        heard = hear(headers, body)
        assert (heard.changes, heard.delivery_id) == (SCAN, host)
        with pytest.raises(Unverified):
            hear(headers | {f"x-{host}-signature": signed(body, "wrong")}, body)


def test_gitlab_sends_its_token() -> None:
    body = json.dumps(
        {
            "object_kind": "push",
            "ref": "refs/heads/main",
            "before": OLD,
            "after": NEW,
            "project": {"path_with_namespace": "group/project", "default_branch": "main"},
            "commits": [commit(added=["new.md"])],
            "total_commits_count": 1,
        }
    ).encode()
    headers = {"x-gitlab-event": "Push Hook", "x-gitlab-event-uuid": "13792a34", "x-gitlab-token": "old"}
    assert (hear(headers, body).changes, hear(headers, body).delivery_id) == (SCAN, "13792a34")
    for token in ("wrong", ""):
        with pytest.raises(Unverified):
            hear(headers | {"x-gitlab-token": token}, body)
    assert hear(headers | {"x-gitlab-event": "Tag Push Hook"}, body).changes == ()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature-256": ""},
        {"x-hub-signature-256": "sha256="},
        {"x-hub-signature-256": "sha256=" + "0" * 64},
        {"x-hub-signature-256": "sha1=" + "0" * 40},
        {"x-hub-signature-256": "sha256=\N{SNOWMAN}"},
        {"x-hub-signature": "sha1=" + "0" * 40},  # GitHub's older header is not taken
        {"x-gitea-signature": "00"},
    ],
)
def test_what_is_not_proven_is_refused(headers: Mapping[str, str]) -> None:
    with pytest.raises(Unverified):
        hear({"x-github-event": "push"} | dict(headers), json.dumps(push()).encode())


@pytest.mark.parametrize("headers", [{}, {"x-gitlab-token": "None"}, {"x-hub-signature-256": "sha256=" + "0" * 64}])
def test_without_a_secret_nothing_is_believed(headers: Mapping[str, str]) -> None:
    with pytest.raises(Unverified, match="no webhook secret"):
        hear(headers, b"{}", connector("only a token"))


def test_a_forged_signature_does_not_lead_to_the_token() -> None:
    """Whoever knows GitLab's token (it travels in the clear) may not skip a signature that is there."""
    with pytest.raises(Unverified):
        hear({"x-gitlab-token": "new", "x-hub-signature-256": "sha256=" + "0" * 64}, b"{}")


def test_a_replayed_delivery_of_the_script_is_refused_when_it_is_old() -> None:
    now_s = time.time()
    body = json.dumps({"ref": "refs/heads/main", "after": NEW, "paths": {"a": "updated"}, "sent_s": now_s}).encode()
    headers = {"x-sourcebus-event": "push", "x-hub-signature-256": "sha256=" + signed(body)}
    to = connector(branch="main")
    assert hear(headers, body, to, at_s=now_s + 299).changes
    for at_s in (now_s + 301, now_s - 301):
        with pytest.raises(Unverified, match="clocks"):
            hear(headers, body, to, at_s=at_s)
    timeless = json.dumps({"ref": "refs/heads/main", "after": NEW}).encode()
    with pytest.raises(Unverified):
        hear({**headers, "x-hub-signature-256": "sha256=" + signed(timeless)}, timeless, to)


# what a payload says


def test_a_github_push_names_its_paths() -> None:
    heard = github(push())
    assert [*heard.changes] == [
        Change("old.md", ChangeKind.DELETED),
        Change("docs/a.md", ChangeKind.UPDATED),
        Change("new.md", ChangeKind.CREATED),
    ]
    assert heard.delivery_id == "72d3162e"


def test_a_form_is_read_as_the_json_it_holds() -> None:
    body = urlencode({"payload": json.dumps(push())}).encode()
    headers = {
        "x-github-event": "push",
        "content-type": "application/x-www-form-urlencoded",
        "x-hub-signature-256": "sha256=" + signed(body),
    }
    assert len(hear(headers, body).changes) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"forced": True},
        {"created": True, "before": ZERO},
        {"before": ZERO},
        {"commits": []},
        {"commits": None},
        {"commits": [commit(str(number) * 40) for number in (3, 4, 5)]},  # the newest is missing
        {"commits": [*(commit("3" * 40) for _ in range(19)), commit()]},  # as many as may be cut
        {"commits": [commit(added=['"caf\\303\\251.md"'])]},
        {"commits": [commit(added=["caf\N{REPLACEMENT CHARACTER}.md"])]},
        {"commits": [commit(added=[f"f{number}" for number in range(1_001)])]},
        {"commits": [commit(added=[{"path": "a"}])]},
        {"commits": [{"id": NEW}]},
        {"commits": ["x"]},
        {"deleted": True, "after": ZERO},
        {"repository": {"full_name": "group/project"}},  # whose default branch is not told
        {"repository": {"full_name": "other/project", "default_branch": "main"}},
        {"repository": {"full_name": "subgroup/group/project", "default_branch": "main"}},
        {"paths": None},
        {"paths": ["a"]},
        {"paths": {"a": "renamed"}},
        {"paths": {"": "updated"}},
    ],
)
def test_what_may_be_incomplete_is_a_scan(changed: dict[str, Any]) -> None:
    assert github(push(**changed)).changes == SCAN


def test_another_repository_is_told_of() -> None:
    assert "another repository" in github(push(repository={"full_name": "x/y", "default_branch": "main"})).note


def test_what_is_none_of_this_sources_business_is_a_note() -> None:
    assert (github(push(), event="ping").changes, "ping" in github(push(), event="ping").note) == ((), True)
    assert github(push(ref="refs/tags/v1")).changes == ()
    assert github(push(ref="refs/heads/topic")).changes == ()
    assert github(push(ref="refs/heads/topic", after=ZERO)).changes == ()
    assert github(push(), to=connector(branch="release")).changes == ()
    assert github(push(), to=connector(include=["*.rst"])).note == "a push that changed none of this source's files"
    assert hear({"x-gitlab-token": "new"}, b"anything").changes == ()


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b"{", b"\xff\xfe", b"{}", b'{"ref": 7}', b"[" * 100_000, b'{"ref":' * 50_000, b"payload=x"],
)
def test_a_proven_body_that_makes_no_sense_is_named(body: bytes) -> None:
    for more in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        headers = {"x-github-event": "push", "x-hub-signature-256": "sha256=" + signed(body), **more}
        with pytest.raises(InvalidInput, match="body"):
            hear(headers, body)


def test_the_hook_works_for_a_server_of_every_kind(git_server: GitServer) -> None:
    """The script needs Python 3.8, and nothing else."""
    import ast

    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 8))
