"""Notifications that wait in an SQS queue, taken by long poll. At least once: a message goes when its changes are stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from sourcebus.connectors.s3.bucket import client
from sourcebus.connectors.s3.meaning import code_of, meaning
from sourcebus.connectors.s3.records import News, Reader
from sourcebus.connectors.s3.settings import Settings
from sourcebus.errors import ConnectorError, InvalidInput, SourceUnavailable, Throttled
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind

_log = structlog.get_logger(__name__)

WAIT_S = 3
"""Of one long poll: whoever stops a watch waits no longer than this. An idle queue costs 29,000 requests a day, 0.01 $."""

_MOST = 10  # messages in one answer, SQS's own limit
_RETRY_S = 1.0
_MOST_RETRY_S = 30.0
_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NonExistentQueue")


class QueueWatch:
    """The watch over one queue, which belongs to this source alone: what is taken from it nobody else gets."""

    def __init__(
        self, settings: Settings, reader: Reader, queue_url: str, stop: threading.Event, *, wait_s: int = WAIT_S
    ) -> None:
        self._settings, self._reader, self._url, self._stop, self._wait_s = settings, reader, queue_url, stop, wait_s
        self._source = f"queue {urlsplit(queue_url).path}"

    def batches(self) -> Iterator[Sequence[Change]]:
        """As `Watches.watch`: one scan as soon as the queue answers, then what its messages say, at most ten at a time.

        Outages that pass are waited out here without another scan, because the queue keeps what comes meanwhile. Raises
        where a person has to act, or the queue is gone and its messages with it.
        """
        parts = urlsplit(self._url)
        sqs = client(self._settings, "sqs", f"{parts.scheme}://{parts.netloc}")
        try:
            yield from self._batches(sqs)
        finally:
            sqs.close()

    def _batches(self, sqs: Any) -> Iterator[Sequence[Change]]:
        began, retry_s = False, _RETRY_S
        while not self._stop.is_set():
            try:
                messages = self._receive(sqs, self._wait_s if began else 0)
            except Throttled as error:
                retry_s = self._rest(error, retry_s)
                continue
            except SourceUnavailable as error:
                if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in _NO_QUEUE:
                    raise
                retry_s = self._rest(error, retry_s)
                continue
            retry_s = _RETRY_S
            if not began:
                began = True
                yield [Change(WHOLE_SOURCE, ChangeKind.SCAN)]
            if changes := self._changes(messages):
                yield changes
            if self._stop.is_set():
                return  # who takes the changes may have given up storing them: the queue hands them out again
            self._delete(sqs, messages)

    def _receive(self, sqs: Any, wait_s: int) -> Sequence[dict[str, Any]]:
        try:
            answer = sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=_MOST, WaitTimeSeconds=wait_s)
        except (ClientError, BotoCoreError) as error:
            raise meaning(error, f"receive from {self._source}") from error
        return answer.get("Messages", [])

    def _changes(self, messages: Sequence[dict[str, Any]]) -> Sequence[Change]:
        news = News()
        for message in messages:
            try:
                self._reader.read(message.get("Body", ""), news)
            except InvalidInput as error:
                # It may have been about a change, so the source is listed; left in the queue it would come for ever.
                _log.warning("connectors.message_unread", queue=self._source, id=message.get("MessageId"), error=str(error))
                news.add(Change(WHOLE_SOURCE, ChangeKind.SCAN))
        return [*news.changes.values()]

    def _delete(self, sqs: Any, messages: Sequence[dict[str, Any]]) -> None:
        """One that stays is handed out again, and its changes are looked at once more."""
        if not messages:
            return
        entries = [{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(messages)]
        try:
            failed = sqs.delete_message_batch(QueueUrl=self._url, Entries=entries).get("Failed", [])
        except (ClientError, BotoCoreError) as error:
            failed = [meaning(error, "delete")] * len(entries)
        if failed:
            _log.warning("connectors.messages_kept", queue=self._source, count=len(failed), error=str(failed[0]))

    def _rest(self, error: ConnectorError, retry_s: float) -> float:
        _log.warning("connectors.queue_silent", queue=self._source, error=str(error), retry_s=retry_s)
        self._stop.wait(retry_s)
        return min(_MOST_RETRY_S, retry_s * 2)
