"""What a truth contributes to scores, kept on disk: computed once, used by any process afterwards.

A folder holds one file for each part of each truth. A part's name carries its version, and a file
is found by name alone, so what an older version wrote is never read. Files appear whole or not at
all, and have checksums: one that is damaged is made again. Any number of processes may share a
folder; those that miss a part at the same time each compute it, and write the same.

A file is mapped, not read: what several processes use is in memory once. One on an object store is
first copied to the machine, for all that run there.
"""

from __future__ import annotations

import json
import logging
import mmap
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.storage import forget_copy, part_here, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUT = 1
"""Version of the file format and of what identifies a truth; raise it when either changes."""

MAGIC = b"harness-reference"
_ALIGNED = 64

Values = dict[str, Any]
"""A part: arrays, data frames, numbers, texts, None, and sequences of numbers or texts, by name."""

log = logging.getLogger("harness.reference")


class DamagedError(Exception):
    """A file of a reference does not hold what was written to it."""


@dataclass(frozen=True, slots=True)
class ReferenceStore:
    """A folder of parts.

    Parameters
    ----------
    folder
        A path or URL; made when the first part is kept.
    """

    folder: str

    def part(self, key: str, name: str, version: int, make: Callable[[], Values]) -> Values:
        """Return a part that was kept, or make it and keep it.

        Parameters
        ----------
        key
            Identifies the truth by its content and by how it is read.
        name
            What of it.
        version
            Raised whenever any value of the part could change.
        make
            Called where no such part is kept, or where its file is damaged. Arrays that it returns
            come back equal to the last bit.
        """
        path = self.path(key, name, version)
        copy = f"{key}-{name}-{LAYOUT}.{version}.reference"
        try:
            return read_values(part_here(path, copy))
        except OSError:  # there is none, or none that can be read: writing it tells which
            pass
        except DamagedError as error:
            forget_copy(copy)
            log.warning("%s: this reference is damaged (%s); it is made again.", path, error)
        values = make()
        try:
            paths.write_atomic(path, packed(values))
        except OSError as error:
            log.warning("%s: the reference cannot be kept (%s); scoring goes on.", path, error)
        return values

    def path(self, key: str, name: str, version: int) -> str:
        """Return the file of a part."""
        return paths.join(self.folder, key, f"{name}-{LAYOUT}.{version}.reference")


def packed(values: Values) -> bytes:
    """Return the content of a file: magic, length of the header, header, arrays.

    Each array begins at a multiple of 64 bytes, so that it can be used where the file is mapped.
    """
    entries, arrays, at = [], [], 0
    for name, value in values.items():
        kind, described, array = _encoded(value)
        if array is not None:
            described = {
                "dtype": array.dtype.str,
                "shape": array.shape,
                "offset": at,
                "crc": zlib.crc32(array.reshape(-1).view(np.uint8).data),
            }
            arrays.append((at, array))
            at += -(-array.nbytes // _ALIGNED) * _ALIGNED
        entries.append([name, kind, described])
    header = json.dumps({"size": at, "entries": entries}).encode()
    lengths = len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(4, "little")
    start = _data_start(len(header))
    content = bytearray(start + at)
    content[: len(MAGIC) + 12 + len(header)] = MAGIC + lengths + header
    for offset, array in arrays:
        where = slice(start + offset, start + offset + array.nbytes)
        content[where] = array.reshape(-1).view(np.uint8).data
    return bytes(content)


def read_values(path: str) -> Values:
    """Read what `packed` made; arrays are writable, but writing never reaches the file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DamagedError
        It was cut short, or any byte of it has changed.
    """
    content = _content(path)
    begin = len(MAGIC) + 12
    if len(content) < begin or bytes(content[: len(MAGIC)]) != MAGIC:
        raise DamagedError("it does not begin like one")
    length = int.from_bytes(bytes(content[len(MAGIC) : begin - 4]), "little")
    raw = bytes(content[begin : begin + length]) if length <= len(content) else b""
    if zlib.crc32(raw) != int.from_bytes(bytes(content[begin - 4 : begin]), "little"):
        raise DamagedError("its header has changed")
    header, start = json.loads(raw), _data_start(length)
    if len(content) != start + header["size"]:
        raise DamagedError(f"{len(content)} bytes instead of {start + header['size']}")
    return dict(_decoded(header["entries"], content[start:]))


def _data_start(length: int) -> int:
    return -(-(len(MAGIC) + 12 + length) // _ALIGNED) * _ALIGNED


def _content(path: str) -> np.ndarray:
    if paths.is_remote(path):
        return np.frombuffer(bytearray(paths.read_bytes(path)), np.uint8)
    with Path(path.removeprefix("file://")).open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:  # an empty file cannot be mapped
            return np.zeros(0, np.uint8)
    return np.frombuffer(mapped, np.uint8)


def _encoded(value: Any) -> tuple[str, Any, np.ndarray | None]:
    if isinstance(value, np.ndarray):
        return "array", None, np.ascontiguousarray(value)
    if isinstance(value, pd.DataFrame):
        buffer = BytesIO()
        value.to_parquet(buffer)
        return "frame", None, np.frombuffer(buffer.getvalue(), np.uint8)
    return "json", value, None


def _decoded(entries: list[Any], content: np.ndarray) -> Iterator[tuple[str, Any]]:
    for name, kind, described in entries:
        if kind == "json":
            yield name, tuple(described) if isinstance(described, list) else described
            continue
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        part = content[described["offset"] : described["offset"] + size]
        if zlib.crc32(part.data) != described["crc"]:
            raise DamagedError(f"the values of {name!r} have changed")
        if kind == "frame":
            yield name, pd.read_parquet(BytesIO(part.tobytes()))
        else:
            yield name, part.view(dtype).reshape(shape)
