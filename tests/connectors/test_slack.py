"""The connector `slack` against the simulated Slack: the suite, deltas, refusals, and what a thread shows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence

import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.slack import SlackConnector
from sourcebus.errors import CursorExpired, InvalidInput, NeedsAuth, ObjectGone, SourceUnavailable, Throttled
from sourcebus.model import Change, Cursor, Delivery
from sourcebus.testing import ConnectorSuite, Hook, SourceUnderTest, not_applicable
from sourcebus.testing.connector_suite import listing
from sourcebus.testing.providers.server import Answer
from sourcebus.testing.providers.slack import SIGNING_SECRET, TEAM, TOKEN, SlackServer

SECRET = json.dumps({"token": TOKEN, "signing": SIGNING_SECRET})
C1, C2, DAY_S = "C0ONE", "C0TWO", 86_400.0

Connect = Callable[..., SlackConnector]


@pytest.fixture(scope="module")
def one_server() -> Generator[SlackServer]:
    with SlackServer() as server:
        yield server


@pytest.fixture
def slack(one_server: SlackServer) -> SlackServer:
    """A workspace with two empty channels."""
    one_server.reset()
    one_server.channel(C1)
    one_server.channel(C2)
    return one_server


def connected(slack: SlackServer, **config: object) -> SlackConnector:
    return SlackConnector.create({"api": slack.api, **config}, SECRET)


@pytest.fixture
def connect(slack: SlackServer) -> Generator[Connect]:
    made: list[SlackConnector] = []

    def make(**config: object) -> SlackConnector:
        made.append(connected(slack, **config))
        return made[-1]

    yield make
    for connector in made:
        connector.close()


# the suite


class Messages(SourceUnderTest):
    """Objects are single messages, which are edited."""

    def __init__(self, slack: SlackServer) -> None:
        self.slack = slack
        self.times: dict[str, str] = {}

    def connect(self) -> SlackConnector:
        return connected(self.slack, team=TEAM)

    def write(self, name: str, text: str) -> str:
        if name in self.times:
            self.slack.edit(C1, self.times[name], text)
        else:
            self.times[name] = self.slack.post(C1, text)
        return f"{C1}/{self.times[name]}"

    def delete(self, ref: str) -> None:
        ts = ref.partition("/")[2]
        self.slack.delete(C1, ts)
        self.times = {name: held for name, held in self.times.items() if held != ts}

    def break_off(self) -> None:
        self.slack.refuse(Answer(503, b"down"), times=1000)

    def break_half_way(self) -> None:
        """One page of the history is told, the next is not."""
        self.slack.page_limit = 5
        self.slack.refuse(Answer(503, b"down"), times=1000, path=".*/conversations.history", after=1)

    def throttles(self) -> Mapping[str, Callable[[], None]]:
        forms = {
            "429": self.slack.limited(),
            "429 without a time": Answer(429, {"ok": False, "error": "ratelimited"}),
            "200 ratelimited": self.slack.limited(status=200),
            "200 rate_limited": self.slack.failing("rate_limited"),
        }
        return {form: lambda answer=answer: self.slack.refuse(answer, times=1000) for form, answer in forms.items()}

    def revoke(self) -> None:
        self.slack.tokens.clear()

    def mend(self) -> None:
        self.slack.accept_again()
        self.slack.page_limit, self.slack.tokens = 999, {TOKEN}

    def rename(self, ref: str, name: str) -> str:
        not_applicable("a message has no name")

    def forbid(self, ref: str) -> None:
        not_applicable("the bot sees a channel or does not")

    def expire_cursor(self, cursor: str | None) -> str | None:
        not_applicable("a cursor is a time: Slack remembers nothing that it could forget")

    def listen(self, hook: Hook) -> None:
        assert self.slack.set_request_url(hook.address).status_code == 200

    def settle(self, hook: Hook) -> None:
        self.slack.courier.settle()

    def of_others(self, hook: Hook) -> Sequence[Delivery]:
        """The same app in another workspace."""
        event = {"type": "message", "channel": C1, "user": "U0", "text": "text", "ts": "1.000100"}
        self.slack.announce(event, team_id="T0OTHER", authorizations=[{"team_id": "T0OTHER"}])
        self.settle(hook)
        return hook.ignored


class Replies(Messages):
    """Objects are threads whose first message never changes; what changes is a reply, within the same second."""

    def __init__(self, slack: SlackServer) -> None:
        super().__init__(slack)
        self.replies: dict[str, str] = {}

    def write(self, name: str, text: str) -> str:
        if name in self.times:
            self.slack.edit(C1, self.replies[name], text)
        else:
            self.times[name] = self.slack.post(C1, "a question")
            self.replies[name] = self.slack.post(C1, text, thread=self.times[name])
        return f"{C1}/{self.times[name]}"

    def delete(self, ref: str) -> None:
        ts = ref.partition("/")[2]
        name = next(name for name, held in self.times.items() if held == ts)
        self.slack.delete(C1, self.replies.pop(name))
        self.slack.delete(C1, self.times.pop(name))


class SlackSuite(ConnectorSuite):
    def test_a_deleted_object_leaves_the_listing(self, source: SourceUnderTest, connector: Connector) -> None:
        """Slack's history says nothing of a deleted message: its event does, and every complete listing."""
        kept, lost = source.write("kept", "one"), source.write("lost", "two")
        listing(connector)
        source.delete(lost)
        result = listing(connector)
        assert set(result.found) == {kept}
        assert result.complete


class TestMessages(SlackSuite):
    @pytest.fixture
    def source(self, slack: SlackServer) -> SourceUnderTest:
        return Messages(slack)


class TestReplies(SlackSuite):
    @pytest.fixture
    def source(self, slack: SlackServer) -> SourceUnderTest:
        return Replies(slack)


# listing


def refs(connector: SlackConnector, cursor: str | None) -> tuple[set[str], str | None]:
    result = listing(connector, cursor)
    assert result.complete == (cursor is None)
    return set(result.found), result.cursor


def test_a_delta_tells_new_messages_new_replies_and_edits(slack: SlackServer, connect: Connect) -> None:
    now = time.time()
    old = slack.post(C1, "last week", at=now - 7 * DAY_S)
    quiet = slack.post(C1, "a quiet thread", at=now - 2 * DAY_S)
    slack.post(C1, "reply", thread=quiet, at=now - 2 * DAY_S + 1)
    busy = slack.post(C1, "a busy thread", at=now - DAY_S)
    slack.post(C1, "reply", thread=busy, at=now - DAY_S + 1)
    other = slack.post(C2, "in another channel", at=now - DAY_S)
    connector = connect()
    found, cursor = refs(connector, None)
    assert found == {f"{C1}/{old}", f"{C1}/{quiet}", f"{C1}/{busy}", f"{C2}/{other}"}
    slack.post(C1, "one more reply", thread=busy)
    new = slack.post(C2, "new")
    before = connector.version(f"{C2}/{other}")
    slack.edit(C2, other, "edited")
    result = listing(connector, cursor)
    assert set(result.found) == {f"{C1}/{busy}", f"{C2}/{new}", f"{C2}/{other}"}, "the quiet thread cannot have changed"
    assert result.found[f"{C2}/{other}"].version == connector.version(f"{C2}/{other}") != before
    assert f"{C1}/{busy}" not in refs(connector, result.cursor)[0]


def test_every_page_can_be_the_last_of_a_worker(slack: SlackServer, connect: Connect) -> None:
    slack.page_limit = 3
    expected = {f"{channel}/{slack.post(channel, f'message {number}')}" for number in range(7) for channel in (C1, C2)}
    connector = connect()
    cuts = [item for item in connector.changes(None) if isinstance(item, Cursor)]
    assert len(cuts) == 9, "three pages and an end for each of two channels, and the end of all"
    for cut in cuts[:-1]:
        before: set[str] = set()
        for item in connector.changes(None):
            if item == cut:
                break
            if isinstance(item, Change):
                before.add(item.object_ref)
        rest = listing(connector, cut.value)
        assert before | set(rest.found) == expected
        assert not before & set(rest.found), "nothing is listed twice"
        assert rest.complete
        assert rest.cursor == cuts[-1].value


def test_long_threads_are_read_to_their_end(slack: SlackServer, connect: Connect) -> None:
    slack.page_limit = 15
    root = slack.post(C1, "a long thread")
    for number in range(40):
        slack.post(C1, f"reply {number}", thread=root)
    connector = connect()
    text = connector.extract(f"{C1}/{root}").documents[0].text
    assert all(f"reply {number}\n" in text + "\n" for number in range(40))
    assert connector.take_cost() == 3


def test_a_scope_is_a_channel(slack: SlackServer, connect: Connect) -> None:
    one, two = slack.post(C1, "one"), slack.post(C2, "two")
    assert set(listing(connect(), scope=f"{C1}/").found) == {f"{C1}/{one}"}
    assert set(listing(connect(channels=[C2])).found) == {f"{C2}/{two}"}
    assert connect(channels=[C2]).version(f"{C1}/{one}") is None
    assert listing(connect(), scope="C0NONE/").complete


def test_a_channel_that_the_bot_joins_is_listed_whole(slack: SlackServer, connect: Connect) -> None:
    connector = connect()
    cursor = refs(connector, None)[1]
    slack.channel("C0NEW")
    old = slack.post("C0NEW", "from before", at=time.time() - 400 * DAY_S)
    assert refs(connector, cursor)[0] == {f"C0NEW/{old}"}


def test_history_days_is_how_far_back_there_are_objects(slack: SlackServer, connect: Connect) -> None:
    old, new = slack.post(C1, "old", at=time.time() - 40 * DAY_S), slack.post(C1, "new")
    connector = connect(history_days=30)
    assert refs(connector, None)[0] == {f"{C1}/{new}"}
    assert connector.version(f"{C1}/{old}") is None
    assert connect().version(f"{C1}/{old}") is not None


def test_retention_takes_what_it_takes(slack: SlackServer, connect: Connect) -> None:
    old, new = slack.post(C1, "old", at=time.time() - 40 * DAY_S), slack.post(C1, "new")
    connector = connect()
    slack.expire_before(C1, new)
    assert refs(connector, None)[0] == {f"{C1}/{new}"}
    assert connector.version(f"{C1}/{old}") is None


def test_a_cursor_of_other_settings_has_expired(connect: Connect) -> None:
    cursor = refs(connect(), None)[1]
    for connector in (connect(channels=[C1]), connect(bot_messages=True), connect(history_days=3)):
        with pytest.raises(CursorExpired):
            list(connector.changes(cursor))
    with pytest.raises(CursorExpired):
        list(connect().changes("[]"))


# threads


def test_a_deleted_beginning_leaves_its_replies(slack: SlackServer, connect: Connect) -> None:
    root = slack.post(C1, "the question")
    reply = slack.post(C1, "the answer", thread=root)
    connector = connect()
    before = connector.version(f"{C1}/{root}")
    slack.delete(C1, root)
    document = connector.extract(f"{C1}/{root}").documents[0]
    assert "the answer" in document.text
    assert "deleted" not in document.text
    assert connector.version(f"{C1}/{root}") != before
    assert f"{C1}/{root}" in listing(connector).found
    assert connector.version(f"{C1}/{reply}") is None, "a reply is part of its thread, and none by itself"


def test_a_deleted_reply_is_a_new_version(slack: SlackServer, connect: Connect) -> None:
    """Also where the newest time of the thread stays what it was."""
    root = slack.post(C1, "question")
    first = slack.post(C1, "first", thread=root)
    slack.post(C1, "last", thread=root)
    connector = connect()
    before = connector.version(f"{C1}/{root}")
    slack.delete(C1, first)
    assert connector.version(f"{C1}/{root}") not in (before, None)


def test_a_link_that_slack_unfolds_is_a_new_version(slack: SlackServer, connect: Connect) -> None:
    """No time of the message tells of it."""
    ts = slack.post(C1, "see <https://example.org>")
    connector = connect()
    before = connector.version(f"{C1}/{ts}")
    slack.unfurl(C1, ts, "what the page says")
    assert connector.version(f"{C1}/{ts}") != before
    assert "what the page says" in connector.extract(f"{C1}/{ts}").documents[0].text


def test_bots_and_notices(slack: SlackServer, connect: Connect) -> None:
    slack.post(C1, "<@U1> has joined the channel", subtype="channel_join")
    bot = slack.post(C1, "build failed", subtype="bot_message", bot_id="B1", username="ci")
    answered = slack.post(C1, "build failed again", bot_id="B1")
    slack.post(C1, "I look into it", thread=answered)
    quiet, loud = connect(), connect(bot_messages=True)
    assert refs(quiet, None)[0] == {f"{C1}/{answered}"}
    assert refs(loud, None)[0] == {f"{C1}/{answered}", f"{C1}/{bot}"}
    assert quiet.version(f"{C1}/{bot}") is None
    assert "build failed" not in quiet.extract(f"{C1}/{answered}").documents[0].text
    assert "build failed again" in loud.extract(f"{C1}/{answered}").documents[0].text


def test_a_reply_that_was_also_sent_to_the_channel_is_its_thread(slack: SlackServer, connect: Connect) -> None:
    root = slack.post(C1, "question")
    slack.post(C1, "answer for all", thread=root, subtype="thread_broadcast")
    assert refs(connect(), None)[0] == {f"{C1}/{root}"}


def test_marks_are_read_as_people_read_them(slack: SlackServer, connect: Connect) -> None:
    text = "See <https://example.org/a?b=1&amp;c|the page> &lt;here&gt;, <@U0MONA> in <#C9|general> <!here>"
    text += " <!subteam^S1|@team> <https://x.org>"
    ts = slack.post(C1, text, files=[{"name": "plan.pdf"}], attachments=[{"title": "A page", "text": "its text"}])
    read = connect().extract(f"{C1}/{ts}").documents[0].text
    for part in (
        "the page (https://example.org/a?b=1&c) <here>, @U0MONA in #general @here @team https://x.org",
        "plan.pdf",
        "its text",
    ):
        assert part in read


# refusals


@pytest.mark.parametrize(
    ("answer", "error", "wait_ms"),
    [
        (Answer(429, b"", {"Retry-After": "17"}), Throttled, 17_000),
        (Answer(429, {"ok": False, "error": "ratelimited"}), Throttled, 30_000),
        (Answer(200, {"ok": False, "error": "ratelimited"}, {"Retry-After": "5"}), Throttled, 5_000),
        (Answer(200, {"ok": False, "error": "rate_limited"}), Throttled, 30_000),
        (Answer(200, {"ok": False, "error": "token_revoked"}), NeedsAuth, None),
        (Answer(200, {"ok": False, "error": "missing_scope", "needed": "channels:history"}), NeedsAuth, None),
        (Answer(200, {"ok": False, "error": "internal_error"}), SourceUnavailable, None),
        (Answer(200, {"ok": False, "error": "never_heard_of"}), SourceUnavailable, None),
        (Answer(200, b"<html>"), SourceUnavailable, None),
        (Answer(200, []), SourceUnavailable, None),
        (Answer(404, b"a proxy"), SourceUnavailable, None),
        (Answer(403, b"a proxy"), SourceUnavailable, None),
        (Answer(500, b""), SourceUnavailable, None),
    ],
)
def test_what_slack_refuses(
    slack: SlackServer, connect: Connect, answer: Answer, error: type[Exception], wait_ms: int | None
) -> None:
    """None of these is an object that is gone."""
    ts = slack.post(C1, "text")
    connector = connect()
    for call in (lambda: connector.version(f"{C1}/{ts}"), lambda: list(connector.changes(None))):
        slack.refuse(answer)
        with pytest.raises(error) as refused:
            call()
        assert not isinstance(refused.value, ObjectGone)
        assert getattr(refused.value, "retry_after_ms", None) == wait_ms


@pytest.mark.parametrize("private", [False, True])
def test_a_channel_that_the_bot_left(slack: SlackServer, connect: Connect, private: bool) -> None:
    """A channel that the config names needs a person; one of all that the bot is in is no part of the source any more."""
    slack.channel(C1, private=private)
    ref = f"{C1}/{slack.post(C1, 'text')}"
    named, whole = connect(channels=[C1]), connect()
    cursor = listing(named).cursor
    slack.remove_bot(C1)
    for call in (lambda: named.version(ref), lambda: list(named.changes(None)), lambda: list(named.changes(cursor))):
        with pytest.raises(NeedsAuth, match="invite the bot"):
            call()
    assert whole.version(ref) is None
    assert refs(whole, None)[0] == set()


def test_a_token_that_is_not_taken_deletes_nothing(slack: SlackServer, connect: Connect) -> None:
    ref = f"{C1}/{slack.post(C1, 'text')}"
    connector = connect()
    slack.tokens.clear()
    for call in (lambda: connector.version(ref), lambda: list(connector.changes(None))):
        with pytest.raises(NeedsAuth):
            call()


def test_a_listing_that_fails_half_way_is_not_complete(slack: SlackServer, connect: Connect) -> None:
    slack.page_limit = 2
    for number in range(5):
        slack.post(C1, f"message {number}")
    connector = connect()
    seen: list[Change | Cursor] = []
    items = connector.changes(None)
    while not any(isinstance(item, Cursor) for item in seen):
        seen.append(next(items))
    slack.refuse(slack.failing("fatal_error"))
    with pytest.raises(SourceUnavailable):
        seen.extend(items)
    assert not any(isinstance(item, Cursor) and item.complete for item in seen)


def test_an_empty_page_before_the_end_is_no_end(slack: SlackServer, connect: Connect) -> None:
    slack.post(C1, "text")
    slack.refuse(Answer(200, {"ok": True, "messages": [], "has_more": True}), path=".*history")
    with pytest.raises(SourceUnavailable):
        list(connect().changes(None))


# settings


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"channels": []}, "config.channels"),
        ({"channels": ["#general"]}, "config.channels"),
        ({"channels": "C0123"}, "config.channels"),
        ({"team": "C0123"}, "config.team"),
        ({"app": "T0123"}, "config.app"),
        ({"bot_messages": "yes"}, "config.bot_messages"),
        ({"history_days": 0}, "config.history_days"),
        ({"lookback_days": True}, "config.lookback_days"),
        ({"api": "slack.com"}, "config.api"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        SlackConnector.create(config, SECRET)
    assert refused.value.field == field


def test_sources_of_one_token_share_a_bucket() -> None:
    one, same, other = (SlackConnector.create({}, secret) for secret in (SECRET, TOKEN, "xoxb-other"))
    assert one.recommended.quota.bucket == same.recommended.quota.bucket != other.recommended.quota.bucket
    assert (one.recommended.quota.rate, one.recommended.quota.burst, one.recommended.quota.concurrency) == (0.75, 5, 2)
    for connector in (one, same, other):
        connector.close()
