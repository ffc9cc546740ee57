"""Write an `.h5ad` a few rows at a time: sparse rows, labels of cells, nothing else.

AnnData writes objects that are in memory. This writes the same groups and attributes (its on-disk
format 0.1.0) by h5py, from blocks of rows, so that a file may be larger than memory. Uncompressed:
who compresses the whole file gains nothing from compressed chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeAlias

import h5py
import numpy as np
import pandas as pd

from harness.data.anndata_matrix import stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from scipy import sparse

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_CHUNK = 1 << 16
_TEXT = h5py.string_dtype()


class H5adWriter:
    """Writes one file; use it in a ``with`` block, and call `finish` at its end.

    Parameters
    ----------
    path
        The file; it must not exist.
    columns
        Of obs, at least one: (n_cells,) labels by name. Cells are called "0", "1", ….
    genes
        The index of var, which has no columns.
    dtype
        Of the values, float32 or float64.
    """

    def __init__(
        self, path: Path, *, columns: Mapping[str, Array], genes: Sequence[str], dtype: str
    ) -> None:
        n_cells = len(next(iter(columns.values())))
        self._shape = (n_cells, len(genes))
        self._ends = np.zeros(n_cells + 1, dtype="i8")
        self._n_rows = 0
        self._file = h5py.File(path, "x")
        _tag(self._file, "anndata", "0.1.0")
        _write_frame(self._file, "obs", np.arange(n_cells).astype(str), columns)
        _write_frame(self._file, "var", np.asarray(genes), {})
        for name in ("layers", "obsm", "obsp", "varm", "varp", "uns"):
            _tag(self._file.create_group(name), "dict", "0.1.0")
        self._matrix = _tag(self._file.create_group("X"), "csr_matrix", "0.1.0")
        self._matrix.attrs["shape"] = np.asarray(self._shape, dtype="i8")
        for name, kind in (("data", dtype), ("indices", "i4")):
            self._matrix.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(_CHUNK,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def append(self, block: sparse.csr_matrix) -> None:
        """Write the next rows."""
        first = self._n_rows
        self._n_rows += block.shape[0]
        start = int(self._ends[first])
        self._ends[first + 1 : self._n_rows + 1] = start + block.indptr[1:]
        for name, entries in (("data", block.data), ("indices", block.indices)):
            self._matrix[name].resize((start + block.nnz,))
            self._matrix[name][start:] = entries

    def rewrite(self, function: Callable[[Array, Array], Array], max_entries: int) -> None:
        """Replace the values, given as values and their rows, by what the function returns."""
        data = self._matrix["data"]
        for part in stretches(self._ends[: self._n_rows + 1], max_entries):
            ends = self._ends[part.start : part.stop + 1]
            start, stop = int(ends[0]), int(ends[-1])
            rows = np.repeat(np.arange(part.start, part.stop), np.diff(ends))
            data[start:stop] = function(data[start:stop], rows)

    def finish(self) -> None:
        """Write where the rows end; the file is whole when the ``with`` block is left."""
        if self._n_rows != self._shape[0]:
            raise ValueError(f"{self._n_rows} rows were written, expected {self._shape[0]}.")
        wide = self._ends[-1] > np.iinfo("i4").max
        self._matrix.create_dataset("indptr", data=self._ends.astype("i8" if wide else "i4"))


def _tag(group: Any, kind: str, version: str) -> Any:
    group.attrs["encoding-type"] = kind
    group.attrs["encoding-version"] = version
    return group


def _write_frame(file: h5py.File, name: str, index: Array, columns: Mapping[str, Array]) -> None:
    frame = _tag(file.create_group(name), "dataframe", "0.2.0")
    frame.attrs["_index"] = "_index"
    frame.attrs.create("column-order", np.asarray(list(columns), dtype=object), dtype=_TEXT)
    _write_text(frame, "_index", index)
    for column, labels in columns.items():
        codes = pd.Categorical(labels)
        group = _tag(frame.create_group(column), "categorical", "0.2.0")
        group.attrs["ordered"] = False
        _write_text(group, "categories", np.asarray(codes.categories))
        _tag(group.create_dataset("codes", data=codes.codes), "array", "0.2.0")


def _write_text(group: Any, name: str, text: Array) -> None:
    stored = group.create_dataset(name, data=text.astype(object), dtype=_TEXT)
    _tag(stored, "string-array", "0.2.0")
