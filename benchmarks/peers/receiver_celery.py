"""The receiver that most teams write: a FastAPI endpoint that checks the signature and sends a Celery task.

``python -m benchmarks.peers.receiver_celery PORT payload|names``: what the task is given, the parsed payload (as most do) or
only the names of what changed (the least that it could do with). `SOURCEBUS_REDIS_URL` is its broker.
"""

# Celery ships no type information:
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, cast

import uvicorn
from celery import Celery
from fastapi import FastAPI, HTTPException, Request

from benchmarks.github_deliveries import SECRET, SOURCES, GitHubDeliveries
from sourcebus.connectors.signing import check_hmac
from sourcebus.errors import Unverified
from sourcebus.model import Delivery

celery = Celery("receiver", broker=os.environ["SOURCEBUS_REDIS_URL"].replace("unix://", "redis+socket://"))
celery.conf.update(task_ignore_result=True)
api = FastAPI()
connectors = {source_id: GitHubDeliveries.create({}, SECRET) for source_id in SOURCES}


@celery.task(name="receiver.handle")
def handle(*_what: object) -> None:
    """What a worker would do; nobody works here."""


def _send(*what: object) -> None:
    cast("Any", handle).delay(*what)


async def with_payload(source_id: str, request: Request) -> dict[str, bool]:
    body = await request.body()
    try:
        check_hmac(body, request.headers.get("x-hub-signature-256"), [SECRET], prefix="sha256=")
    except Unverified as error:
        raise HTTPException(401, str(error)) from None
    _send(source_id, request.headers.get("x-github-event"), json.loads(body))
    return {"ok": True}


async def with_names(source_id: str, request: Request) -> dict[str, bool]:
    body = await request.body()
    delivery = Delivery("POST", dict(request.headers), body, time.time_ns() // 1_000_000)
    try:
        heard = connectors[source_id].parse_webhook(delivery, ())
    except Unverified as error:
        raise HTTPException(401, str(error)) from None
    _send(source_id, [(change.object_ref, change.change_kind) for change in heard.changes])
    return {"ok": True}


if __name__ == "__main__":
    endpoint = {"payload": with_payload, "names": with_names}[sys.argv[2]]
    api.post("/hooks/{source_id}", status_code=202)(endpoint)
    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
