"""Foreign files of cells, read block by block: `.h5ad`, 10x `.h5` and AnnData `.zarr`.

A `Source` knows its labels at once and its matrix only a block at a time. `plan` lists the blocks
in the order that the file stores them: some rows of CSR, dense and 10x, some columns of CSC; `read`
reads one. `row_blocks` gives rows whatever the layout, at the price of a copy on disk for CSC.

Several threads may read one source. Damage is a `DataError` that names the file and the rows that
cannot be read.
"""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

import h5py
import numpy as np
from scipy import sparse

from harness.data.spill import Spill, from_dense
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd


Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def read_entries(array: Any, start: int, stop: int) -> Array:
    """Return ``array[start:stop]`` of a one-dimensional HDF5 or Zarr array.

    Chunks that are compressed by gzip alone are inflated here: HDF5 does it under its own lock, so
    that threads would wait for each other.
    """
    gzipped = isinstance(array, h5py.Dataset) and array.compression == "gzip"
    if not gzipped or stop <= start or array.shuffle or array.fletcher32 or array.scaleoffset:
        return np.asarray(array[start:stop])
    (length,) = array.chunks
    out = np.empty(stop - start, array.dtype)
    for at in range(start // length * length, stop, length):
        # a set bit says that the chunk was stored without the filter
        skipped, raw = array.id.read_direct_chunk((at,))
        try:
            content = raw if skipped else zlib.decompress(raw, bufsize=length * out.itemsize)
        except zlib.error as error:
            raise ValueError(f"gzip: {error}") from error
        chunk = np.frombuffer(content, array.dtype)
        if len(chunk) != length:
            raise ValueError(f"a chunk holds {len(chunk)} values instead of {length}")
        low, high = max(at, start), min(at + length, stop)
        out[low - start : high - start] = chunk[low - at : high - at]
    return out


Layout: TypeAlias = Literal["csr", "csc", "dense"]

DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, zlib.error)
"""What h5py, zarr and the codecs raise on files that are cut short or overwritten."""


class Span(NamedTuple):
    """The cells and genes that one block covers."""

    rows: slice
    columns: slice


@dataclass(frozen=True, slots=True)
class Source:
    """An open file of cells. Close it, or use it in a ``with`` block.

    Attributes
    ----------
    obs, var
        Annotation of cells and genes as the file has it.
    dtype
        Of the stored values.
    layout
        How the file stores the matrix; 10x files are ``"csr"``, cells being their columns.
    """

    path: str
    obs: pd.DataFrame
    var: pd.DataFrame
    dtype: np.dtype[Any]
    layout: Layout
    _file: Any
    _parts: Mapping[str, Any]  # data, indices and indptr; or the dense array as data
    _kept: Array | None = None  # numbers of the columns that are genes; None: all are

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return len(self.obs)

    @property
    def n_genes(self) -> int:
        """How many genes there are."""
        return len(self.var)

    @property
    def genes(self) -> tuple[str, ...]:
        """Names of the genes: the index of `var`."""
        return tuple(map(str, self.var.index))

    @property
    def density(self) -> float:
        """The share of values that the file stores: 1 unless the layout is sparse."""
        if self.layout == "dense":
            return 1.0
        return float(self._parts["indptr"][-1] / max(1, self.n_cells * self._width))

    @property
    def indptr(self) -> Array | None:
        """Where each row's entries end, each column's of CSC, from 0; None of a dense matrix."""
        return self._parts.get("indptr")

    def entries(self) -> dict[str, Any]:
        """Return the stored arrays, ``data`` and, of sparse matrices, ``indices``.

        Nothing where some columns are no genes: then the entries are not the matrix.
        """
        names = ("data",) if self.layout == "dense" else ("data", "indices")
        return {} if self._kept is not None else {name: self._parts[name] for name in names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a Zarr folder needs none of it."""
        if isinstance(self._file, h5py.File):
            self._file.close()

    def plan(self, max_bytes: int) -> tuple[Span, ...]:
        """Return the blocks that `read` reads, in stored order, each at most so large in memory.

        A single row (of CSC: a column) that is larger is a block by itself.
        """
        every_row, every_column = slice(0, self.n_cells), slice(0, self.n_genes)
        if self.layout == "dense":
            bounds = _dense_bounds(self._parts["data"], max_bytes)
        else:
            bounds = stretches(self._parts["indptr"] * (self.dtype.itemsize + 4), max_bytes)
        if self.layout == "csc":
            return tuple(Span(every_row, found) for found in bounds)
        return tuple(Span(found, every_column) for found in bounds)

    def read(self, span: Span) -> sparse.csr_matrix:
        """Return one block of `plan` as CSR, ``(cells of the span, n_genes)``; any thread may."""
        with self._naming(span):
            return from_dense(self._dense(span)) if self.layout == "dense" else self._sparse(span)

    def dense_blocks(self, max_bytes: int) -> Iterator[Array]:
        """Yield all cells of a dense file as they are stored, some at a time; float16 widened."""
        for span in self.plan(max_bytes):
            with self._naming(span):
                yield self._dense(span)

    @contextlib.contextmanager
    def _naming(self, span: Span) -> Iterator[None]:
        """Make errors of reading a block say which one it is."""
        try:
            yield
        except DAMAGE as error:
            axis, part = ("genes", span.columns) if self.layout == "csc" else ("cells", span.rows)
            raise DataError(
                f"{self.path}: the matrix cannot be read at {axis} {part.start}:{part.stop} of "
                f"{self.n_genes if axis == 'genes' else self.n_cells} ({error}). The file is "
                "damaged or was cut short: copy or download it again, and compare its checksum."
            ) from error

    def row_blocks(self, max_bytes: int) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """Yield all cells in the file's order, some at a time, with the first one's number."""
        spans = self.plan(max_bytes)
        if self.layout != "csc":
            for span in spans:
                yield span.rows.start, self.read(span)
            return
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            spill = Spill(Path(folder), self.n_genes)
            for number, span in enumerate(spans):
                spill.write(number, self.read(span), np.arange(self.n_cells))
            size = int(self._parts["indptr"][-1]) * (self.dtype.itemsize + 4)
            at_once = max(1, int(self.n_cells * min(1.0, max_bytes / max(1, size))))
            for start in range(0, self.n_cells, at_once):
                yield start, spill.read(start, min(start + at_once, self.n_cells), self.dtype)

    def _sparse(self, span: Span) -> sparse.csr_matrix:
        """Return rows of CSR, or columns of CSC as rows with entries in these alone."""
        major = span.columns if self.layout == "csc" else span.rows
        indptr = self._parts["indptr"][major.start : major.stop + 1]
        start, stop = int(indptr[0]), int(indptr[-1])
        values, indices = (
            read_entries(self._parts[name], start, stop) for name in ("data", "indices")
        )
        minor = self.n_cells if self.layout == "csc" else self._width
        if len(indices) and not 0 <= indices.min() <= indices.max() < minor:
            raise ValueError(f"an index outside 0:{minor}")
        entries = (values, indices.astype("i4", copy=False), (indptr - start).astype("i4"))
        if self.layout == "csr":
            block = sparse.csr_matrix(entries, shape=(len(indptr) - 1, self._width))
            return block if self._kept is None else block[:, self._kept]
        block = sparse.csc_matrix(entries, shape=(minor, len(indptr) - 1)).tocsr()
        shifted = block.indices + major.start  # the block's columns, by their number in the file
        return sparse.csr_matrix((block.data, shifted, block.indptr), shape=(minor, self.n_genes))

    def _dense(self, span: Span) -> Array:
        """Return rows of a dense file; SciPy's matrices know no float16."""
        block = np.asarray(self._parts["data"][span.rows])
        return block.astype("f4") if block.dtype == np.float16 else block

    @property
    def _width(self) -> int:
        """Columns of the stored matrix, those that are no genes included."""
        return self.n_genes if self._kept is None else int(self._parts["width"])


def stretches(ends: Array, most: int) -> list[slice]:
    """Cut 0:n into slices of at most such a size, or of one; ``ends[i]`` is that of the first i."""
    bounds, start = [], 0
    while start < len(ends) - 1:
        stop = int(np.searchsorted(ends, ends[start] + most, side="right")) - 1
        bounds.append(slice(start, max(stop, start + 1)))
        start = bounds[-1].stop
    return bounds


def _dense_bounds(data: Any, max_bytes: int) -> list[slice]:
    n_rows, n_columns = data.shape
    # a row, and in the worst case its entries with their column numbers, before and after
    cost = n_columns * (2 * data.dtype.itemsize + 12)
    rows = max(1, max_bytes // max(1, cost))
    whole = data.chunks[0] if data.chunks else 1
    if whole * cost <= 4 * max_bytes:  # otherwise each chunk would be inflated several times
        rows = max(whole, rows // whole * whole)
    return [slice(at, min(at + rows, n_rows)) for at in range(0, n_rows, rows)]
