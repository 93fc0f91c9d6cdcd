"""The connector `github` against the simulated GitHub: the suite, deltas, refusals, subscriptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import CursorExpired, InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable, SubscriptionLost, Throttled
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing import ConnectorSuite, SourceUnderTest
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.github import TOKEN, GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.server import Answer

HOOK = "http://127.0.0.1:9/hooks/docs"


@pytest.fixture(scope="module")
def one_server() -> Generator[GithubServer]:
    with GithubServer() as server:
        yield server


@pytest.fixture
def github(one_server: GithubServer) -> Generator[GithubServer]:
    yield one_server
    one_server.accept_again()
    one_server.hidden.clear()
    one_server.tree_limit, one_server.compare_limit, one_server.hook_permission, one_server.remaining = 100_000, 300, True, 5000


@pytest.fixture
def repo(github: GithubServer, request: pytest.FixtureRequest) -> SimulatedRepository:
    return github.repository(f"octo/r{abs(hash(request.node.nodeid))}")


Connect = Callable[..., GithubConnector]


@pytest.fixture
def connect(github: GithubServer, repo: SimulatedRepository) -> Generator[Connect]:
    made: list[GithubConnector] = []

    def make(*kinds: str, **more: object) -> GithubConnector:
        made.append(connected(github, repo, *kinds, **more))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


def connected(github: GithubServer, repo: SimulatedRepository, *kinds: str, **more: object) -> GithubConnector:
    owner, _, name = repo.full_name.partition("/")
    config = {"owner": owner, "repo": name, "api": github.url, **({"kinds": [*kinds]} if kinds else {}), **more}
    return GithubConnector.create(config, TOKEN)


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

    def mend(self) -> None:
        self.github.accept_again()


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


# what changed


def delta(connector: GithubConnector, cursor: str | None, scope: str = "") -> tuple[dict[str, ChangeKind], str | None]:
    """What a listing that goes on from `cursor` says, and its last cursor."""
    told: dict[str, ChangeKind] = {}
    last = None
    for item in connector.changes(cursor, scope):
        if isinstance(item, Cursor):
            assert not item.complete or cursor is None
            last = item.value
        else:
            told[item.object_ref] = item.change_kind
    return told, last


def test_a_delta_of_files_is_one_comparison(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a", "old.md": "text that moves", "gone.md": "g", "ünï/ß.md": "x"})
    connector = connect("contents")
    cursor = delta(connector, None)[1]
    repo.push({"a.md": "b"}, {"old.md": None, "new.md": "text that moves"}, {"gone.md": None})
    connector.take_cost()
    told, cursor = delta(connector, cursor)
    assert told == {
        "contents/a.md": ChangeKind.UPDATED,
        "contents/old.md": ChangeKind.DELETED,
        "contents/new.md": ChangeKind.CREATED,
        "contents/gone.md": ChangeKind.DELETED,
    }
    assert connector.take_cost() == 2, "the branch's head and one comparison; the repository itself was a 304"
    assert delta(connector, cursor)[0] == {}
    assert connector.take_cost() == 0, "nothing new: 304 throughout"


@pytest.mark.parametrize("tree_limit", [100_000, 2], ids=["whole trees", "trees that GitHub cuts"])
def test_a_force_push_is_told_exactly(
    github: GithubServer, repo: SimulatedRepository, connect: Connect, tree_limit: int
) -> None:
    """Three-dot comparison is with the merge base: it says nothing of what only the old history had."""
    github.tree_limit = tree_limit
    base = repo.push({"kept.md": "k", "sub/dir/kept.md": "k", "same/a.md": "s"})
    repo.push({"dropped.md": "d", "sub/dir/dropped.md": "d", "only/old.md": "o"})
    connector = connect("contents")
    cursor = delta(connector, None)[1]
    repo.force_push({"kept.md": "k", "sub/dir/kept.md": "other", "same/a.md": "s", "fresh.md": "f"}, onto=base)
    told, _ = delta(connector, cursor)
    gone = {"contents/dropped.md", "contents/sub/dir/dropped.md", "contents/only/old.md"}
    assert set(told) == gone | {"contents/sub/dir/kept.md", "contents/fresh.md"}
    assert {ref for ref, kind in told.items() if kind is ChangeKind.DELETED} == gone


def test_a_history_of_its_own_is_compared_by_trees(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a", "b.md": "b"})
    connector = connect("contents")
    cursor = delta(connector, None)[1]
    repo.force_push({"b.md": "b", "c.md": "c"})
    told, _ = delta(connector, cursor)
    assert told == {"contents/a.md": ChangeKind.DELETED, "contents/c.md": ChangeKind.UPDATED}


def test_a_comparison_that_may_be_cut_is_not_believed(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    repo.push({"a.md": "a"})
    connector = connect("contents")
    cursor = delta(connector, None)[1]
    repo.push({f"{number}.md": "x" for number in range(310)})
    assert len(delta(connector, cursor)[0]) == 310


def test_a_commit_that_is_gone_expires_the_cursor(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a"})
    connector = connect("contents")
    cursor = delta(connector, None)[1]
    old = repo.git.branches["main"]
    repo.force_push({"b.md": "b"})
    del repo.git.commits[old]
    items = connector.changes(cursor)
    with pytest.raises(CursorExpired):
        next(items)


def test_a_cursor_of_other_settings_has_expired(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a"})
    cursor = delta(connect("contents"), None)[1]
    for connector in (connect("contents", branch="main"), connect("contents", "issues"), connect("contents", include=["*.md"])):
        with pytest.raises(CursorExpired):
            list(connector.changes(cursor))
    with pytest.raises(CursorExpired):
        list(connect("contents").changes("no cursor"))


def test_a_deleted_branch_has_no_files_but_a_lost_one_is_no_delete(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    repo.push({"a.md": "a"})
    repo.push({"b.md": "b"}, branch="docs")
    connector = connect("contents", branch="docs")
    cursor = delta(connector, None)[1]
    repo.delete_branch("docs")
    assert delta(connector, cursor)[0] == {"contents/b.md": ChangeKind.DELETED}
    assert connector.version("contents/b.md") is None
    github.hidden.add(repo.full_name)
    with pytest.raises(NeedsAuth):
        connector.version("contents/b.md")


def test_trees_that_github_cuts_are_walked_and_can_be_taken_up(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    github.tree_limit = 3
    files = {f"{top}/{below}/{name}.md": "x" for top in ("a", "a-b", "b") for below in ("x", "y") for name in ("1", "2")}
    repo.push({**files, "root.md": "r"})
    connector = connect("contents")
    expected = {f"contents/{path}" for path in [*files, "root.md"]}
    cursors = [item for item in connector.changes(None) if isinstance(item, Cursor)]
    assert len(cursors) == 12, "one for each of the ten directories, one for the part and one for the pass"
    for cut in cursors[:-1]:
        items = list(connector.changes(cut.value))
        before = {change.object_ref for change in until(connector, cut)}
        after = {item.object_ref for item in items if isinstance(item, Change)}
        assert before | after == expected
        assert items[-1] == cursors[-1], "a full pass that was cut is complete at its end"


def until(connector: GithubConnector, cut: Cursor) -> list[Change]:
    found: list[Change] = []
    for item in connector.changes(None):
        if item == cut:
            return found
        if isinstance(item, Change):
            found.append(item)
    raise AssertionError("there is no such cursor")


def test_a_scope_is_a_folder_or_a_kind(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"docs/a.md": "a", "docsx.md": "b", "c.md": "c"})
    repo.open("an issue")
    repo.open("a pull request", head="e" * 40)
    connector = connect()
    assert set(listing(connector, scope="contents/docs/").found) == {"contents/docs/a.md"}
    assert set(listing(connector, scope="contents/").found) == {"contents/docs/a.md", "contents/docsx.md", "contents/c.md"}
    assert set(listing(connector, scope="issues/").found) == {"issues/1"}
    assert set(listing(connector, scope="pulls/").found) == {"pulls/2"}
    assert len(listing(connector).found) == 5


def test_patterns_choose_the_files(repo: SimulatedRepository, connect: Connect) -> None:
    repo.push({"a.md": "a", "b.py": "b", "draft/c.md": "c", ".github/d.md": "d"})
    connector = connect("contents", include=["*.md"], exclude=["draft/"])
    assert set(listing(connector).found) == {"contents/a.md", "contents/.github/d.md"}
    assert connector.version("contents/b.py") is connector.version("contents/draft/c.md") is None


def test_links_lfs_and_large_files(repo: SimulatedRepository, connect: Connect) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    repo.push({"target.md": "the target", "model.bin": pointer, "big.txt": "ä" * 700_000, "huge.txt": "x" * 3_000_000})
    repo.push({"note.md": "n"}, links={"link.md": "target.md", "out": "../../etc/passwd"})
    connector = connect("contents", max_bytes=2_000_000)
    found = listing(connector).found
    assert found["contents/link.md"].version is None
    assert "the target" in connector.extract("contents/link.md").documents[0].text
    assert connector.version("contents/out") is None
    assert len(connector.extract("contents/big.txt").documents[0].text) == 700_000, "over 1 MB it is read from its blob"
    for ref, reason in (("contents/model.bin", "lfs"), ("contents/huge.txt", "too_large")):
        with pytest.raises(ObjectUnreadable) as refused:
            connector.extract(ref)
        assert (refused.value.reason, refused.value.version) == (reason, connector.version(ref))


def test_a_delta_of_issues_follows_their_comments(repo: SimulatedRepository, connect: Connect) -> None:
    """An edited comment need not date its issue."""
    issue, other = repo.open("one"), repo.open("other")
    pull = repo.open("pull", head="a" * 40)
    comment, inline = repo.comment(issue, "first"), repo.comment(pull, "inline", kind="review_comments")
    for thread in repo.threads.values():
        thread.updated_at = "2026-01-01T00:00:00Z"
    connector = connect("issues", "pulls")
    cursor = delta(connector, None)[1]
    cursor = delta(connector, cursor)[1]  # what is a minute old or less is told twice
    repo.edit_comment(issue, comment, "edited", dates_issue=False)
    repo.edit_comment(pull, inline, "edited", kind="review_comments", dates_issue=False)
    told, cursor = delta(connector, cursor)
    assert {f"issues/{issue}", f"pulls/{pull}"} <= set(told)
    repo.edit(other, title="new title")
    assert f"issues/{other}" in delta(connector, cursor)[0]


def test_many_issues_of_one_second_are_all_listed(repo: SimulatedRepository, connect: Connect) -> None:
    repo.now = lambda: 1_700_000_000.0
    numbers = [repo.open(f"issue {number}") for number in range(250)]
    repo.now = lambda: 1_700_000_100.0
    numbers += [repo.open(f"issue {number}") for number in range(130)]
    connector = connect("issues")
    cursors = [item.value for item in connector.changes(None) if isinstance(item, Cursor)]
    assert set(listing(connector).found) == {f"issues/{number}" for number in numbers}
    assert set(listing(connector, cursors[2]).found) >= {f"issues/{number}" for number in numbers[250:]}, "taken up half-way"


def test_an_issue_updated_while_it_is_listed_hides_no_other(repo: SimulatedRepository, connect: Connect) -> None:
    repo.now = lambda: 1_700_000_000.0 + len(repo.threads)
    numbers = [repo.open(f"issue {number}") for number in range(150)]
    connector = connect("issues")
    found: set[str] = set()
    for item in connector.changes(None):
        if isinstance(item, Change):
            found.add(item.object_ref)
            if len(found) == 100:
                for number in numbers[:50]:
                    repo.edit(number, title="changed meanwhile")
    assert found == {f"issues/{number}" for number in numbers}


def test_a_settled_issue_has_a_fingerprint(repo: SimulatedRepository, connect: Connect) -> None:
    repo.now = lambda: time.time() - 10
    number = repo.open("one")
    connector = connect("issues")
    listed = listing(connector).found[f"issues/{number}"].fingerprint
    assert listed is not None
    assert listed == connector.fingerprint(f"issues/{number}") == connector.extract(f"issues/{number}").fingerprint
    repo.now = time.time
    repo.edit(number, body="new")
    assert listing(connector).found[f"issues/{number}"].fingerprint is None, "a second change may get the same date"


def test_pull_requests_without_issues(repo: SimulatedRepository, connect: Connect) -> None:
    repo.now = lambda: 1_700_000_000.0 + len(repo.threads)
    for number in range(120):
        repo.open(f"pull {number}", head="b" * 40)
    repo.issues_on = False
    connector = connect("issues", "pulls")
    result = listing(connector)
    assert len(result.found) == 120
    repo.edit(7, title="new")
    later = listing(connector, result.cursor)
    assert "pulls/7" in later.found
    assert len(later.found) <= 3


def test_a_transferred_issue_is_gone_and_a_renamed_repository_is_not(
    github: GithubServer, repo: SimulatedRepository, connect: Connect
) -> None:
    other = github.repository(f"{repo.full_name}-other")
    number, kept = repo.open("moves"), repo.open("stays")
    there = other.open("moves")
    repo.delete(number, transferred_to=f"{github.url}/repos/{other.full_name}/issues/{there}")
    repo.push({"a.md": "a"})
    connector = connect()
    assert connector.version(f"issues/{number}") is None
    before = connector.version(f"issues/{kept}")
    repo.rename(f"{repo.full_name.split('/')[1]}-renamed")
    assert connector.version(f"issues/{kept}") == before
    assert connector.version("contents/a.md") is not None
    assert connector.version(f"issues/{number}") is None


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
