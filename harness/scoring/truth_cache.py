"""The truth's part of scores on disk: computed once, used by any process afterwards.

A folder holds a folder for each part of each truth: an ``.npy`` file for each array, and a manifest
that is written last. The name has the part's version, so what an older version wrote is never read.
Arrays have checksums: a damaged part is computed again. Processes may share a folder; those that
miss a part at the same time each compute it, and keep the same.

Arrays are mapped, not read, so that processes of one machine share the memory. A part on an object
store is first copied to the machine, for all that run there.
"""

from __future__ import annotations

import json
import logging
import tempfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.storage import folder_here, forget_copy, paths

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = 2
"""Version of the files and of what identifies a truth; raise it when either changes."""

MANIFEST = "manifest.json"

Values = dict[str, Any]
"""A part: arrays, data frames, numbers, texts, None, and sequences of numbers or texts, by name."""

log = logging.getLogger("harness.reference")


class DamagedError(Exception):
    """A kept part is not what was written."""


@dataclass(frozen=True, slots=True)
class TruthCache:
    """A folder of parts.

    Parameters
    ----------
    folder
        A path or URL; made when the first part is kept.
    """

    folder: str

    def part(self, key: str, name: str, version: int, make: Callable[[], Values]) -> Values:
        """Return a part that was kept, or compute and keep it.

        Parameters
        ----------
        key
            Identifies the truth by its content and by how it is read.
        name
            The part of it.
        version
            Raised whenever any value of the part could change.
        make
            Computes the part if it is not there or damaged. Arrays come back equal to the last bit.
        """
        path = self.path(key, name, version)
        copy = f"{key}-{name}-{LAYOUT}.{version}"
        try:
            return read_values(folder_here(path, copy, last=MANIFEST))
        except OSError:  # there is none, or none that can be read: writing it tells which
            pass
        except DamagedError as error:
            log.warning("%s: this reference is damaged (%s); it is made again.", path, error)
            forget_copy(copy)
            paths.remove(path)
        values = make()
        try:
            write_values(values, path)
        except OSError as error:
            log.warning("%s: the reference cannot be kept (%s); scoring goes on.", path, error)
        return values

    def path(self, key: str, name: str, version: int) -> str:
        """Return the folder of a part."""
        return paths.join(self.folder, key, f"{name}-{LAYOUT}.{version}")


def write_values(values: Values, path: str) -> None:
    """Write a part; nothing happens if another process did so at the same time."""
    if not paths.is_remote(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    beside = None if paths.is_remote(path) else Path(path).parent
    with tempfile.TemporaryDirectory(dir=beside, prefix=".", suffix=".partial") as scratch:
        folder = Path(scratch, "part")
        folder.mkdir()
        entries = []
        for number, (name, value) in enumerate(values.items()):
            if isinstance(value, np.ndarray):
                array, file = np.ascontiguousarray(value), f"{number}.npy"
                np.save(folder / file, array, allow_pickle=False)
                checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data)
                entries.append({"name": name, "array": file, "crc32": checksum})
            elif isinstance(value, pd.DataFrame):
                file = f"{number}.parquet"
                value.to_parquet(folder / file)
                checksum = zlib.crc32((folder / file).read_bytes())
                entries.append({"name": name, "frame": file, "crc32": checksum})
            else:
                entries.append({"name": name, "value": value})
        text = json.dumps(entries)
        manifest = json.dumps({"entries": entries, "crc32": zlib.crc32(text.encode())})
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
        try:
            paths.publish(str(folder), path, last=MANIFEST, durable=False)
        except OSError:
            if not paths.is_published(path, MANIFEST):
                raise


def read_values(path: str) -> Values:
    """Read a part; writing to its arrays never reaches the files.

    Raises
    ------
    FileNotFoundError
        There is no such part.
    DamagedError
        A file is missing or was cut short, or any byte of a value has changed.
    """
    text = paths.read_bytes(paths.join(path, MANIFEST))
    try:
        manifest = json.loads(text)
        entries = manifest["entries"]
        if zlib.crc32(json.dumps(entries).encode()) != manifest["crc32"]:
            raise DamagedError("its manifest has changed")
        return {entry["name"]: _value(path, entry) for entry in entries}
    except (ValueError, KeyError, TypeError, EOFError, FileNotFoundError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error


def _value(folder: str, entry: dict[str, Any]) -> Any:
    if "value" in entry:
        value = entry["value"]
        return tuple(value) if isinstance(value, list) else value
    file = paths.join(folder, entry.get("array") or entry["frame"])
    if "array" in entry and not paths.is_remote(folder):
        array = np.load(file.removeprefix("file://"), mmap_mode="c", allow_pickle=False)
    else:
        content = paths.read_bytes(file)
        array = np.frombuffer(content, np.uint8)
        if "array" in entry:
            array = np.load(BytesIO(content), allow_pickle=False)
    if zlib.crc32(np.asarray(array).reshape(-1).view(np.uint8).data) != entry["crc32"]:
        raise DamagedError(f"the values of {entry['name']!r} have changed")
    return pd.read_parquet(BytesIO(content)) if "frame" in entry else np.asarray(array)
