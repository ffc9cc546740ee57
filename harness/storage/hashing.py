"""What makes two truths the same: their content, and how they are read, not where they lie.

A store knows its fingerprint. Of any other file all bytes are hashed, on several threads; which
digest a file had is remembered with its size, times and inode, since reading gigabytes again would
take longer than the scores of a small one.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from harness.kernels.threads import available_threads
from harness.storage import paths

_PIECE = 1 << 26
DIGEST_BYTES = 16
"""Length of every BLAKE2b digest of content."""

RACY_SECONDS = 2.0
"""A file that changed less than so long ago may change again within the clock's resolution."""


def text_digest(text: str, digits: int = 12) -> str:
    """Return the first hexadecimal digits of a text's SHA-256: short ids of declarations."""
    return sha256(text.encode()).hexdigest()[:digits]


def remembered_digest(path: Path, threads: int, folder: str) -> str:
    """Return the digest of a file or a folder's files, hashed only if it may have changed."""
    marks: list[list[Any]] = [
        [name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        for name, found in ((name, file.stat()) for name, file in _files(path))
    ]
    name = blake2b(str(path.resolve()).encode(), digest_size=DIGEST_BYTES).hexdigest()
    note = paths.join(folder, "files", f"{name}.json")
    try:
        noted = json.loads(paths.read_text(note))
    except (OSError, ValueError):
        noted = {}
    if noted.get("marks") == marks:
        return str(noted["digest"])
    found = digest(path, threads)
    last = max((mark[2:4] for mark in marks), default=[0, 0])
    if time.time() - max(last) / 1e9 > RACY_SECONDS:
        with suppress(OSError):  # it is hashed again the next time; who keeps the parts says why
            paths.write_atomic(note, json.dumps({"marks": marks, "digest": found}))
    return found


def content_digest(path: str) -> str:
    """Return the digest of a file, the same on this machine and on an object store.

    One on an object store is read whole each time.
    """
    if not paths.is_remote(path):
        local = Path(path.removeprefix("file://"))
        return remembered_digest(local, available_threads(), str(paths.cache_folder()))
    content, whole = paths.read_bytes(path), blake2b(digest_size=DIGEST_BYTES)
    for start in range(0, max(1, len(content)), _PIECE):
        part = blake2b(content[start : start + _PIECE], digest_size=DIGEST_BYTES).digest()
        whole.update(f"\0{start}\0".encode() + part)
    return whole.hexdigest()


def digest(path: Path, threads: int = 1) -> str:
    """Hash a file, or the names and contents of a folder's files."""
    pieces = [
        (name, file, start)
        for name, file in _files(path)
        for start in range(0, max(1, file.stat().st_size), _PIECE)
    ]
    whole = blake2b(digest_size=DIGEST_BYTES)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for (name, _, start), part in zip(pieces, pool.map(_piece_digest, pieces), strict=True):
            whole.update(f"{name}\0{start}\0".encode() + part)
    return whole.hexdigest()


def _files(path: Path) -> list[tuple[str, Path]]:
    """List the files of a folder, sorted, with their names in it; a file alone has none."""
    if not path.is_dir():
        return [("", path)]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(str(file.relative_to(path)), file) for file in files]


def _piece_digest(piece: tuple[str, Path, int]) -> bytes:
    _, file, start = piece
    found = blake2b(digest_size=DIGEST_BYTES)
    with file.open("rb") as source:
        source.seek(start)
        left = _PIECE
        while left and (block := source.read(min(left, 1 << 20))):
            found.update(block)
            left -= len(block)
    return found.digest()


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; NaN and infinities are a ``ValueError``."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
