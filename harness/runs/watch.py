"""The report, live: served on this machine's loopback while a run goes on."""

from __future__ import annotations

import threading
import time
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from harness.analysis import Results, report_html
from harness.errors import HarnessError
from harness.models import registered

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_SECONDS = 5.0
"""A page is made anew at most this often, and at most a fifth of the time."""


class LivePage:
    """The report of runs as it stands: made when it is asked for, and kept for a while."""

    def __init__(self, runs: Sequence[str], **options: Any) -> None:
        self.runs, self.options = tuple(runs), options
        self._lock = threading.Lock()
        self._page, self._until = "", 0.0

    def html(self) -> str:
        """Return the page; one that says why, where there is none yet."""
        with self._lock:
            if time.monotonic() >= self._until:
                start = time.monotonic()
                try:
                    self._page = report_html(
                        Results(self.runs), registered(), live=True, **self.options
                    )
                except HarnessError as error:
                    self._page = (
                        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
                        '<meta http-equiv="refresh" content="5"><title>Waiting</title></head>'
                        f"<body><p>Nothing to show yet: {escape(str(error))}</p></body></html>"
                    )
                took = time.monotonic() - start
                self._until = time.monotonic() + max(LEAST_SECONDS, 4 * took)
            return self._page


def serve(page: LivePage, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page on 127.0.0.1; `serve_forever` runs it.

    Parameters
    ----------
    port
        0 takes a free one.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in {"/", "/index.html"}:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = page.html().encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of each request."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
