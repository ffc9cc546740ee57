"""What lies on an object store and many trials read, copied once to each machine that runs them.

A store is read again by every trial: over a network that is most of a small trial's time, and what
an object store charges for. The copy is made by whoever comes first, while the others wait; it is
of exactly what lies there, so a store that is written anew is another copy. Copies lie in the
cache, whole or not at all, and may be removed at any time that nobody runs.
"""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from harness.storage import paths
from harness.storage.lock import exclusive_lock
from harness.storage.object_store import client

AT_ONCE = 4
"""Files fetched at once."""

ROOM = 2
"""A store is copied where the disk has room for so many of it."""

log = logging.getLogger("harness.trial")


def store_here(path: str) -> str:
    """Return a store's path on this machine: that of a copy where `path` is a URL.

    That is the URL itself where the disk has no room for a copy.
    """
    if not paths.is_remote(path):
        return path
    described = paths.read_bytes(paths.join(path, "zarr.json"))
    name = blake2b(path.encode() + b"\0" + described, digest_size=16).hexdigest()
    return folder_here(path, f"{name}.zarr", last="zarr.json")


def folder_here(path: str, name: str, last: str) -> str:
    """Return the path here of a published folder that never changes: a copy if `path` is a URL.

    That is the URL itself where the disk has no room for a copy.

    Parameters
    ----------
    name
        Identifies the content, wherever it lies.
    last
        The file that is written last.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    """
    if not paths.is_remote(path):
        return path
    copy = paths.cache_folder() / "copies" / name
    with exclusive_lock(copy.with_name(f".{copy.name}.lock")):
        if not copy.exists():
            if not paths.is_published(path, last):
                raise FileNotFoundError(path)
            size, free = size_of(path), shutil.disk_usage(copy.parent).free
            if size * ROOM > free:
                log.warning(
                    "%s: has %.1f GB, and %s has room for %.1f: it is read over the network. Point "
                    "HARNESS_CACHE at a larger disk to have it copied.",
                    path,
                    size / 1e9,
                    copy.parent,
                    free / 1e9,
                )
                return path
            log.info("%s: is copied to %s", path, copy)
            scratch = paths.scratch_name(str(copy))
            try:
                download(path, scratch)
                paths.publish(scratch, str(copy), last=last)
            finally:
                paths.remove(scratch)
    return str(copy)


def size_of(path: str) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 where there is neither."""
    if paths.is_remote(path):
        filesystem, key = client(path)
        with paths.reaching(path), suppress(FileNotFoundError):
            return sum(int(found["size"]) for found in filesystem.find(key, detail=True).values())
        return 0
    local = Path(path.removeprefix("file://"))
    return sum(file.stat().st_size for file in (local, *local.rglob("*")) if file.is_file())


def download(folder: str, local: str) -> None:
    """Copy a folder of an object store to a local one, which is made; several files at once."""
    filesystem, key = client(folder)

    def fetch(file: str) -> None:
        target = Path(local, file.removeprefix(key).lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(file, str(target))

    with paths.reaching(folder), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fetch, filesystem.find(key)))


def forget_copy(name: str) -> None:
    """Remove a copy that is not what it should be."""
    paths.remove(str(paths.cache_folder() / "copies" / name))
