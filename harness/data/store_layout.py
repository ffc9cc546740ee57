"""The files of a store before its first row: groups, labels, and the description of its matrix.

Zarr and AnnData take a tenth of a second to write some twenty small files, which are the same for
every prediction and every profile of one fold. So they are made in memory, remembered, and written
as they are the next time.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import zarr
from zarr.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd

    from harness.data.cells import Scale

Compression: TypeAlias = Literal["auto", "lz4", "zstd", "none"]

REMEMBERED = 8
"""How many stores' files are kept, each some kilobytes."""

LARGEST = 100_000
"""Labels of more cells than this are not remembered: hashing them takes as long as writing them."""

_KNOWN: dict[str, dict[str, bytes]] = {}


class Matrix(NamedTuple):
    """The matrix of a store: its shape, how it is cut, and how it is compressed."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    tile: tuple[int, int]
    shard: tuple[int, int] | None
    compression: Compression
    scale: Scale


def layout(matrix: Matrix, obs: pd.DataFrame | None, var: pd.DataFrame) -> dict[str, bytes]:
    """Return the content of each file of a store without rows, by its path within the store.

    Without `obs` there is nothing but the matrix and its genes.
    """
    if obs is not None and len(obs) > LARGEST:
        return _made(matrix, obs, var)
    key = hashlib.blake2b(pickle.dumps((matrix, obs, var))).hexdigest()
    files = _KNOWN.pop(key, None) or _made(matrix, obs, var)
    _KNOWN[key] = files  # now the last to be forgotten
    while len(_KNOWN) > REMEMBERED:
        del _KNOWN[next(iter(_KNOWN))]
    return files


def write_elements(group: zarr.Group, elements: Mapping[str, Any]) -> None:
    """Write tables and arrays as AnnData does."""
    from anndata import settings
    from anndata.io import write_elem

    # named, since AnnData warns of a coming default otherwise; a column needs no shards
    with settings.override(auto_shard_zarr_v3=False):
        for name, element in elements.items():
            write_elem(group, name, element)


def _made(matrix: Matrix, obs: pd.DataFrame | None, var: pd.DataFrame) -> dict[str, bytes]:
    from zarr.codecs import BloscCodec, ZstdCodec

    chosen = matrix.compression
    if chosen == "auto":
        chosen = "lz4" if matrix.scale == "counts" else "zstd"
    itemsize = matrix.dtype.itemsize
    lz4 = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=itemsize)
    compressors = {"lz4": lz4, "zstd": ZstdCodec(level=1), "none": None}
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    array = group.create_array(
        "X",
        shape=matrix.shape,
        dtype=matrix.dtype,
        chunks=matrix.tile,
        shards=matrix.shard,
        compressors=compressors[chosen],
        fill_value=0,
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    write_elements(group, {"var": var} if obs is None else {"obs": obs, "var": var, "uns": {}})
    return {path: content.to_bytes() for path, content in files.items()}
