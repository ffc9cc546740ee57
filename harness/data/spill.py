"""Sparse rows on disk, written in one order and read in another with bounded memory.

An external merge: each block of the source becomes a *run*, a folder with its rows sorted by the
position they will have; a range of positions is then one contiguous piece of every run. A run is
written beside its name and renamed, so one that exists is whole, and a killed conversion goes on.

Counts are kept in two bytes and gene numbers too where they fit: half of what CSR takes.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class _Piece(NamedTuple):
    """Some consecutive rows of one run: where they go, and their entries."""

    positions: Array
    offsets: Array
    columns: Array
    values: Array


class Spill:
    """Runs of sparse rows in a folder.

    Parameters
    ----------
    folder
        Made if need be; runs that are in it already are kept.
    n_columns
        Length of the rows.
    """

    def __init__(self, folder: Path, n_columns: int) -> None:
        self.folder = folder
        self.n_columns = n_columns
        self._known: dict[int, dict[str, Path]] = {}
        self._positions: dict[int, Array] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob("*.partial"):
            shutil.rmtree(torn)

    @property
    def written(self) -> frozenset[int]:
        """The numbers of the runs that are on disk."""
        return frozenset(int(run.name) for run in self.folder.iterdir() if run.name.isdigit())

    @property
    def whole_numbers(self) -> bool:
        """Whether all values written so far are whole numbers."""
        return all(self._files(run)["values"].suffix[1] in "ui" for run in self.written)

    def write(self, run: int, block: sparse.csr_matrix, positions: Array) -> None:
        """Write the rows of a block as one run; `positions` says where each row goes.

        The block's column numbers are those of the whole matrix; a row may come in several runs,
        each with other columns.
        """
        scratch = self.folder / f"{run}.partial"
        scratch.mkdir()
        order = np.argsort(positions, kind="stable")
        block = block[order]
        block.eliminate_zeros()
        _save(scratch, "positions", np.asarray(positions, dtype="i8")[order])
        _save(scratch, "offsets", block.indptr.astype("i8"))
        narrow = np.min_scalar_type(max(1, self.n_columns - 1))
        _save(scratch, "columns", block.indices.astype(narrow, copy=False))
        _save(scratch, "values", _narrowed(block.data))
        scratch.rename(self.folder / str(run))

    def read(self, start: int, stop: int, dtype: np.dtype[Any]) -> sparse.csr_matrix:
        """Return the rows at positions ``start:stop``; where nothing was written, they are zero."""
        pieces = [piece for run in sorted(self.written) if (piece := self._piece(run, start, stop))]
        positions = np.concatenate([np.zeros(0, "i8"), *(piece.positions for piece in pieces)])
        slices = [(piece, row) for piece in pieces for row in range(len(piece.positions))]
        lengths = np.concatenate([np.zeros(0, "i8"), *(np.diff(p.offsets) for p in pieces)])
        indptr = np.zeros(stop - start + 1, dtype="i4")
        np.add.at(indptr, positions - start + 1, lengths)
        columns, values = [np.zeros(0, "i4")], [np.zeros(0, dtype)]
        for i in np.argsort(positions, kind="stable"):
            piece, row = slices[i]
            entries = slice(piece.offsets[row], piece.offsets[row + 1])
            columns.append(piece.columns[entries])
            values.append(piece.values[entries])
        joined = (
            np.concatenate(values, dtype=dtype, casting="unsafe"),
            np.concatenate(columns, dtype="i4", casting="unsafe"),
            np.cumsum(indptr, dtype="i4"),
        )
        return sparse.csr_matrix(joined, shape=(stop - start, self.n_columns))

    def _piece(self, run: int, start: int, stop: int) -> _Piece | None:
        files = self._files(run)
        if run not in self._positions:
            # mapped, not read: a binary search touches a few pages of what may be millions of rows
            self._positions[run] = np.memmap(files["positions"], dtype="i8", mode="r")
        found = self._positions[run]
        first, last = (int(i) for i in np.searchsorted(found, [start, stop]))
        if first == last:
            return None
        offsets = _load(files["offsets"], first, last + 1)
        entries = int(offsets[0]), int(offsets[-1])
        columns, values = (_load(files[name], *entries) for name in ("columns", "values"))
        return _Piece(np.array(found[first:last]), offsets - offsets[0], columns, values)

    def _files(self, run: int) -> dict[str, Path]:
        if run not in self._known:
            self._known[run] = {file.stem: file for file in (self.folder / str(run)).iterdir()}
        return self._known[run]


def from_dense(block: Array) -> sparse.csr_matrix:
    """Return the entries of a block that are not zero, each row's in the order of columns."""
    # about three times as fast as csr_matrix(block), which goes through coordinates
    filled = block != 0
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(filled, axis=1))])
    columns = (np.flatnonzero(filled) % max(1, block.shape[1])).astype("i4")
    return sparse.csr_matrix((block[filled], columns, indptr.astype("i4")), shape=block.shape)


def _narrowed(values: Array) -> Array:
    """Return whole numbers in the two or four bytes they need; anything else unchanged."""
    for dtype in ("u2", "u4"):
        if values.dtype.itemsize <= np.dtype(dtype).itemsize:
            break
        with np.errstate(invalid="ignore"):  # a value that does not fit fails the comparison
            small = values.astype(dtype)
        if np.array_equal(small, values):
            return small
    return values


def _save(folder: Path, name: str, array: Array) -> None:
    with (folder / f"{name}.{array.dtype.str[1:]}").open("wb") as file:
        array.tofile(file)


def _load(file: Path, start: int, stop: int) -> Array:
    dtype = np.dtype(file.suffix[1:])
    return np.fromfile(file, dtype=dtype, count=stop - start, offset=start * dtype.itemsize)
