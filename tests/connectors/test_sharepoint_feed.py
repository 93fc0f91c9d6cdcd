"""Deltas, resyncs, folders that move, permission loss, throttling and what it all costs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any

import pytest
from tests.connectors.sharepoint_source import connect

from sourcebus.connectors.sharepoint import SharePointConnector
from sourcebus.errors import ConnectorError, CursorExpired, ObjectGone, ObjectUnreadable, SourceUnavailable, Throttled
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.graph import GraphSimulator
from sourcebus.testing.providers.graph_drive import SimDrive
from sourcebus.testing.providers.server import Answer

Connecting = Callable[..., SharePointConnector]


@pytest.fixture(scope="module")
def shared() -> Generator[GraphSimulator]:
    with GraphSimulator(enforce=False) as simulated:
        yield simulated


@pytest.fixture
def tenant(shared: GraphSimulator) -> Generator[GraphSimulator]:
    yield shared
    shared.accept_again()
    shared.page_size = shared.facts.page_size


@pytest.fixture
def drive(tenant: GraphSimulator) -> SimDrive:
    return tenant.drive()


@pytest.fixture
def connecting(tenant: GraphSimulator) -> Generator[Connecting]:
    """Makes connectors on the tenant; they are closed at the end."""
    with ExitStack() as stack:

        def make(**place: Any) -> SharePointConnector:
            return stack.enter_context(closing(connect(tenant, **place)))

        yield make


@pytest.fixture
def connector(connecting: Connecting, drive: SimDrive) -> SharePointConnector:
    return connecting(drive=drive.id)


def paths(connector: SharePointConnector, *refs: str) -> list[Any]:
    return [connector.extract(ref).documents[0].metadata["path"] for ref in refs]


def scopes(connector: SharePointConnector, cursor: str | None, scope: str = "") -> list[str]:
    return [
        item.object_ref
        for item in connector.changes(cursor, scope)
        if isinstance(item, Change) and item.change_kind is ChangeKind.SCAN
    ]


# pages and cursors


def test_a_pass_may_be_cut_after_any_page(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector, connecting: Connecting
) -> None:
    """Whatever cursor it is taken up from, nothing is missing, and the last says that it was everything."""
    refs = {tenant.put(drive, f"a/{number}.txt", "text").id for number in range(11)}
    tenant.page_size = 3
    told = list(connector.changes(None))
    cuts = [at for at, item in enumerate(told) if isinstance(item, Cursor)]
    assert len(cuts) == 5  # 11 files, a folder and the root by threes, and the last
    for cut in cuts[:-1]:
        item = told[cut]
        assert isinstance(item, Cursor)
        assert not item.complete
        before = {item.object_ref for item in told[:cut] if isinstance(item, Change)}
        rest = listing(connecting(drive=drive.id), item.value)
        assert before | set(rest.found) == refs
        assert rest.complete


def test_what_changes_between_two_pages_is_in_the_next_delta(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    files = [tenant.put(drive, f"{number}.txt", "text").id for number in range(6)]
    tenant.page_size = 2
    told = iter(connector.changes(None))
    seen = [next(told), next(told)]
    new = tenant.put(drive, "new.txt", "text").id
    tenant.change(drive, lambda one: one.delete(files[0]))
    rest = list(told)
    last = [item for item in rest if isinstance(item, Cursor)][-1]
    later = listing(connector, last.value)
    assert new in later.found
    assert files[0] in later.deleted
    assert {item.object_ref for item in seen + rest if isinstance(item, Change)} >= set(files[1:])


def test_an_item_that_recurs_counts_as_it_was_told_last(tenant: GraphSimulator, connector: SharePointConnector) -> None:
    file: dict[str, Any] = {"id": "01ABC", "name": "a.txt", "file": {}, "eTag": '"1"'}
    gone: dict[str, Any] = {"id": "01ABC", "deleted": {}}
    page: dict[str, Any] = {
        "value": [file, gone, file],
        "@odata.deltaLink": f"{tenant.graph_url}/drives/x/root/delta",
    }
    tenant.refuse(Answer(200, page), path=".*root/delta")
    assert [change.change_kind for change in connector.changes(None) if isinstance(change, Change)] == [ChangeKind.UPDATED]


def test_at_removed_is_a_delete(tenant: GraphSimulator, connector: SharePointConnector) -> None:
    page = {
        "value": [{"id": "01GONE", "@removed": {"reason": "changed"}}],
        "@odata.deltaLink": f"{tenant.graph_url}/drives/x/root/delta?token=1",
    }
    tenant.refuse(Answer(200, page), path=".*root/delta")
    assert Change("01GONE", ChangeKind.DELETED) in list(connector.changes(None))


def test_what_is_no_file_is_no_object(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    """A notebook is a package, a shortcut lives elsewhere: neither has bytes here."""
    drive.put("Notes", b"", package={"type": "oneNote"})
    drive.put("shortcut.docx", b"", remoteItem={"id": "01ELSEWHERE"})
    folder = drive.folder("folder")
    file = drive.put("file.txt", b"text")
    assert set(listing(connector).found) == {file.id}
    assert connector.version(folder.id) is None


@pytest.mark.parametrize("body", [b"<html>a proxy's page", [], {}, {"value": []}], ids=repr)
def test_an_answer_that_is_no_delta_is_an_outage(tenant: GraphSimulator, connector: SharePointConnector, body: Any) -> None:
    tenant.refuse(Answer(200, body), path=".*root/delta")
    with pytest.raises(SourceUnavailable):
        listing(connector)


# resync


@pytest.mark.parametrize("code", ["resyncChangesApplyDifferences", "resyncChangesUploadDifferences"])
def test_a_resync_lists_everything_anew(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector, code: str
) -> None:
    kept, lost = (tenant.put(drive, name, "text").id for name in ("kept.txt", "lost.txt"))
    cursor = listing(connector).cursor
    tenant.change(drive, lambda one: one.delete(lost))
    drive.expire_tokens(code)
    with pytest.raises(CursorExpired, match=code):
        next(iter(connector.changes(cursor)))
    anew = listing(connector)
    assert (set(anew.found), anew.complete) == ({kept}, True)


def test_a_resync_in_the_middle_of_an_enumeration_ends_it(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    """What was told before is not to be trusted as a part of everything: a delete may have gone by untold."""
    for number in range(5):
        drive.put(f"{number}.txt", b"text")
    tenant.page_size = 2
    told = iter(connector.changes(None))
    next(item for item in told if isinstance(item, Cursor))
    drive.expire_tokens()
    with pytest.raises(CursorExpired):
        list(told)


@pytest.mark.parametrize("cursor", ["", "{}", "[1]", '{"links": 3, "full": true, "told_s": 0}', "\udcff"])
def test_a_cursor_that_cannot_be_read_is_an_expired_one(connector: SharePointConnector, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        list(connector.changes(cursor))


def test_a_token_that_graph_cannot_read_is_an_expired_one(drive: SimDrive, connector: SharePointConnector) -> None:
    cursor = listing(connector).cursor
    assert cursor is not None
    with pytest.raises(CursorExpired):
        list(connector.changes(cursor.replace("token=", "token=%20not%20one")))


# renames and moves


def test_a_rename_is_a_new_version_with_the_new_path(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    """cTag alone would hide it: the content is the same."""
    ref = tenant.put(drive, "plans/old.txt", "text").id
    cursor, before = listing(connector).cursor, connector.version(ref)
    tenant.change(drive, lambda one: one.rename(ref, "nëw 100%.txt"))
    assert ref in listing(connector, cursor).found
    assert connector.version(ref) != before
    assert paths(connector, ref) == ["plans/nëw 100%.txt"]
    assert connector.extract(ref).documents[0].title == "nëw 100%.txt"


def test_metadata_alone_is_no_new_version(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    """eTag alone would extract for every sharing link and every column."""
    ref = tenant.put(drive, "a.txt", "text").id
    fingerprint, before = connector.fingerprint(ref), connector.version(ref)
    tenant.change(drive, lambda one: one.touch(ref))
    assert connector.fingerprint(ref) != fingerprint
    assert connector.version(ref) == before


def test_a_folder_that_is_renamed_takes_what_lies_in_it_along(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    """Delta tells the folder only. Each folder below it is a scope of its own, so the quota is kept on the way."""
    top, deep = tenant.put(drive, "old/a.txt", "text").id, tenant.put(drive, "old/sub/b.txt", "text").id
    other = tenant.put(drive, "other/c.txt", "text").id
    cursor, before = listing(connector).cursor, [connector.version(ref) for ref in (top, deep, other)]
    tenant.change(drive, lambda one: one.rename(one.folder("old").id, "new"))
    (moved,) = scopes(connector, cursor)
    (below,) = scopes(connector, None, moved)
    found = {**listing(connector, None, moved).found, **listing(connector, None, below).found}
    assert {ref for ref in found if not ref.startswith("folder:")} == {top, deep}
    assert paths(connector, top, deep, other) == ["new/a.txt", "new/sub/b.txt", "other/c.txt"]
    now = [connector.version(ref) for ref in (top, deep, other)]
    assert [old == new for old, new in zip(before, now, strict=True)] == [False, False, True]


def test_a_folder_that_was_only_shared_is_not_listed(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    tenant.put(drive, "folder/a.txt", "text")
    cursor = listing(connector).cursor
    tenant.change(drive, lambda one: one.touch(one.folder("folder").id))
    assert scopes(connector, cursor) == []


def test_a_folder_above_a_change_is_not_listed(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector, connecting: Connecting
) -> None:
    """It would be in the delta too, but for a header."""
    tenant.put(drive, "folder/a.txt", "text")
    cursor = listing(connector).cursor
    tenant.put(drive, "folder/b.txt", "text")
    assert scopes(connecting(drive=drive.id), cursor) == []


def test_a_folder_made_since_the_last_pass_is_not_listed(
    tenant: GraphSimulator, drive: SimDrive, connecting: Connecting
) -> None:
    """All that is in it is in the same delta. One that is as old as the last pass might have been known: it is listed."""
    cursor = listing(connecting(drive=drive.id)).cursor
    tenant.put(drive, "new/a.txt", "text")
    assert len(scopes(connecting(drive=drive.id), cursor)) == 1
    drive.folder("new").created += timedelta(seconds=10)
    assert scopes(connecting(drive=drive.id), cursor) == []


def test_a_moved_folder_that_is_gone_again_is_an_empty_scope(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    folder = drive.folder("folder")
    drive.delete(folder.id)
    assert list(connector.changes(None, f"folder:{drive.id}/{folder.id}")) == [Cursor(None)]


def test_after_a_resync_a_place_that_changed_meanwhile_is_seen(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    """An enumeration tells a file's place by its fingerprint, also where the folder comes later or in another page."""
    refs = [tenant.put(drive, f"a/b/{number}.txt", "text").id for number in range(4)]
    for change in (lambda: drive.rename(drive.folder("a").id, "moved"), lambda: drive.move(drive.folder("moved/b").id, "c")):
        stored = {ref: connector.extract(ref).fingerprint for ref in refs}
        assert {ref: change.fingerprint for ref, change in listing(connector).found.items()} == stored
        change()
        for size in (200, 2):
            tenant.page_size = size
            found = listing(connector).found
            assert all(found[ref].fingerprint not in (None, stored[ref]) for ref in refs)


def test_deleted_and_restored(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    """From the recycle bin it comes back under its old id."""
    ref = tenant.put(drive, "folder/a.txt", "text").id
    cursor = listing(connector).cursor
    tenant.change(drive, lambda one: one.delete(one.folder("folder").id))
    gone = listing(connector, cursor)
    assert ref in gone.deleted
    assert connector.version(ref) is None
    tenant.change(drive, lambda one: one.restore(one.items[ref].parent or ""))
    tenant.change(drive, lambda one: one.restore(ref))
    assert ref in listing(connector, gone.cursor).found
    assert connector.version(ref) is not None


# permissions and places


def test_an_item_that_may_not_be_read_is_no_delete(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    item = tenant.put(drive, "secret.txt", "text")
    item.forbidden = True
    with pytest.raises(ObjectUnreadable) as refused:
        connector.version(item.id)
    assert (refused.value.reason, refused.value.version) == ("forbidden", "forbidden")
    item.forbidden = False
    assert connector.version(item.id) not in (None, "forbidden")


def test_a_drive_that_may_not_be_read_says_nothing_of_its_files(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    ref = tenant.put(drive, "a.txt", "text").id
    drive.forbidden = True
    for ask in (lambda: connector.version(ref), lambda: connector.extract(ref), lambda: listing(connector)):
        with pytest.raises(ConnectorError, match="no permission") as refused:
            ask()
        assert type(refused.value) is ConnectorError


def test_a_site_that_is_gone_is_not_a_site_whose_files_are_gone(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    ref, cursor = tenant.put(drive, "a.txt", "text").id, listing(connector).cursor
    tenant.remove_drive(drive)
    for ask in (lambda: connector.version(ref), lambda: listing(connector, cursor)):
        with pytest.raises(ConnectorError, match="does not exist any more") as refused:
            ask()
        assert not isinstance(refused.value, (ObjectGone, SourceUnavailable))


def test_a_library_by_its_name(tenant: GraphSimulator, connecting: Connecting) -> None:
    wanted = tenant.site("sites/by-name", "Documents", "Verträge & mehr")[1]
    ref = tenant.put(wanted, "a.txt", "text").id
    address = f"https://{tenant.host}/sites/by-name/"
    assert set(listing(connecting(site=address, library="Verträge & mehr")).found) == {ref}
    with pytest.raises(ConnectorError, match="Documents, Verträge & mehr"):
        listing(connecting(site=address, library="Nope"))
    with pytest.raises(ConnectorError, match="does not exist"):
        listing(connecting(site=f"{tenant.host}/sites/nope"))


def test_a_users_onedrive(tenant: GraphSimulator, connecting: Connecting) -> None:
    ref = tenant.put(tenant.user("ada@contoso.com"), "a.txt", "text").id
    assert set(listing(connecting(user="ada@contoso.com")).found) == {ref}


def test_a_whole_site(tenant: GraphSimulator, connecting: Connecting) -> None:
    """A library that comes is listed, one that goes means a listing of everything, and no drive of another site is read."""
    first, second = tenant.site("sites/whole", "Documents", "Archive")
    strange = tenant.put(tenant.drive(), "strange.txt", "text")
    old = f"{second.id}/{tenant.put(second, 'old.txt', 'text').id}"
    connector = connecting(site=f"{tenant.host}/sites/whole")
    before = listing(connector)
    assert set(before.found) == {old}
    third = tenant.add_library("sites/whole", "Third")
    new = f"{third.id}/{tenant.put(third, 'new.txt', 'text').id}"
    fresh = connecting(site=f"{tenant.host}/sites/whole")  # this one has the list of libraries of five minutes ago
    now = listing(fresh, before.cursor)
    assert (set(now.found), now.complete) == ({new}, False)
    assert fresh.version(f"{next(iter(set(tenant.drives) - {first.id, second.id, third.id}))}/{strange.id}") is None
    tenant.remove_drive(second)
    with pytest.raises(CursorExpired, match="not there any more"):
        next(iter(connecting(site=f"{tenant.host}/sites/whole").changes(now.cursor)))


# reading


def test_the_token_stays_with_graph(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    ref = tenant.put(drive, "a.txt", "text").id
    tenant.asked.clear()
    connector.extract(ref)
    graph, download = tenant.asked
    assert "authorization" in graph.headers
    assert download.path.startswith("/download/")
    assert "authorization" not in download.headers
    assert all(asked.headers["user-agent"].startswith("NONISV|sourcebus|sourcebus/") for asked in (graph, download))


def test_a_download_address_cannot_lead_inside(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    """127.0.0.1 is the configured server here, so another port stands for a neighbour in the operator's network."""
    item = drive.put("a.txt", b"text")
    with GraphSimulator() as neighbour:
        told = drive.facet(item) | {"@microsoft.graph.downloadUrl": f"{neighbour.url}/download/x/y/z"}
        tenant.refuse(Answer(200, told), path=".*/items/.*")
        with pytest.raises(SourceUnavailable, match="not a public address"):
            connector.extract(item.id)
        assert neighbour.asked == []


def test_an_item_without_a_download_address_is_read_through_graph(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    """Graph answers 302; the token does not follow to another origin (httpx), and here it is the same one."""
    item = drive.put("a.txt", b"the text")
    tenant.refuse(Answer(200, drive.facet(item)), path=".*/items/[^/]*")
    tenant.refuse(Answer(200, b"the text"), path=".*/content")
    assert connector.extract(item.id).documents[0].text == "the text"


@pytest.mark.parametrize(
    ("content", "facets", "reason"),
    [(b"x" * 2_000, {}, "too_large"), (b"\0\1\2", {}, "binary"), (b"x", {"malware": {"description": "EICAR"}}, "malware")],
)
def test_what_cannot_be_read_is_recorded_with_its_version(
    tenant: GraphSimulator, drive: SimDrive, content: bytes, facets: dict[str, Any], reason: str, connecting: Connecting
) -> None:
    item = drive.put("a.txt", content, **facets)
    connector = connecting(drive=drive.id, max_bytes=1_000)
    with pytest.raises(ObjectUnreadable) as refused:
        connector.extract(item.id)
    assert (refused.value.reason, refused.value.version) == (reason, connector.version(item.id))
    assert refused.value.fingerprint == connector.fingerprint(item.id)


# quota

_BUSY = {"error": {"code": "serviceNotAvailable"}}


@pytest.mark.parametrize(
    ("answer", "wait_ms"),
    [
        (Answer(429, {"error": {"code": "activityLimitReached"}}, {"Retry-After": "7"}), 7_000),
        (Answer(429, b""), None),
        (Answer(503, _BUSY, {"Retry-After": "120"}), 120_000),
        (Answer(503, {"error": {"code": "activityLimitReached"}}), None),
        (Answer(509, {"error": {"code": "bandwidthLimitExceeded"}}, {"Retry-After": "3"}), 3_000),
    ],
)
def test_every_way_to_say_slower(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector, answer: Answer, wait_ms: int | None
) -> None:
    ref = tenant.put(drive, "a.txt", "text").id
    for path, ask in ((".*/items/.*", connector.extract), ("/download/.*", connector.extract), (".*/delta", connector.changes)):
        tenant.refuse(answer, path=path)
        with pytest.raises(Throttled) as throttled:
            list(ask(None) if path == ".*/delta" else [ask(ref)])  # pyright: ignore[reportArgumentType]
        assert throttled.value.retry_after_ms == wait_ms


def test_a_busy_server_without_a_word_is_an_outage(
    tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector
) -> None:
    tenant.refuse(Answer(503, _BUSY), path=".*/items/.*")
    with pytest.raises(SourceUnavailable):
        connector.version("01ABC")


def test_costs_are_those_of_the_provider(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    """Both sides count the same units."""
    ref = tenant.put(drive, "folder/a.txt", "text").id

    def spent(units: float) -> None:
        counted, tenant.meter.spent = tenant.meter.spent, 0.0
        assert connector.take_cost() == counted == units

    spent_before, tenant.meter.spent = tenant.meter.spent, 0.0
    assert spent_before >= 0
    cursor = listing(connector).cursor
    spent(2)
    listing(connector, cursor)
    spent(1)
    assert connector.fingerprint(ref)
    assert connector.version(ref)
    spent(1)  # an object that did not change
    assert connector.fingerprint(ref)
    assert connector.version(ref) == connector.extract(ref).version
    spent(2)  # one that did
    listing(connector, None, f"folder:{drive.id}/{drive.folder('folder').id}")
    spent(2)


def test_what_graph_says_is_left_is_passed_on(tenant: GraphSimulator, drive: SimDrive, connector: SharePointConnector) -> None:
    told = Answer(200, drive.facet(drive.put("a.txt", b"x")), {"RateLimit-Remaining": "180", "RateLimit-Reset": "12"})
    tenant.refuse(told, path=".*/items/.*")
    connector.version("01ABC")
    left = connector.quota_left()
    assert left is not None
    assert (left.units, left.left_ms) == (180, 12_000)
    assert connector.quota_left() is None
