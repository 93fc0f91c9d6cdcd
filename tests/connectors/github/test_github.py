"""The connector `github` against the simulated GitHub: the suite, refusals, subscriptions, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from tests.connectors.github.simulated import Connect, connected

from sourcebus.connectors import Connector
from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import InvalidInput, NeedsAuth, ObjectGone, SubscriptionLost, Throttled
from sourcebus.model import Change, Cursor, Delivery, Subscription
from sourcebus.testing import ConnectorSuite, Hook, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.github import TOKEN, GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.server import Answer

HOOK = "http://127.0.0.1:9/hooks/docs"


# the suite


class Files(SourceUnderTest):
    def __init__(self, github: GithubServer, repo: SimulatedRepository) -> None:
        self.github, self.repo = github, repo

    def connect(self) -> GithubConnector:
        return connected(self.github, self.repo)

    def write(self, name: str, text: str) -> str:
        self.repo.push({f"docs/{name}.md": text})
        return f"contents/docs/{name}.md"

    def delete(self, ref: str) -> None:
        self.repo.push({ref.removeprefix("contents/"): None})

    def break_off(self) -> None:
        self.github.refuse(Answer(502, {"message": "Server Error"}), times=1000)

    def rename(self, ref: str, name: str) -> str:
        old, head = ref.removeprefix("contents/"), self.repo.git.branches["main"]
        content = self.repo.git.blobs[self.repo.git.files(head)[old][1]]
        self.repo.push({old: None, f"docs/{name}.md": content})
        return f"contents/docs/{name}.md"

    def break_half_way(self) -> None:
        """Which commit the branch is at is told, its tree is not."""
        self.github.refuse(Answer(502, {"message": "Server Error"}), times=1000, path=".*/git/trees/.*")

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        forms = {
            "primary limit, 403": self.github.primary_limit(),
            "primary limit, 429": self.github.primary_limit(status=429),
            "secondary limit, 403": self.github.secondary_limit(60),
            "secondary limit, 429": self.github.secondary_limit(60, status=429),
            "secondary limit without a time": self.github.secondary_limit(),
        }
        return {form: lambda answer=answer: self.github.refuse(answer, times=1000) for form, answer in forms.items()}

    def revoke(self) -> None:
        self.github.tokens.clear()

    def mend(self) -> None:
        self.github.accept_again()
        self.github.tokens.add(TOKEN)

    def forbid(self, ref: str) -> None:
        not_applicable("permissions are of a whole repository")

    def expire_cursor(self, cursor: str | None) -> str | None:
        """The branch is rewritten, and the commit that the cursor names collected."""
        git = self.repo.git
        old = [*git.commits]
        files = {path: git.blobs[blob] for path, (_mode, blob) in git.files(git.branches["main"]).items()}
        self.repo.force_push(files)
        for commit in old:
            git.commits.pop(commit)
        return cursor

    def listen(self, hook: Hook) -> None:
        hook.subscribe()

    def settle(self, hook: Hook) -> None:
        self.github.courier.settle()

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """The hook of an organization tells of all its repositories."""
        (secret,) = {one.secret for one in hook.subscriptions}
        other = self.github.repository(f"{self.repo.full_name}-other")
        self.github.add_hook(other.full_name, hook.address, str(secret))
        other.push({"docs/other.md": "text"})
        other.open("an issue")
        self.settle(hook)
        return hook.ignored

    def endings(self) -> Mapping[str, Callable[[Subscription], None]]:
        return {"removed": lambda subscription: self.github.delete_hook(int(subscription.id))}


class Issues(Files):
    """Objects are issues, whose text is changed as often as it is asked for within one second."""

    def __init__(self, github: GithubServer, repo: SimulatedRepository) -> None:
        super().__init__(github, repo)
        self.numbers: dict[str, int] = {}

    def write(self, name: str, text: str) -> str:
        if name in self.numbers:
            self.repo.edit(self.numbers[name], body=text)
        else:
            self.numbers[name] = self.open(name, text)
        return f"{self.kind}/{self.numbers[name]}"

    kind = "issues"

    def rename(self, ref: str, name: str) -> str:
        self.repo.edit(int(ref.split("/")[1]), title=name)
        return ref

    def break_half_way(self) -> None:
        not_applicable("a dozen issues are one page")

    def expire_cursor(self, cursor: str | None) -> str | None:
        not_applicable("the cursor of issues is a time: GitHub remembers nothing that it could forget")

    def open(self, name: str, text: str) -> int:
        return self.repo.open(name, text)

    def delete(self, ref: str) -> None:
        number = int(ref.split("/")[1])
        self.repo.delete(number)
        self.numbers = {name: held for name, held in self.numbers.items() if held != number}


class Comments(Issues):
    """Objects are pull requests, and what changes is their first comment: nothing of the pull request itself does."""

    kind = "pulls"

    def write(self, name: str, text: str) -> str:
        if name not in self.numbers:
            self.numbers[name] = self.repo.open(name, head="f" * 40)
        number = self.numbers[name]
        if comments := self.repo.threads[number].comments:
            self.repo.edit_comment(number, comments[0]["id"], text, dates_issue=False)
        else:
            self.repo.comment(number, text)
        return f"pulls/{number}"


class TestFiles(ConnectorSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Files(github, repo)


class IssueSuite(ConnectorSuite):
    def test_a_deleted_object_leaves_the_listing(self, source: SourceUnderTest, connector: Connector) -> None:
        """GitHub's lists say nothing of a deleted issue: its webhook does, and every complete listing."""
        kept, lost = source.write("kept", "one"), source.write("lost", "two")
        listing(connector)
        source.delete(lost)
        result = listing(connector)
        assert set(result.found) == {kept}
        assert result.complete


class TestIssues(IssueSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Issues(github, repo)


class TestPullRequests(IssueSuite):
    @pytest.fixture
    def source(self, github: GithubServer, repo: SimulatedRepository) -> SourceUnderTest:
        return Comments(github, repo)


def test_what_a_pull_request_shows(repo: SimulatedRepository, connect: Connect) -> None:
    number = repo.open("Add a thing", "It adds a thing.", head="c" * 40)
    repo.comment(number, "Looks good")
    repo.comment(number, "Please rename", kind="review_comments", path="src/a.py")
    repo.comment(number, "Approved by me", kind="reviews", state="APPROVED")
    repo.comment(number, "", kind="reviews", state="COMMENTED")
    connector = connect("pulls")
    document = connector.extract(f"pulls/{number}").documents[0]
    for text in ("It adds a thing.", "Looks good", "on src/a.py", "Please rename", "review, approved", "Approved by me"):
        assert text in document.text
    versions = {connector.version(f"pulls/{number}")}
    repo.edit(number, action="synchronize", head="d" * 40)
    versions.add(connector.version(f"pulls/{number}"))
    repo.edit(number, action="closed", state="closed", merged=True)
    versions.add(connector.version(f"pulls/{number}"))
    assert len(versions) == 3
    assert connector.version(f"issues/{number}") is None, "a pull request is no issue"


def test_the_comment_after_a_full_page_is_seen(repo: SimulatedRepository, connect: Connect) -> None:
    """The first page is the same as before, and so is its ETag."""
    number = repo.open("a long issue")
    for count in range(100):
        repo.comment(number, f"comment {count}")
    connector = connect("issues")
    connector.version(f"issues/{number}")
    repo.comment(number, "the hundred and first")
    assert "the hundred and first" in connector.extract(f"issues/{number}").documents[0].text


# costs and refusals


def test_looking_again_costs_nothing(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a"})
    number = repo.open("one")
    repo.comment(number, "two")
    connector = connect()
    connector.version("contents/a.md")
    assert connector.take_cost() == 1
    connector.extract("contents/a.md")
    assert connector.take_cost() == 0
    connector.extract(f"issues/{number}")
    assert connector.take_cost() == 2
    connector.version(f"issues/{number}")
    assert connector.take_cost() == 0
    left = connector.quota_left()
    assert left is not None
    assert left.units > 4000
    assert 3_590_000 < left.left_ms < 3_610_000


@pytest.mark.parametrize("status", [403, 429])
def test_every_form_of_throttling_is_told_apart_from_a_refusal(
    github: GithubServer, repo: SimulatedRepository, connect: Connect, status: int
) -> None:
    repo.push({"a.md": "a"})
    connector = connect()
    for answer, least_ms, most_ms in (
        (github.primary_limit(120, status=status), 115_000, 125_000),
        (github.secondary_limit(7, status=status), 7_000, 7_000),
        (github.secondary_limit(status=status), 60_000, 60_000),
    ):
        github.refuse(answer)
        with pytest.raises(Throttled) as throttled:
            connector.version("contents/a.md")
        assert throttled.value.retry_after_ms is not None
        assert least_ms <= throttled.value.retry_after_ms <= most_ms
    github.refuse(github.forbidden())
    with pytest.raises(NeedsAuth):
        connector.version("contents/a.md")
    github.refuse(Answer(401, {"message": "Bad credentials"}))
    with pytest.raises(NeedsAuth):
        connector.version("contents/a.md")


def test_the_spent_quota_throttles(github: GithubServer, repo: SimulatedRepository, connect: Connect) -> None:
    github.remaining = 2
    repo.push({"a.md": "a"})
    connector = connect()
    with pytest.raises(Throttled):
        for number in range(5):
            connector.version(f"contents/{number}.md")


def test_a_repository_that_went_out_of_sight_deletes_nothing(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    """GitHub says 404 to a token that may not see a private repository."""
    repo.push({"a.md": "a"})
    number = repo.open("one")
    connector = connect()
    cursor = listing(connector).cursor
    github.hidden.add(repo.full_name)
    for ref in ("contents/a.md", f"issues/{number}"):
        with pytest.raises(NeedsAuth):
            connector.version(ref)
        with pytest.raises(NeedsAuth):
            connector.extract(ref)
    for start in (None, cursor):
        with pytest.raises(NeedsAuth):
            list(connector.changes(start))
    github.hidden.clear()
    assert listing(connector).complete


def test_a_listing_that_fails_half_way_is_not_complete(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    repo.push({"a.md": "a"})
    for number in range(3):
        repo.open(f"issue {number}")
    connector = connect()
    github.refuse(Answer(502, {"message": "Server Error"}), path=".*/issues")
    items: list[Change | Cursor] = []
    with pytest.raises(Exception, match="502"):
        items.extend(connector.changes(None))
    cursors = [item for item in collected(connector, github) if isinstance(item, Cursor)]
    assert not any(cursor.complete for cursor in cursors)
    result = listing(connector, cursors[-1].value)
    assert result.complete
    assert set(result.found) == {"issues/1", "issues/2", "issues/3"}, "taken up behind the files"


def collected(connector: GithubConnector, github: GithubServer) -> list[Change | Cursor]:
    """A pass until the list of issues fails."""
    github.refuse(Answer(502, {"message": "Server Error"}), path=".*/issues")
    items: list[Change | Cursor] = []
    try:
        for item in connector.changes(None):
            items.append(item)
    except Exception:  # noqa: BLE001 - any failure ends it
        pass
    return items


# subscriptions


def test_a_subscription_is_made_looked_at_and_ended(github: GithubServer, repo: SimulatedRepository, connect: Connect) -> None:
    connector = connect("contents", "issues")
    made = connector.subscribe(HOOK)
    hook = github.hook(int(made.id))
    assert made.expires_at_ms is None
    assert made.state == {"repository_id": repo.number, "repository": repo.full_name}
    assert hook["config"] == {"url": HOOK, "content_type": "json", "secret": made.secret, "insecure_ssl": "0"}
    assert hook["events"] == ["create", "delete", "issue_comment", "issues", "meta", "push", "repository"]
    assert made.secret is not None
    assert made.secret not in repr(made)
    assert connector.renew(made, HOOK) == made
    hook["events"] = ["push"]
    assert connector.renew(made, HOOK) == made
    assert "issues" in hook["events"]
    assert hook["config"]["secret"] == made.secret, "GitHub replaces the whole config"
    again = connector.subscribe(HOOK)
    assert again.id == made.id
    assert again.secret != made.secret
    hook["active"] = False
    with pytest.raises(SubscriptionLost):
        connector.renew(again, HOOK)
    assert connector.subscribe(HOOK).id == made.id
    assert hook["active"]
    connector.unsubscribe(again)
    connector.unsubscribe(again)
    with pytest.raises(SubscriptionLost):
        connector.renew(again, HOOK)


def test_a_token_without_the_permission_is_told_so(github: GithubServer, connect: Connect) -> None:
    github.hook_permission = False
    with pytest.raises(NeedsAuth, match="admin:repo_hook"):
        connect().subscribe(HOOK)


# settings


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"repo": "r"}, "config.owner"),
        ({"owner": "o/x", "repo": "r"}, "config.owner"),
        ({"owner": "o", "repo": ".."}, "config.repo"),
        ({"owner": "o", "repo": "r", "kinds": ["files"]}, "config.kinds"),
        ({"owner": "o", "repo": "r", "kinds": []}, "config.kinds"),
        ({"owner": "o", "repo": "r", "branch": "refs/heads/main"}, "config.branch"),
        ({"owner": "o", "repo": "r", "branch": "a..b"}, "config.branch"),
        ({"owner": "o", "repo": "r", "include": "*.md"}, "config.include"),
        ({"owner": "o", "repo": "r", "max_bytes": 0}, "config.max_bytes"),
        ({"owner": "o", "repo": "r", "api": "github.com"}, "config.api"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        GithubConnector.create(config, TOKEN)
    assert refused.value.field == field


def test_sources_of_one_token_share_a_bucket() -> None:
    def bucket(secret: str | None, **more: str) -> str | None:
        connector = GithubConnector.create({"owner": "o", "repo": "r", **more}, secret)
        connector.close()
        return connector.recommended.quota.bucket

    assert bucket("one") == bucket('{"token": "one", "webhook": "w"}')
    assert len({bucket("one"), bucket("other"), bucket(None), bucket("one", api="https://ghes.example/api/v3")}) == 4
    assert "one" not in str(bucket("one"))
    with pytest.raises(InvalidInput):
        GithubConnector.create({"owner": "o", "repo": "r"}, '{"password": "x"}')


def test_gone_is_gone_for_extract_too(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a"})
    with pytest.raises(ObjectGone):
        connect("contents").extract("issues/1")
