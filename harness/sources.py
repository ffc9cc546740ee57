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
import pandas as pd
import zarr
from scipy import sparse

from harness.errors import DataError, listed, near_match
from harness.frames import read_frame
from harness.inflate import read_entries
from harness.paths import refuse_url
from harness.spill import Spill, from_dense

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Layout: TypeAlias = Literal["csr", "csc", "dense"]

_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, zlib.error)
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
            bounds = _bounds(self._parts["indptr"] * (self.dtype.itemsize + 4), max_bytes)
        if self.layout == "csc":
            return tuple(Span(every_row, found) for found in bounds)
        return tuple(Span(found, every_column) for found in bounds)

    def read(self, span: Span) -> sparse.csr_matrix:
        """Return one block of `plan` as CSR, ``(cells of the span, n_genes)``; any thread may."""
        with self._naming(span):
            return self._read(span)

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
        except _DAMAGE as error:
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

    def _read(self, span: Span) -> sparse.csr_matrix:
        if self.layout == "dense":
            return from_dense(self._dense(span))
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


def _bounds(ends: Array, max_bytes: int) -> list[slice]:
    """Cut 0:n into slices of at most `max_bytes`; ``ends[i]`` is the size of the first i."""
    bounds, start = [], 0
    while start < len(ends) - 1:
        stop = int(np.searchsorted(ends, ends[start] + max_bytes, side="right")) - 1
        stop = max(stop, start + 1)
        bounds.append(slice(start, stop))
        start = stop
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


# --- opening ------------------------------------------------------------------------------------


def open_source(
    path: str | os.PathLike[str], layer: str = "X", *, obs: str | os.PathLike[str] | None = None
) -> Source:
    """Open a file of cells, reading its labels but none of its matrix.

    Parameters
    ----------
    path
        `.h5ad`, AnnData `.zarr` (v2 or v3), or 10x `.h5`.
    layer
        ``"X"``, or the name of a layer.
    obs
        A table (`.csv`, `.tsv` or `.parquet`) with a row for each cell, the cell's name or barcode
        in its first column; its other columns are added to the annotation of cells. 10x files have
        no annotation of their own and need one.
    """
    refuse_url(str(path))
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file. Give the path of a .h5ad, .h5 or .zarr.")
    try:
        source = _open_zarr(path, layer) if path.is_dir() else _open_hdf5(path, layer)
    except _DAMAGE as error:
        raise DataError(
            f"{path}: cannot be opened as .h5ad, 10x .h5 or AnnData .zarr ({error}). The file is "
            "damaged, cut short or of another kind: compare its checksum."
        ) from error
    if obs is None:
        return source
    try:
        return _annotated(source, Path(obs))
    except BaseException:
        source.close()
        raise


def _open_hdf5(path: Path, layer: str) -> Source:
    file = h5py.File(path, "r")
    with contextlib.ExitStack() as undo:
        undo.callback(file.close)
        tenx = _tenx_group(file)
        source = _open_anndata(path, file, layer) if tenx is None else _open_tenx(path, tenx)
        undo.pop_all()
    return source


def _open_zarr(path: Path, layer: str) -> Source:
    return _open_anndata(path, zarr.open_group(str(path), mode="r"), layer)


def _open_anndata(path: Path, root: Any, layer: str) -> Source:
    if "obs" not in root or "var" not in root:
        raise DataError(
            f"{path}: found {listed(sorted(root)) or 'nothing'}, expected AnnData's obs and var. "
            "Give a .h5ad, an AnnData .zarr, or a 10x .h5 with the group 'matrix'."
        )
    matrix = _matrix(path, root, layer)
    obs, var = read_frame(root["obs"]), read_frame(root["var"])
    shape = (len(obs), len(var))
    if isinstance(matrix, h5py.Dataset | zarr.Array):
        layout: Layout = "dense"
        _check_any(path, matrix)
        parts = {"data": matrix}
        found = tuple(matrix.shape)
    else:
        layout, found = _sparse_layout(path, matrix)
        parts = _sparse_parts(path, matrix, found[layout == "csc"])
    if found != shape:
        raise DataError(
            f"{path}: the matrix {layer!r} is {found[0]} × {found[1]}, but obs has {shape[0]} rows "
            f"and var {shape[1]}. The file is inconsistent: write it again."
        )
    return Source(str(path), obs, var, _value_type(path, parts["data"]), layout, root, parts)


def _matrix(path: Path, root: Any, layer: str) -> Any:
    layers = root.get("layers", {})
    known = [*(["X"] if "X" in root else []), *layers]
    if layer not in known:
        raise DataError(
            f"{path}: no matrix {layer!r}. {near_match(layer, known)} "
            "Name one of them as expression.layer in the card; a prediction has its cells in X."
        )
    return root["X"] if layer == "X" else layers[layer]


def _sparse_layout(path: Path, matrix: Any) -> tuple[Layout, tuple[int, int]]:
    # files from before AnnData 0.7 use the names after `or`
    kind = str(matrix.attrs.get("encoding-type") or matrix.attrs.get("h5sparse_format"))
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
    layouts: dict[str, Layout] = {"csr": "csr", "csc": "csc"}
    if kind[:3] not in layouts or shape is None:
        raise DataError(f"{path}: found a matrix of kind {kind!r}, expected CSR, CSC or dense.")
    return layouts[kind[:3]], (int(shape[0]), int(shape[1]))


def _sparse_parts(path: Path, matrix: Any, n_major: int) -> dict[str, Any]:
    indptr = np.asarray(matrix["indptr"][:]).astype("i8")
    entries = {int(matrix[name].shape[0]) for name in ("data", "indices")}  # Zarr has no len
    if len(indptr) != n_major + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise DataError(f"{path}: indptr of the sparse matrix is damaged. Write the file again.")
    if entries != {int(indptr[-1])}:
        raise DataError(
            f"{path}: the sparse matrix promises {indptr[-1]} entries and has "
            f"{listed(sorted(entries))}. The file was cut short: copy or download it again."
        )
    for name in ("data", "indices"):
        _check_whole(path, name, matrix[name])
    return {"data": matrix["data"], "indices": matrix["indices"], "indptr": indptr}


def _check_whole(path: Path, name: str, array: Any) -> None:
    """Refuse a Zarr array with missing chunks: Zarr reads them as zeros without a word."""
    if isinstance(array, zarr.Array) and array.nchunks_initialized < array.nchunks:
        raise DataError(
            f"{path}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks of "
            f"{name!r} are missing. The copy is not complete: copy or download it again."
        )


def _check_any(path: Path, matrix: Any) -> None:
    """Refuse a dense Zarr array without any chunk; single ones, of zeros, may be left out."""
    if isinstance(matrix, zarr.Array) and matrix.size and not matrix.nchunks_initialized:
        raise DataError(
            f"{path}: found none of the {matrix.nchunks} chunks of the matrix, so that every value "
            "would be zero. The copy is not complete: copy or download it again."
        )


def _value_type(path: Path, data: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(data.dtype)
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: found values of type {dtype}, expected numbers.")
    return dtype


# --- 10x ----------------------------------------------------------------------------------------


def _tenx_group(file: h5py.File) -> Any:
    group = file.get("matrix")
    return group if isinstance(group, h5py.Group) and "barcodes" in group else None


def _open_tenx(path: Path, group: Any) -> Source:
    """Read what Cell Ranger (3 and later) writes: genes × cells by columns, thus cells by rows."""
    features = group["features"]
    width, n_cells = (int(length) for length in group["shape"][:])
    names = {"gene_symbols": "name", "feature_types": "feature_type", "genome": "genome"}
    columns = {to: features[of].asstr()[:] for to, of in names.items() if of in features}
    var = pd.DataFrame(columns, index=pd.Index(features["id"].asstr()[:]))
    kept = None
    if "feature_types" in var and (var["feature_types"] != "Gene Expression").any():
        # guides and antibodies are counted in the same matrix; they are no genes
        kept = np.flatnonzero(var["feature_types"] == "Gene Expression")
        var = var.iloc[kept]
    obs = pd.DataFrame(index=pd.Index(group["barcodes"].asstr()[:]))
    parts = _sparse_parts(path, group, n_cells) | {"width": width}
    dtype = _value_type(path, parts["data"])
    return Source(str(path), obs, var, dtype, "csr", group.file, parts, kept)


def _annotated(source: Source, table: Path) -> Source:
    columns = _read_table(table)
    missing = source.obs.index[~source.obs.index.isin(columns.index)]
    if len(missing):
        raise DataError(
            f"{table}: {len(missing)} of {source.n_cells} cells of {source.path} have no row: "
            f"{listed(missing)}. Expected the names of cells in the first column, which begins "
            f"with {listed(columns.index[:2])}. Add a row for each cell."
        )
    twice = [name for name in columns if name in source.obs]
    if twice:
        raise DataError(
            f"{table}: columns {listed(twice)} are in {source.path} too. Remove them from one."
        )
    obs = source.obs.join(columns)
    parts = (source.dtype, source.layout, source._file, source._parts, source._kept)
    return Source(source.path, obs, source.var, *parts)


def _read_table(table: Path) -> pd.DataFrame:
    endings = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
    suffixes = [suffix for suffix in table.suffixes if suffix != ".gz"]
    ending = suffixes[-1] if suffixes else ""
    if not table.is_file() or ending not in {*endings, ".parquet"}:
        raise DataError(
            f"{table}: not a table of cells. Expected an existing .csv, .tsv or .parquet."
        )
    if ending == ".parquet":
        columns = pd.read_parquet(table)
        if isinstance(columns.index, pd.RangeIndex):
            columns = columns.set_index(columns.columns[0])
    else:
        columns = pd.read_csv(table, sep=endings[ending], index_col=0)
    columns.index = columns.index.map(str)
    repeated = columns.index[columns.index.duplicated()].unique()
    if len(repeated):
        raise DataError(f"{table}: cells {listed(repeated)} have several rows. Keep one of each.")
    return columns
