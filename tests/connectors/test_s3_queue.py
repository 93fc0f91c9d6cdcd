"""The queue of the connector `s3`: at least once, whatever happens between taking a message and storing what it says."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.s3_messages import record
from tests.s3_servers import SECRET, Line, S3Server, new_name

from sourcebus.connectors.s3 import S3QueueConnector
from sourcebus.connectors.s3.settings import Settings as S3Settings
from sourcebus.errors import NeedsAuth, SourceUnavailable
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Source
from sourcebus.runtime import build
from sourcebus.settings import Settings
from sourcebus.testing import running_server
from sourcebus.testing.connector_suite import watching
from sourcebus.testing.providers.server import Answer, ProviderServer

PATIENCE_S = 10.0
SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)


class Queue:
    """An SQS queue of moto, and the bucket's name that its messages speak of."""

    def __init__(self, aws: S3Server) -> None:
        self.sqs, self.bucket = aws.client("sqs"), new_name()
        # a message that was taken and not deleted comes again after a second
        self.url = self.sqs.create_queue(QueueName=self.bucket, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]

    def send(self, *bodies: Any) -> None:
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self.sqs.send_message(QueueUrl=self.url, MessageBody=text)

    def left(self) -> int:
        """Messages that are in it, taken ones too."""
        return self._number("ApproximateNumberOfMessages") + self.taken()

    def taken(self) -> int:
        """Messages that somebody took and has not deleted, until their time is over."""
        return self._number("ApproximateNumberOfMessagesNotVisible")

    def _number(self, name: str) -> int:
        return int(self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])["Attributes"][name])

    def event(self, key: str) -> Any:
        return {"Records": [record(key, bucket=self.bucket)]}


@pytest.fixture
def messages(aws: S3Server) -> Queue:
    return Queue(aws)


@pytest.fixture
def connector(messages: Queue) -> Iterator[S3QueueConnector]:
    made = watcher(messages.bucket, messages.url)
    yield made
    made.close()


def watcher(bucket: str, queue_url: str) -> S3QueueConnector:
    config = {"bucket": bucket, "queue_url": queue_url, "region": "us-east-1"}
    return S3QueueConnector(S3Settings.parse(config, SECRET), wait_s=0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def next_change(batches: queue.Queue[Sequence[Change]]) -> Sequence[Change]:
    return batches.get(timeout=PATIENCE_S)


def test_a_message_goes_once_its_changes_are_taken(connector: S3QueueConnector, messages: Queue) -> None:
    messages.send(messages.event("one.txt"))
    with watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        assert [change.object_ref for change in next_change(batches)] == ["one.txt"]
        until(lambda: messages.left() == 0)
        messages.send(messages.event("two.txt"))
        assert [change.object_ref for change in next_change(batches)] == ["two.txt"]


def test_what_was_not_stored_comes_again(connector: S3QueueConnector, messages: Queue) -> None:
    """The watcher dies between taking a batch and storing it: the next one gets the same."""
    messages.send(messages.event("one.txt"))
    batches = cast("Generator[Sequence[Change]]", connector.watch(threading.Event(), step_ms=5))
    assert next(batches) == [SCAN]
    assert [change.object_ref for change in next(batches)] == ["one.txt"]
    batches.close()  # as if its process had ended while it offered the batch to the bus
    assert messages.left() == 1
    with watching(connector) as again:
        assert next_change(again) == [SCAN]
        assert [change.object_ref for change in next_change(again)] == ["one.txt"]


def test_a_watch_that_is_stopped_keeps_what_may_not_be_stored(connector: S3QueueConnector, messages: Queue) -> None:
    """Whoever takes the batches returns without storing once it is told to stop (`WatchRunner`)."""
    messages.send(messages.event("one.txt"))
    stop = threading.Event()
    batches = connector.watch(stop, step_ms=5)
    assert next(iter(batches)) == [SCAN]
    assert next(batches)
    stop.set()
    assert next(batches, None) is None
    assert messages.left() == 1


def test_messages_of_no_interest_go_without_a_change(connector: S3QueueConnector, messages: Queue) -> None:
    messages.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": messages.bucket})
    messages.send({"Records": [record("doc.txt", bucket="another")]}, {"Records": [record("d", "ObjectTagging:Put")]})
    with watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        until(lambda: messages.left() == 0)
        assert batches.empty()


def test_a_message_that_makes_no_sense_lists_the_source(connector: S3QueueConnector, messages: Queue) -> None:
    """It may have been about a change. It goes, or it would come for ever."""
    messages.send("no JSON at all", messages.event("doc.txt"))
    with watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        said = [*next_change(batches)]
        while not any(change.object_ref == "doc.txt" for change in said):
            said += next_change(batches)
        assert SCAN in said
        until(lambda: messages.left() == 0)


def test_many_messages_are_taken_ten_at_a_time(connector: S3QueueConnector, messages: Queue) -> None:
    keys = {f"doc{number}.txt" for number in range(35)}
    messages.send(*(messages.event(key) for key in keys))
    with watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        seen: set[str] = set()
        while seen != keys:
            batch = next_change(batches)
            assert len(batch) <= 10
            seen |= {change.object_ref for change in batch}
        until(lambda: messages.left() == 0)


def test_an_outage_is_waited_out_without_another_scan(aws: S3Server, messages: Queue) -> None:
    """The queue keeps what comes meanwhile, so nothing has to be listed."""
    line = Line(aws.url)
    connector = watcher(messages.bucket, messages.url.replace(aws.url, line.url))
    with watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        line.cut()
        messages.send(messages.event("meanwhile.txt"))
        line.mend()
        assert [change.object_ref for change in next_change(batches)] == ["meanwhile.txt"]
    line.close()


@contextmanager
def refusing(code: str, status: int) -> Generator[tuple[ProviderServer, S3QueueConnector]]:
    with ProviderServer() as server:
        body = {"__type": f"com.amazonaws.sqs#{code}", "message": "m"}
        server.refuse(Answer(status, body, {"x-amzn-query-error": f"{code};Sender"}), times=1)
        server.on("POST", "/", lambda _asked: Answer(200, {"Messages": list[str]()}))
        yield server, watcher("some-bucket", f"{server.url}/123456789012/changes")


@pytest.mark.parametrize(
    ("code", "status", "error"), [("AccessDeniedException", 403, NeedsAuth), ("QueueDoesNotExist", 400, SourceUnavailable)]
)
def test_a_queue_that_is_gone_or_closed_ends_the_watch(code: str, status: int, error: type[Exception]) -> None:
    """Before it has begun: a watch that could not begin asks for no scan each time it is tried again."""
    with refusing(code, status) as (_server, connector), pytest.raises(error):
        next(iter(connector.watch(threading.Event(), step_ms=5)))


@pytest.mark.parametrize(("code", "status"), [("RequestThrottled", 400), ("OverLimit", 403), ("InternalError", 500)])
def test_a_throttled_or_failing_queue_is_asked_again(code: str, status: int) -> None:
    with refusing(code, status) as (server, connector), watching(connector) as batches:
        assert next_change(batches) == [SCAN]
        assert len(server.asked) >= 2


def test_messages_wait_for_a_bus_that_is_down(messages: Queue, tmp_path: Path) -> None:
    """With the watcher of the product: nothing leaves the queue before Redis has it, and then all of it is there."""
    socket = tmp_path / "redis.sock"
    settings = Settings(
        redis_url=f"unix://{socket}",
        database_url=f"sqlite:///{tmp_path}/catalog.db",
        data_dir=tmp_path,
        secret_key=SecretStr(Fernet.generate_key().decode()),
    )
    config = {"bucket": messages.bucket, "queue_url": messages.url, "region": "us-east-1"}
    stop = threading.Event()
    with build(settings) as runtime:
        runtime.catalog.add_source(Source("queued", "s3", config, secret=SECRET))
        messages.send(messages.event("one.txt"))
        watcher_thread = threading.Thread(target=runtime.watches().run, args=(stop,))
        watcher_thread.start()
        try:
            until(lambda: messages.taken() == 1)
            until(lambda: messages.taken() == 0)  # its second has passed: it can be had again
            assert messages.left() == 1
            with running_server() as url:
                socket.symlink_to(url.removeprefix("unix://"))
                until(lambda: messages.left() == 0)
                assert runtime.bus.peek("queued", "one.txt").state == "ready"
        finally:
            stop.set()
            messages.send(messages.event("two.txt"))  # so that it need not wait for the end of its long poll
            watcher_thread.join()
