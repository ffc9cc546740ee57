"""An S3-compatible server on this machine, behind a proxy that can cut connections."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Literal

from harness.storage.object_store import client

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

SECRET = "wJalrXUtnFEMI-for-tests-only"

SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class Server:
    """Moto in a process of its own: its log tells what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "requests.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def requests(self) -> list[str]:
        """All requests so far, as ``GET /bucket/key``."""
        found = re.findall(r'"(?:\x1b\[\d+m)*([A-Z]+ \S+)', self._log.read_text("utf-8"))
        return [str(request) for request in found]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Proxy:
    """Forwards connections; on demand, cuts the next ones after so many bytes."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._times = self._after = self._left = 0
        self._way: Literal["up", "down"] = "up"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, way: Literal["up", "down"], after: int, times: int = 10**9) -> Self:
        """Cut a connection once `after` bytes have gone one way, then the next, `times` times.

        Use as a context manager: afterwards nothing is cut.
        """
        with self._lock:
            self._way, self._after, self._left, self._times = way, after, after, times
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._times = 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        upstream = socket.create_connection(("127.0.0.1", self._upstream))
        with client, upstream as server, contextlib.suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 16)
                    passed = self._allowed("up" if source is client else "down", data)
                    (server if source is client else client).sendall(passed)
                    if not data or len(passed) < len(data):
                        return

    def _allowed(self, way: str, data: bytes) -> bytes:
        """Return as much of the data as may pass."""
        with self._lock:
            if not self._times or way != self._way:
                return data
            passed = data[: self._left]
            self._left -= len(passed)
            if len(passed) < len(data):
                self._times -= 1
                self._left = self._after
            return passed


class ObjectStore:
    """The server and the proxy in front of it, with a bucket of that name for tests."""

    bucket = "harness-tests"

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder)
        self.proxy = Proxy(self.server.port)

    @property
    def environment(self) -> dict[str, str]:
        """What anyone sets to use an S3-compatible store; one attempt beneath s3fs's own five."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def make_bucket(self) -> None:
        client("s3://")[0].mkdir(self.bucket)

    def close(self) -> None:
        self.proxy.close()
        self.server.close()
