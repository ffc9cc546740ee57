from __future__ import annotations

import fcntl
import hashlib
import http.server
import threading

import pytest

from harness import errors
from harness.data.cards import Card
from harness.data.download import Progress, fetch

BLOCK = 1 << 16
CONTENT = bytes(range(256)) * 256 * 48 + b"end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Archive(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at every address, in the way that its server is told to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.answers:
            self._send(server.answers.pop(0), b"", 0)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[start:]
        sent = body[: server.cuts.pop(0)] if server.cuts else body
        self._send(206 if start else 200, sent, len(body), start)

    def _send(self, status, sent, length, start=0):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = len(sent) < length

    def log_message(self, *args):
        """Keep the test's output quiet."""


class QuietServer(http.server.ThreadingHTTPServer):
    """A server that does not print when a client hangs up."""

    def handle_error(self, request, client_address):
        """A client may hang up: some tests are about that."""


@pytest.fixture
def archive():
    """A server on this machine; `cuts` are the lengths after which it drops a connection."""
    server = QuietServer(("127.0.0.1", 0), Archive)
    server.ranges, server.cuts, server.answers, server.asked = True, [], [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache and no HARNESS_DATA."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    return tmp_path / "datasets"


@pytest.fixture
def card_of(archive):
    """A card whose file the archive has."""

    def card_of(**source):
        url = f"http://127.0.0.1:{archive.server_address[1]}/screen.h5ad"
        known = {"file": "screen.h5ad", "url": url, "license": "MIT", "cite": "x", "sha256": SHA256}
        return Card.model_validate(
            {
                "name": "screen",
                "version": 1,
                "title": "A screen",
                "organism": "human",
                "source": known | source,
                "columns": {"perturbation": "gene"},
                "context_label": "K562",
                "control_label": "control",
                "expression": {"scale": "counts"},
            }
        )

    return card_of


def get(card, report=lambda progress: None):
    return fetch(card, report, waits=(0.0, 0.0))


def test_a_file_is_downloaded_into_the_cache(archive, cache, card_of):
    path = get(card_of(size=len(CONTENT)))
    assert path == cache / "screen.h5ad"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in cache.iterdir()] == ["screen.h5ad"]


def test_a_file_that_is_there_is_not_downloaded_again(archive, cache, card_of):
    get(card_of())
    get(card_of())
    assert len(archive.asked) == 1


def test_progress_ends_at_the_whole_file_twice(archive, cache, card_of):
    seen = []
    get(card_of(), seen.append)
    assert seen[-1] == Progress("check", len(CONTENT), len(CONTENT))
    downloaded = [progress for progress in seen if progress.stage == "download"]
    assert downloaded[-1] == Progress("download", len(CONTENT), len(CONTENT))
    assert [p.done for p in downloaded] == sorted(p.done for p in downloaded)


def test_a_lost_connection_is_resumed_where_it_stopped(archive, cache, card_of):
    archive.cuts = [16 * BLOCK, 8 * BLOCK]
    assert get(card_of()).read_bytes() == CONTENT
    assert archive.asked == [None, "bytes=1048576-", "bytes=1572864-"]


def test_tries_that_get_further_are_not_counted(archive, cache, card_of):
    archive.cuts = [BLOCK] * 8
    assert get(card_of()).read_bytes() == CONTENT


def test_giving_up_keeps_what_came_and_says_how_to_continue(archive, cache, card_of):
    archive.cuts = [16 * BLOCK, 0, 0, 0]
    with pytest.raises(errors.StorageError, match=r"after 1,048,576 bytes.*harness fetch screen"):
        get(card_of())
    assert (cache / "screen.h5ad.part").stat().st_size == 16 * BLOCK
    assert get(card_of()).read_bytes() == CONTENT
    assert archive.asked[-1] == "bytes=1048576-"


def test_a_server_without_ranges_starts_again(archive, cache, card_of):
    archive.ranges = False
    archive.cuts = [16 * BLOCK]
    assert get(card_of()).read_bytes() == CONTENT
    assert archive.asked == [None, "bytes=1048576-"]


@pytest.mark.parametrize("size", [None, len(CONTENT)], ids=["size_unknown", "size_known"])
def test_a_part_that_is_complete_is_only_checked(archive, cache, card_of, size):
    cache.mkdir()
    (cache / "screen.h5ad.part").write_bytes(CONTENT)
    assert get(card_of(size=size)).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(archive, cache, card_of):
    cache.mkdir()
    (cache / "screen.h5ad.part").write_bytes(CONTENT + b"more")
    assert get(card_of()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(
            {"sha256": "0" * 64}, f"the sha256 .* found {SHA256}, expected 0000", id="sha"
        ),
        pytest.param({"sha256": None, "md5": "0" * 32}, "the md5 .* expected 0000", id="md5"),
        pytest.param({"size": 5}, r"the size .* found 3,145,731 bytes, expected 5\.", id="size"),
    ],
)
def test_what_differs_from_the_card_is_removed(archive, cache, card_of, source, message):
    with pytest.raises(errors.DataError, match=message):
        get(card_of(**source))
    assert list(cache.iterdir()) == []


def test_a_file_without_a_published_checksum_is_taken(archive, cache, card_of):
    assert get(card_of(sha256=None)).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(archive, cache, card_of):
    archive.answers = [503, 429]
    assert get(card_of()).read_bytes() == CONTENT


def test_a_missing_file_is_an_error_at_once(archive, cache, card_of):
    archive.answers = [404]
    with pytest.raises(errors.DataError, match=r"answered 404 Not Found.*See https://page\.org"):
        get(card_of(page="https://page.org"))
    assert len(archive.asked) == 1


def test_a_server_that_is_not_there_is_an_error(cache, card_of):
    card = card_of(url="http://127.0.0.1:1/screen.h5ad")
    with pytest.raises(errors.StorageError, match="stopped after 0 bytes"):
        get(card)


def test_a_card_without_an_address_names_the_page(cache, card_of):
    card = card_of(url=None, page="https://page.org")
    with pytest.raises(errors.CardError, match=r"get it from https://page\.org and put it"):
        get(card)


def test_two_processes_do_not_write_one_part(archive, cache, card_of):
    cache.mkdir()
    with (cache / "screen.h5ad.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(errors.DataError, match="written by another process"):
            get(card_of())
