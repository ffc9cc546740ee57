"""Read stretches of the long arrays that sparse matrices consist of, gzip undone by this thread.

HDF5 inflates under one lock for the whole process, so that a second thread gains nothing. Chunks
that are gzip and nothing else are therefore fetched as they are, and inflated outside the lock,
by ISA-L where it is installed: it takes half of zlib's time for the same bytes.
"""

from __future__ import annotations

import importlib
import zlib
from typing import Any, TypeAlias

import h5py
import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def read_entries(array: Any, start: int, stop: int) -> Array:
    """Return ``array[start:stop]`` of a one-dimensional HDF5 or Zarr array."""
    if isinstance(array, h5py.Dataset) and stop > start and _is_plain_gzip(array):
        return _inflate(array, start, stop)
    return np.asarray(array[start:stop])


def _is_plain_gzip(array: h5py.Dataset) -> bool:
    others = array.shuffle or array.fletcher32 or array.scaleoffset
    return array.chunks is not None and array.compression == "gzip" and not others


def _inflater() -> Any:
    try:
        return importlib.import_module("isal.isal_zlib")
    except ImportError:  # there are no wheels of it for rare processors
        return zlib


_zlib = _inflater()


def _inflate(array: h5py.Dataset, start: int, stop: int) -> Array:
    (length,) = array.chunks
    out = np.empty(stop - start, array.dtype)
    for at in range(start // length * length, stop, length):
        # a set bit says that the chunk was stored without the filter
        skipped, raw = array.id.read_direct_chunk((at,))
        try:
            content = raw if skipped else _zlib.decompress(raw, bufsize=length * out.itemsize)
        except _zlib.error as error:
            raise ValueError(f"gzip: {error}") from error
        chunk = np.frombuffer(content, array.dtype)
        if len(chunk) != length:
            raise ValueError(f"a chunk holds {len(chunk)} values instead of {length}")
        low, high = max(at, start), min(at + length, stop)
        out[low - start : high - start] = chunk[low - at : high - at]
    return out
