"""Local paths and object-store URLs behind one interface, and where declarations are looked for.

A path with ``://`` in it goes through fsspec; everything else through pathlib. Only what a run
needs is here: whole files read and written at once, names listed, trees removed, a finished
folder published. Arrays do not pass through this module, Zarr opens its own stores.

An object store that cannot be reached, after its client has tried again, is a `StorageError`; a
file that is not there is a ``FileNotFoundError`` as on disk.

What it gave up: appending, and files larger than memory. Nothing in a run folder needs either,
and on object stores neither can be done safely.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import platformdirs

from harness.errors import DataError, OptionError, StorageError, listed
from harness.storage.object_store import CONNECTIONS, client, translating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_Item = TypeVar("_Item")

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}

_UPLOADS = 4
"""Files uploaded at once: each is held in memory, and a store's can have 64 MB."""


# --- files and folders --------------------------------------------------------------------------


def is_remote(path: str) -> bool:
    """Whether a path is an object-store URL (``s3://…``); ``file://`` is this machine."""
    return "://" in path and not path.startswith("file://")


def refuse_url(path: str) -> None:
    """Raise where a foreign file is given by URL: only stores are read where they lie."""
    if is_remote(path):
        raise DataError(
            f"{path}: files of cells are read from this machine only, and this is a URL. Download "
            "it first; the store that `harness convert` makes of it may then have a URL."
        )


def join(base: str, *parts: str) -> str:
    """Return `base` with `parts` below it, separated by single slashes, for URLs too."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def reaching(path: str) -> AbstractContextManager[None]:
    """Turn the failure of an object store within the block into a `StorageError` with the URL."""
    return translating(path) if is_remote(path) else nullcontext()


def absolute(path: str) -> str:
    """Return a path that means the same in a process with another working folder; URLs as given."""
    return path if "://" in path else str(Path(path).absolute())


def exists(path: str) -> bool:
    """Whether there is a file or a folder at `path`."""
    if is_remote(path):
        filesystem, key = client(path)
        with reaching(path):
            return bool(filesystem.exists(key))
    return _local(path).exists()


def read_bytes(path: str) -> bytes:
    """Return the content of a file; a missing one raises ``FileNotFoundError``."""
    if is_remote(path):
        filesystem, key = client(path)
        with reaching(path):
            return bytes(filesystem.cat_file(key))
    return _local(path).read_bytes()


def read_text(path: str) -> str:
    """Return the content of a UTF-8 file."""
    return read_bytes(path).decode("utf-8")


def read_each(files: Sequence[str]) -> list[bytes | None]:
    """Return the contents of many files, None for each that is not there.

    An object store is asked for all of them at once, by one request each.
    """

    def read(file: str) -> bytes | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return read_bytes(file)
        return None

    return _each(read, files)


def write_atomic(path: str, data: bytes | str, *, durable: bool = True) -> None:
    """Write a whole file so that a reader sees the old content or the new, never a part.

    Local: a scratch name in the same folder, flushed to disk, renamed, and the folder flushed
    too, for otherwise a power cut can lose the name of a file whose content is safe. What nobody
    misses after a power cut need not be `durable`. Object stores: one put, which is atomic there.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    if is_remote(path):
        filesystem, key = client(path)
        with _writing(path):
            filesystem.pipe_file(key, content)
        return
    final = _local(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(scratch_name(str(final)))
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        scratch.replace(final)
    finally:
        scratch.unlink(missing_ok=True)
    if durable:
        flush(final.parent)


def check_writable(folder: str) -> None:
    """Raise where a folder, which may not exist yet, could not be written to: before the work."""
    if is_remote(folder):
        return
    place = _local(folder).absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    what = "is no folder" if not place.is_dir() else "may not be written to"
    if what == "is no folder" or not os.access(place, os.W_OK | os.X_OK):
        raise DataError(
            f"{folder}: nothing can be written there, since {place} {what}. Name a folder that can "
            "be written to."
        )


def scratch_name(path: str) -> str:
    """Return a hidden name beside `path` that nobody else uses; a leftover is safe to delete."""
    folder, _, name = path.rstrip("/").rpartition("/")
    scratch = f".{name}.{uuid.uuid4().hex[:8]}.partial"
    return f"{folder}/{scratch}" if folder or path.startswith("/") else scratch


def list_names(folder: str) -> list[str]:
    """Return the names in a folder, sorted, without scratch names; none for no folder."""
    names: Iterable[str] = ()
    if is_remote(folder):
        filesystem, key = client(folder)
        with reaching(folder), suppress(FileNotFoundError):
            found = [str(entry).rstrip("/") for entry in filesystem.ls(key, detail=False)]
            # a folder made in a web console is an object of its own, and lists itself
            names = {entry.rpartition("/")[2] for entry in found if entry != key}
    else:
        local = _local(folder)
        names = {entry.name for entry in local.iterdir()} if local.is_dir() else ()
    return sorted(name for name in names if not name.endswith(".partial"))


def find(folder: str, name: str) -> list[str]:
    """Return the names of the folders in `folder` that hold a file of that name, sorted."""
    inside = list_names(folder)
    held = _each(exists, [join(folder, each, name) for each in inside])
    return [each for each, found in zip(inside, held, strict=True) if found]


def _each(function: Callable[[str], _Item], files: Sequence[str]) -> list[_Item]:
    """Call a function with each of many files: several at once where there is a wait to hide."""
    if not files or not is_remote(files[0]):
        return [function(file) for file in files]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(function, files))


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is neither."""
    if not is_remote(path):
        local = _local(path)
        if local.is_dir() and not local.is_symlink():
            shutil.rmtree(local)
        else:
            local.unlink(missing_ok=True)
        return
    filesystem, key = client(path)
    with reaching(path), suppress(FileNotFoundError):
        found = filesystem.find(key)
        if found == [key]:
            filesystem.rm_file(key)
        elif found:
            filesystem.rm(key, recursive=True)
            # s3fs deletes a thousand at a time and does not look at what was refused
            if left := filesystem.find(key):
                raise StorageError(
                    f"{path}: {len(left)} of {len(found)} objects were not deleted, the first "
                    f"{left[0]}. Check that the credentials allow s3:DeleteObject."
                )


def is_published(path: str, last: str = "manifest.json") -> bool:
    """Whether `publish` has finished there.

    A local folder appears whole. One on an object store may be what an upload left behind that was
    cut off: it counts once the file is there that goes last.
    """
    return exists(join(path, last) if is_remote(path) else path)


def publish(scratch: str, final: str, *, last: str = "manifest.json", durable: bool = True) -> None:
    """Give a finished local folder its final name; afterwards `scratch` no longer exists.

    Parameters
    ----------
    scratch
        A local folder, complete.
    final
        Must not exist. A local name is given by one rename. An object store has no rename, so the
        files are uploaded, those of the top folder after all others and `last` after those: its
        presence says that the rest is there. What an upload left that was cut off is removed.
    last
        The name of the manifest within the folder.
    durable
        Whether a power cut may not lose the name.
    """
    if is_published(final, last):
        raise FileExistsError(
            f"{final} exists already: what is published is never overwritten. Remove it first."
        )
    source = _local(scratch)
    if is_remote(final):
        remove(final)
        _upload(source, final, last)
        shutil.rmtree(source)
        return
    target = _local(final)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    if durable:
        flush(target.parent)


def parse_size(text: str | int) -> int:
    """Return the number of bytes that ``"512MiB"``, ``"1.5 GB"`` or ``"4096"`` means."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    unit = next((u for u in _UNITS if match and u.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise OptionError(
            f"{text!r} is not a size. Expected a number and a unit, such as '1GiB': "
            f"one of {listed(_UNITS, 10)}."
        )
    return int(float(match[1]) * _UNITS[unit])


def _local(path: str) -> Path:
    return Path(path.removeprefix("file://"))


def flush(path: Path | str) -> None:
    """Flush a local file, or the names in a local folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _upload(source: Path, final: str, last: str) -> None:
    """Upload a folder in three steps: what is in its folders, its own files, the last one."""

    def step(file: Path) -> int:
        top = file.parent == source
        return top + (top and file.name == last)

    def send(file: Path) -> None:
        filesystem, key = client(final)
        with _writing(final):
            filesystem.put_file(str(file), join(key, file.relative_to(source).as_posix()))

    files = sorted(entry for entry in source.rglob("*") if entry.is_file())
    for number in range(3):
        # not fsspec's own `put` of many: after a failure it leaves requests under way
        with ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(send, [file for file in files if step(file) == number]))


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """Let "not found" within the block, where it can only mean the bucket, say so."""
    try:
        with reaching(path):
            yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{path}: the object store has no such bucket ({error}). Create it, or correct the URL."
        ) from error


# --- where things are looked for ----------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder for downloads: ``$HARNESS_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("HARNESS_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("harness", appauthor=False)


def data_folders() -> tuple[Path, ...]:
    """Return the folders searched for data files: ``$HARNESS_DATA``, then the cache."""
    given = os.environ.get("HARNESS_DATA")
    cached = cache_folder() / "datasets"
    return (Path(given), cached) if given else (cached,)


def find_data_file(file: str) -> Path | None:
    """Return the first file of that name in `data_folders`, or nothing."""
    candidates = (folder / file for folder in data_folders())
    return next((path for path in candidates if path.is_file()), None)
