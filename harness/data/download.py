"""Download a card's file into the cache: resumed where it stopped, checked before it gets its name.

The bytes go to ``NAME.part`` beside the final name, so that an interrupted download is continued,
by this process or a later one, with an HTTP range request; a server that ignores the range starts
again from the first byte. Size and checksum are compared before the rename: a file under its
final name is always whole. A file with a wrong checksum is removed, since continuing it could not
help.

What it gave up: parallel ranges. One connection is polite to an archive, and the disk or the
checksum is soon the limit.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import requests

from harness.data.cards import how_to_get
from harness.errors import CardError, DataError, StorageError
from harness.storage import cache_folder, exclusive_lock, find_data_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.data.cards import Card

_BLOCK = 1 << 16  # what a lost connection costs at most: a block is written whole or not at all
_WAITS = (1.0, 4.0, 15.0, 60.0)
_TIMEOUT = (10, 60)


class Progress(NamedTuple):
    """How far a download is; `total` is nothing where neither card nor server says."""

    stage: str
    done: int
    total: int | None


def fetch(
    card: Card,
    report: Callable[[Progress], None] = lambda progress: None,
    *,
    waits: tuple[float, ...] = _WAITS,
) -> Path:
    """Return the card's file, downloaded into the cache unless it is on this machine already.

    Parameters
    ----------
    card
        One with a `url`, or a `CardError` says on which page a person gets the file.
    report
        Called with a `Progress` after each block, in the stages ``download`` and ``check``.
    waits
        Seconds before each further try after a lost connection or a busy server.
    """
    found = find_data_file(card.source.file)
    if found is not None:
        return found
    if card.source.url is None:
        raise CardError(f"{card.name} cannot be fetched. {how_to_get(card)}")
    final = cache_folder() / "datasets" / card.source.file
    part = final.with_name(f"{final.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    tries, whole = 0, False
    while not whole:
        before = _size(part)
        try:
            _transfer(card, part, report)
            whole = True
        except (requests.ConnectionError, requests.Timeout, _InterruptedError) as error:
            # A large file over a poor line may stop many times: only tries in vain are counted.
            tries = 0 if _size(part) > before else tries
            if tries == len(waits):
                have = _size(part)
                raise StorageError(
                    f"{card.name}: the download from {card.source.url} stopped after {have:,} "
                    f"bytes: {error}.{' They are kept.' if have else ''} Continue with: harness "
                    f"fetch {card.name}"
                ) from error
            time.sleep(waits[tries])
            tries += 1
    _check(card, part, report)
    part.replace(final)
    return final


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


class _InterruptedError(Exception):
    """The transfer stopped, and may be tried again."""


def _transfer(card: Card, part: Path, report: Callable[[Progress], None]) -> None:
    """Download what is missing of `part`; return when the server has sent all of it."""
    assert card.source.url is not None
    have = _size(part)
    if have and have == card.source.size:
        return
    headers = {"Accept-Encoding": "identity"}  # else sizes and ranges would be of a compressed copy
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(card.source.url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            # The part is already as long as the file, or longer: its checksum says which.
            if _total(answer, 0) != have:
                part.unlink()
                raise _InterruptedError("the part was longer than the file, and was removed")
            return
        if answer.status_code in {429, 500, 502, 503, 504}:
            raise _InterruptedError(f"the server answered {answer.status_code} {answer.reason}")
        if answer.status_code not in {200, 206}:
            page = f" See {card.source.page}." if card.source.page else ""
            raise DataError(
                f"{card.name}: {card.source.url} answered {answer.status_code} {answer.reason}, "
                f"expected the file. The address may have changed.{page}"
            )
        resumed = answer.status_code == requests.codes.partial_content
        start = have if resumed else 0
        total = _total(answer, start) or card.source.size
        _save(answer, part, total, start, report)


def _total(answer: requests.Response, start: int) -> int | None:
    """Return the whole file's size as the server tells it."""
    _, slash, total = answer.headers.get("Content-Range", "").rpartition("/")
    if slash and total.isdigit():
        return int(total)
    length = answer.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _save(
    answer: requests.Response,
    part: Path,
    total: int | None,
    start: int,
    report: Callable[[Progress], None],
) -> None:
    def refuse() -> None:
        raise DataError(f"{part} is being written by another process. Wait until it is done.")

    done = start
    with exclusive_lock(part, refuse), part.open("ab") as file:
        file.truncate(start)
        try:
            for block in answer.iter_content(_BLOCK):
                file.write(block)
                done += len(block)
                report(Progress("download", done, total))
        except requests.exceptions.ChunkedEncodingError as error:
            raise _InterruptedError("the connection was lost") from error
        finally:
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise _InterruptedError(f"the connection ended {total - done:,} bytes early")


def _check(card: Card, part: Path, report: Callable[[Progress], None]) -> None:
    """Compare size and checksum with the card's; a file that differs is removed."""
    size, source = part.stat().st_size, card.source
    if source.size is not None and size != source.size:
        _refuse(card, part, "size", f"{size:,} bytes", f"{source.size:,}")
    kind, expected = ("sha256", source.sha256) if source.sha256 else ("md5", source.md5)
    if expected is None:
        return
    digest = hashlib.new(kind, usedforsecurity=False)
    done = 0
    with part.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            report(Progress("check", done, size))
    if digest.hexdigest() != expected:
        _refuse(card, part, kind, digest.hexdigest(), expected)


def _refuse(card: Card, part: Path, what: str, found: str, expected: str) -> None:
    part.unlink()
    raise DataError(
        f"{card.name}: the {what} of what {card.source.url} sent is wrong: found {found}, "
        f"expected {expected}. It was removed. Try again; if it stays wrong, the file behind the "
        "address has changed, and the card needs a new version."
    )
