"""Listings, the feed of changes, folders, the bin, versions, and what is lost on the way."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from openpyxl import Workbook
from tests.connectors.google_drive_source import connect

from sourcebus.connectors.google_drive import GoogleDriveConnector
from sourcebus.errors import ConnectorError, CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, ChangeKind, Cursor
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.google_drive import GoogleDriveSimulator
from sourcebus.testing.providers.google_drive_files import APPS, DOCUMENT, SHORTCUT, SPREADSHEET, SimDrive
from sourcebus.testing.providers.server import Answer

Connecting = Callable[..., GoogleDriveConnector]


@pytest.fixture(scope="module")
def shared() -> Generator[GoogleDriveSimulator]:
    with GoogleDriveSimulator(enforce=False) as simulated:
        yield simulated


@pytest.fixture
def google(shared: GoogleDriveSimulator) -> Generator[GoogleDriveSimulator]:
    yield shared
    shared.accept_again()
    shared.page_size, shared.incomplete = shared.facts.page_size, False


@pytest.fixture
def drive(google: GoogleDriveSimulator) -> SimDrive:
    return google.shared_drive()


@pytest.fixture
def connecting(google: GoogleDriveSimulator) -> Generator[Connecting]:
    """Makes connectors; they are closed at the end."""
    with ExitStack() as stack:

        def make(**place: Any) -> GoogleDriveConnector:
            return stack.enter_context(closing(connect(google, **place)))

        yield make


@pytest.fixture
def connector(connecting: Connecting, drive: SimDrive) -> GoogleDriveConnector:
    return connecting(drive=drive.id)


@pytest.fixture
def within(connecting: Connecting, drive: SimDrive) -> GoogleDriveConnector:
    """The source is the folder ``in`` of the drive."""
    return connecting(drive=drive.id, folders=[drive.folder("in")])


def scopes(connector: GoogleDriveConnector, cursor: str | None, scope: str = "") -> list[str]:
    return [
        item.object_ref
        for item in connector.changes(cursor, scope)
        if isinstance(item, Change) and item.change_kind is ChangeKind.SCAN
    ]


def text(connector: GoogleDriveConnector, ref: str) -> str:
    return connector.extract(ref).documents[0].text


# pages and cursors


@pytest.mark.parametrize("whole", [True, False], ids=["drive", "folder"])
def test_a_pass_may_be_cut_after_any_page(
    google: GoogleDriveSimulator, drive: SimDrive, connecting: Connecting, whole: bool
) -> None:
    """Whatever cursor it is taken up from, nothing is missing, and the last says that it was everything."""
    place: dict[str, Any] = {"drive": drive.id} if whole else {"drive": drive.id, "folders": [drive.folder("a")]}
    refs = {drive.put(f"a/{number % 3}/{number % 2}/{number}.txt", "text").id for number in range(11)}
    google.page_size = 3
    told = list(connecting(**place).changes(None))
    cuts = [at for at, item in enumerate(told) if isinstance(item, Cursor)]
    assert len(cuts) > 5
    for cut in cuts[:-1]:
        item = told[cut]
        assert isinstance(item, Cursor)
        assert not item.complete
        before = {item.object_ref for item in told[:cut] if isinstance(item, Change)}
        rest = listing(connecting(**place), item.value)
        assert before | set(rest.found) == refs
        assert rest.complete


def test_what_changes_while_pages_are_read_is_in_the_same_pass(google: GoogleDriveSimulator, drive: SimDrive) -> None:
    """The feed's token is older than the first page."""
    files = [drive.put(f"{number}.txt", "text").id for number in range(6)]
    google.page_size = 2
    with closing(connect(google, drive=drive.id)) as connector:
        told = iter(connector.changes(None))
        next(item for item in told if isinstance(item, Cursor))
        new = google.put(drive, "new.txt", "text").id
        drive.delete(files[0])
        rest = list(told)
    assert Change(files[0], ChangeKind.DELETED) in rest
    assert new in {item.object_ref for item in rest if isinstance(item, Change)}
    assert isinstance(last := rest[-1], Cursor)
    assert last.complete


def test_the_feed_says_nothing_twice_and_ends(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector
) -> None:
    cursor = listing(connector).cursor
    refs = [drive.put(f"{number}.txt", "text").id for number in range(5)]
    drive.put("0.txt", "other text")
    google.page_size = 2
    told = list(connector.changes(cursor))
    assert sorted(item.object_ref for item in told if isinstance(item, Change)) == sorted(refs)
    assert [item.complete for item in told if isinstance(item, Cursor)] == [False] * 3
    assert isinstance(last := told[-1], Cursor)
    assert list(connector.changes(last.value)) == [last]


def test_a_search_that_google_calls_incomplete_is_not_complete(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector
) -> None:
    """What it left out is not gone."""
    drive.put("a.txt", "text")
    google.incomplete = True
    assert not listing(connector).complete


@pytest.mark.parametrize(
    "cursor",
    ["", "{}", "[1]", '{"start": 3}', '{"start": "1", "todo": [["x\' or trashed = true"]]}', '{"start": "99999999"}', "\udcff"],
)
def test_a_cursor_that_leads_nowhere_is_an_expired_one(connector: GoogleDriveConnector, cursor: str) -> None:
    with pytest.raises(CursorExpired):
        list(connector.changes(cursor))


def test_a_listing_whose_page_token_is_hours_old_begins_anew(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector
) -> None:
    for number in range(4):
        drive.put(f"{number}.txt", "text")
    google.page_size = 2
    cut = next(item for item in connector.changes(None) if isinstance(item, Cursor))
    google.expire_listings()
    with pytest.raises(CursorExpired):
        next(iter(connector.changes(cut.value)))
    assert len(listing(connector).found) == 4


@pytest.mark.parametrize("body", [b"<html>a proxy's page", [], {}], ids=repr)
def test_an_answer_that_is_no_list_is_an_outage(
    google: GoogleDriveSimulator, connector: GoogleDriveConnector, body: Any
) -> None:
    cursor = listing(connector).cursor
    google.refuse(Answer(200, body), path=".*/changes")
    with pytest.raises(SourceUnavailable):
        list(connector.changes(cursor))


def test_a_scope_of_another_kind_is_refused(connector: GoogleDriveConnector) -> None:
    for scope in ("folder:x' or 'y", "elsewhere"):
        with pytest.raises(InvalidInput):
            list(connector.changes(None, scope))


# what is an object


def test_what_has_no_text_is_no_object(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    """A shortcut's target is a file of its own."""
    others = [drive.put(name, "", f"{APPS}{name}").id for name in ("form", "map", "site", "drawing")]
    others += [drive.put("shortcut", "", SHORTCUT).id, drive.folder("folder")]
    file = drive.put("file.txt", "text").id
    assert set(listing(connector).found) == {file}
    assert [connector.version(other) for other in others] == [None] * len(others)


def test_a_file_of_another_drive_is_not_of_this_source(google: GoogleDriveSimulator, connector: GoogleDriveConnector) -> None:
    """Although the account may read it: anybody may send any reference."""
    other = google.put(google.shared_drive(), "a.txt", "text").id
    assert connector.version(other) is None
    with pytest.raises(ObjectGone):
        connector.extract(other)


def test_my_drive_is_what_its_user_owns(google: GoogleDriveSimulator, connecting: Connecting) -> None:
    ada = google.my_drive("ada@example.com")
    own, of_ben = ada.put("own.txt", "text").id, ada.put("ben.txt", "text", owner="ben@example.com").id
    everything, folder = connecting(subject="ada@example.com"), connecting(subject="ada@example.com", folders=[ada.id])
    first = listing(everything)
    assert set(first.found) == {own}
    assert everything.version(of_ben) is None
    assert set(listing(folder).found) == {own, of_ben}
    ada.touch(of_ben)
    assert listing(everything, first.cursor).found == {}


# the bin, deletes, and coming back


def test_removed_is_a_delete_also_with_a_file(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector
) -> None:
    """A file that left the feed may still be readable."""
    file = drive.put("a.txt", "text")
    cursor = listing(connector).cursor
    change = {"changeType": "file", "fileId": file.id, "removed": True, "file": drive.to_json(file, google.email)}
    drive_itself = {"changeType": "drive", "driveId": drive.id}
    google.refuse(Answer(200, {"changes": [change, drive_itself], "newStartPageToken": "1"}), path=".*/changes")
    assert [item for item in connector.changes(cursor) if isinstance(item, Change)] == [Change(file.id, ChangeKind.DELETED)]


def test_the_bin_is_a_delete_and_its_way_out_none(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("a.txt", "text").id
    cursor = listing(connector).cursor
    drive.trash(ref)
    binned = listing(connector, cursor)
    assert binned.deleted == {ref}
    assert connector.version(ref) is None
    drive.trash(ref, trashed=False)
    assert set(listing(connector, binned.cursor).found) == {ref}
    assert text(connector, ref) == "text"


def test_a_folder_in_the_bin_takes_what_lies_in_it_along(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    """The feed tells the folder only. Each folder below it is a scope of its own, so the quota is kept on the way."""
    top, deep = drive.put("folder/a.txt", "text").id, drive.put("folder/sub/b.txt", "text").id
    cursor = listing(connector).cursor
    for trashed in (True, False):
        drive.trash(drive.files[top].parent or "", trashed=trashed)
        (scope,) = scopes(connector, cursor)
        (below,) = scopes(connector, None, scope)
        passes = listing(connector, None, scope), listing(connector, None, below)
        there = {ref for told in passes for ref in told.found if not ref.startswith("folder:")}
        assert (there, set[str]().union(*(told.deleted for told in passes))) == (
            (set(), {top, deep}) if trashed else ({top, deep}, set())
        )
        assert [connector.version(ref) is None for ref in (top, deep)] == [trashed, trashed]


def test_a_folder_that_is_gone_again_is_an_empty_scope(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    folder = drive.folder("folder")
    drive.delete(folder)
    assert list(connector.changes(None, f"folder:{folder}")) == [Cursor(None)]


def test_a_folder_that_was_only_renamed_is_not_listed(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    """Documents carry no path."""
    folder = drive.folder("folder")
    cursor = listing(connector).cursor
    drive.rename(folder, "other")
    assert scopes(connector, cursor) == []


# folders as the source


def test_into_and_out_of_the_folder(drive: SimDrive, within: GoogleDriveConnector) -> None:
    inner, outer = drive.folder("in/deep/deeper"), drive.folder("out")
    stays, leaves, comes = (drive.put(path, "text").id for path in ("in/a.txt", "in/deep/b.txt", "out/c.txt"))
    cursor = listing(within).cursor
    assert within.version(comes) is None
    drive.move(leaves, outer)
    drive.move(comes, inner)
    drive.move(stays, inner)
    later = listing(within, cursor)
    assert (set(later.found), later.deleted) == ({comes, stays}, {leaves})
    assert [within.version(ref) is None for ref in (stays, leaves, comes)] == [False, True, False]
    assert within.version(stays) == later.found[stays].version, "where in the source it lies makes no version"


def test_a_folder_that_moves_out_or_in(drive: SimDrive, within: GoogleDriveConnector) -> None:
    """The feed tells the folder only: what lies in it is listed, and looked at one by one."""
    moving, outside = drive.folder("in/moving"), drive.folder("out")
    ref = drive.put("in/moving/sub/a.txt", "text").id
    cursor = listing(within).cursor
    for goal, gone in ((outside, True), (drive.folder("in"), False)):
        drive.move(moving, goal)
        assert scopes(within, cursor) == [f"folder:{moving}"]
        (below,) = scopes(within, None, f"folder:{moving}")
        told = listing(within, None, below)
        assert (set(told.found), told.deleted) == ((set(), {ref}) if gone else ({ref}, set()))
        assert (within.version(ref) is None) is gone


def test_a_folder_that_ends_during_a_listing_ends_only_itself(
    google: GoogleDriveSimulator, drive: SimDrive, connecting: Connecting
) -> None:
    """Google answers for the whole question with 404 then."""
    place: dict[str, Any] = {"drive": drive.id, "folders": [drive.folder("in")]}
    refs = [drive.put(f"in/{number}/a.txt", "text").id for number in range(7)]
    cut = next(item for item in connecting(**place).changes(None) if isinstance(item, Cursor))
    for gone in (2, 5):
        drive.delete(drive.files[refs[gone]].parent or "")
    rest = listing(connecting(**place), cut.value)
    assert set(rest.found) == {ref for at, ref in enumerate(refs) if at not in (2, 5)}
    assert rest.complete


def test_a_folder_within_a_folder_is_listed_once(drive: SimDrive, connecting: Connecting) -> None:
    ref = drive.put("in/deep/a.txt", "text").id
    connector = connecting(drive=drive.id, folders=[drive.folder("in"), drive.folder("in/deep")])
    assert [item.object_ref for item in connector.changes(None) if isinstance(item, Change)] == [ref]


def test_what_is_wrong_with_a_folder_is_said(google: GoogleDriveSimulator, drive: SimDrive, connecting: Connecting) -> None:
    folder = drive.folder("in")
    with pytest.raises(ConnectorError, match=f'lies in another drive: set config.drive to "{drive.id}"'):
        listing(connecting(folders=[folder]))
    with pytest.raises(ConnectorError, match="does not exist, or is not shared with the account"):
        listing(connecting(folders=["1nonexistent"]))
    drive.trash(folder)
    with pytest.raises(ConnectorError, match="lies in the bin"):
        listing(connecting(drive=drive.id, folders=[folder]))


# versions


def test_a_rename_is_a_new_version_with_the_new_title(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("old.txt", "text").id
    cursor, before = listing(connector).cursor, connector.version(ref)
    drive.rename(ref, "nëw \"100%\" 'quoted'.txt")
    assert set(listing(connector, cursor).found) == {ref}
    assert connector.version(ref) != before
    assert connector.extract(ref).documents[0].title == "nëw \"100%\" 'quoted'.txt"


@pytest.mark.parametrize("mime_type", ["text/plain", DOCUMENT])
def test_a_view_is_no_new_version(drive: SimDrive, connector: GoogleDriveConnector, mime_type: str) -> None:
    """`version` alone would extract for every reader; a document's pictures are encoded anew at each export."""
    ref = drive.put("a", "text", mime_type).id
    fingerprint, before = connector.fingerprint(ref), connector.version(ref)
    drive.touch(ref)
    assert connector.fingerprint(ref) != fingerprint
    assert connector.version(ref) == before == connector.extract(ref).version


def test_the_version_is_of_the_bytes_that_were_read(
    google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector
) -> None:
    """Also where they are newer than what was asked just before."""
    ref = drive.put("a.txt", "old").id
    connector.version(ref)
    drive.put("a.txt", "new")
    read = connector.extract(ref)
    assert read.documents[0].text == "new"
    assert read.version == connector.version(ref)
    assert read.fingerprint != connector.fingerprint(ref), "of before the read: it vouches for nothing newer"


def test_without_sha256_the_md5_tells(google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("a.txt", "text").id
    told = {key: value for key, value in drive.to_json(drive.files[ref], google.email).items() if key != "sha256Checksum"}
    google.refuse(Answer(200, told), path=f".*/files/{ref}")
    asked = connector.version(ref)
    read = connector.extract(ref)  # in the same look, so the file is not asked for again
    assert read.version == asked
    assert read.version.startswith("md5:1cb251ec0d568de6a929b520c4aed8d1|")


# reading


def test_google_s_own_documents_are_exported(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    document = drive.put("Plan", "# The plan\n\nHerons first.", DOCUMENT).id
    read = connector.extract(document).documents[0]
    assert (read.title, read.media_type) == ("The plan", "text/markdown")
    assert read.text.strip() == "# The plan\n\nHerons first."
    untitled = drive.put("Notes", "Only a line.", DOCUMENT).id
    assert connector.extract(untitled).documents[0].title == "Notes"
    slides = drive.put("Talk", "First slide", f"{APPS}presentation").id
    assert connector.extract(slides).documents[0].title == "Talk"


def test_a_spreadsheet_is_read_with_all_its_sheets(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    """The bytes of two exports differ by their times; the version does not."""
    ref = drive.put("Birds", sheets("heron", "kingfisher"), SPREADSHEET).id
    before, read = connector.version(ref), text(connector, ref)
    assert "heron" in read
    assert "kingfisher" in read
    drive.put("Birds", sheets("heron", "kingfisher", made="1999"), SPREADSHEET)
    assert connector.version(ref) == before
    drive.put("Birds", sheets("heron", "crane"), SPREADSHEET)
    assert connector.version(ref) != before


def sheets(*cells: str, made: str = "2026") -> bytes:
    book = Workbook()
    book.properties.title = made
    for cell in cells:
        book.create_sheet(cell.title())["A1"] = cell
    book.save(file := io.BytesIO())
    return file.getvalue()


def test_an_empty_file_is_not_asked_for(google: GoogleDriveSimulator, drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("empty.txt", "").id
    read = connector.extract(ref)
    assert (read.documents[0].text, read.version) == ("", connector.version(ref))
    assert not any(asked.query.get("alt") for asked in google.asked if asked.path.endswith(ref))


@pytest.mark.parametrize(
    ("refused", "reason"),
    [("cannotDownloadAbusiveFile", "malware"), ("cannotDownloadFile", "no_download"), ("exportSizeLimitExceeded", "too_large")],
)
@pytest.mark.parametrize("mime_type", ["text/plain", DOCUMENT])
def test_a_content_that_is_refused_is_unreadable_as_it_is(
    drive: SimDrive, connector: GoogleDriveConnector, refused: str, reason: str, mime_type: str
) -> None:
    ref = drive.put("a", "text", mime_type).id
    drive.files[ref].refused = refused
    with pytest.raises(ObjectUnreadable) as error:
        connector.extract(ref)
    assert error.value.reason == reason
    assert error.value.version
    assert error.value.fingerprint == connector.fingerprint(ref)


def test_a_file_that_is_too_large_is_not_downloaded(
    google: GoogleDriveSimulator, drive: SimDrive, connecting: Connecting
) -> None:
    connector = connecting(drive=drive.id, max_bytes=10)
    ref = drive.put("a.txt", "x" * 11).id
    with pytest.raises(ObjectUnreadable) as error:
        connector.extract(ref)
    assert (error.value.reason, error.value.version) == ("too_large", connector.version(ref))


def test_a_download_quota_of_one_file_is_waited_for(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("a.txt", "text").id
    drive.files[ref].refused = "downloadQuotaExceeded"
    with pytest.raises(ConnectorError) as error:
        connector.extract(ref)
    assert type(error.value) is ConnectorError


def test_bytes_that_are_no_text_are_said_to_be(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("a.bin", b"\0\1\2" * 100, "application/octet-stream").id
    with pytest.raises(ObjectUnreadable) as error:
        connector.extract(ref)
    assert (error.value.reason, error.value.version) == ("binary", connector.version(ref))


# permissions


def test_a_file_that_is_closed_to_us_is_unreadable(drive: SimDrive, connector: GoogleDriveConnector) -> None:
    ref = drive.put("a.txt", "text").id
    drive.files[ref].forbidden = True
    with pytest.raises(ObjectUnreadable) as error:
        connector.version(ref)
    assert (error.value.reason, error.value.version) == ("forbidden", "forbidden")


def test_a_membership_that_ended_deletes_nothing(google: GoogleDriveSimulator, drive: SimDrive, connecting: Connecting) -> None:
    ref = drive.put("a.txt", "text").id
    connector = connecting(drive=drive.id)
    cursor = listing(connector).cursor
    drive.members.clear()
    for ask in (
        lambda: listing(connecting(drive=drive.id), cursor),
        lambda: listing(connecting(drive=drive.id)),
        lambda: connecting(drive=drive.id).version(ref),
        lambda: connecting(drive=drive.id).extract(ref),
    ):
        with pytest.raises(ConnectorError, match="the account is no member") as error:
            ask()
        assert type(error.value) is ConnectorError


def test_a_share_that_ended_deletes_nothing(google: GoogleDriveSimulator, connecting: Connecting) -> None:
    drive = google.my_drive("eve@example.com")
    ref, folder = drive.put("in/a.txt", "text").id, drive.folder("in")
    drive.shares[folder] = {google.email}
    connector = connecting(folders=[folder])
    cursor = listing(connector).cursor
    drive.shares.clear()
    for ask in (lambda: connecting(folders=[folder]).version(ref), lambda: listing(connecting(folders=[folder]))):
        with pytest.raises(ConnectorError, match="not shared with the account"):
            ask()
    assert listing(connector, cursor).deleted == set()
