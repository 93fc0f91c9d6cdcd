"""What the connector `github` lists: deltas of every form, passes that are cut, scopes, and what is at one path."""

from __future__ import annotations

import time

import pytest
from tests.connectors.github.simulated import Connect

from sourcebus.connectors.github import GithubConnector
from sourcebus.errors import CursorExpired, NeedsAuth, ObjectUnreadable
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.github import GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository

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
    late = {item.object_ref for item in connector.changes(cursors[9].value) if isinstance(item, Change)}
    assert late == {"contents/root.md", "contents/b/y/1.md", "contents/b/y/2.md"}, (
        "only the directories on the way are read again"
    )


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
    issue, pull, other = repo.open("one"), repo.open("pull", head="a" * 40), repo.open("other")
    comment, inline = repo.comment(issue, "first"), repo.comment(pull, "inline", kind="review_comments")
    for number, thread in repo.threads.items():
        thread.updated_at = f"2026-01-0{number}T00:00:00Z"
        for written in (*thread.comments, *thread.review_comments):
            written["updated_at"] = thread.updated_at
    connector = connect("issues", "pulls")
    cursor = delta(connector, None)[1]
    assert set(delta(connector, cursor)[0]) == {f"issues/{other}"}, "the newest is told again: its second may not be over"
    repo.edit_comment(issue, comment, "edited", dates_issue=False)
    repo.edit_comment(pull, inline, "edited", kind="review_comments", dates_issue=False)
    told, cursor = delta(connector, cursor)
    assert set(told) == {f"issues/{issue}", f"pulls/{pull}", f"issues/{other}"}
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
