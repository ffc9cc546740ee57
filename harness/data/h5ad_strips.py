"""Cells of a file larger than memory, read where they lie: a strip of columns at a time.

A file that stores cells by rows and does not compress them, as AnnData writes unless told
otherwise, can be read at any place. One pass over the column numbers notes where in each row every
few hundred columns begin; a strip is then one short piece of every row. Nothing is copied to disk,
and only the strip is in memory. (Mapped, the file would count as this process's memory.) A
compressed file would have to be inflated whole for each strip; `predictions` copies it.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from scipy.sparse import csr_matrix

from harness.data.anndata_matrix import stretches
from harness.data.array_cells import guessed_scale
from harness.errors import DataError
from harness.kernels import columns_of, gather, note_cuts

if TYPE_CHECKING:
    from harness.data.anndata_matrix import Source
    from harness.data.array_cells import ArrayCells
    from harness.data.cells import Scale

STEP = 256
"""Columns between two notes of where they begin in a row, unless there are too many rows."""

_ENTRIES = 1 << 22
"""Values read together on a pass over the file."""


@dataclass(frozen=True, slots=True)
class Flat:
    """An array of an HDF5 file that lies there as it would in memory, whole or in chunks.

    Parameters
    ----------
    file
        Descriptor of the open file.
    dtype, size
        Of the array, its dimensions taken as one.
    length, places
        How many values a chunk holds, and the byte at which each begins in the file.
    threads
        How many read.
    """

    file: int
    dtype: np.dtype[Any]
    size: int
    length: int
    places: np.ndarray
    threads: int

    def pieces(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return values from each of `starts` on, one piece after the other.

        Parameters
        ----------
        starts
            (n,) the first value of each piece.
        ends
            (n + 1,) where each piece begins in what is returned, and where the last one ends.
        """
        size = self.dtype.itemsize
        where = (np.asarray(starts, np.int64) * size, np.asarray(ends, np.int64) * size)
        found, failed = gather(
            self.file, self.places, self.length * size, *where, threads=self.threads
        )
        if failed >= 0:
            raise DataError(
                f"The values from number {int(starts[failed])} on cannot be read. The file was cut "
                "short or changed while it was in use: copy it again."
            )
        return found.view(self.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the values from `start` to `stop`."""
        return self.pieces(np.array([start]), np.array([0, stop - start]))


def flat(dataset: Any, file: int, threads: int) -> Flat | None:
    """Locate an HDF5 dataset's values in their file; None if only HDF5 can read them.

    Only one-dimensional datasets may be in chunks.
    """
    if not isinstance(dataset, h5py.Dataset) or not dataset.dtype.isnative or not dataset.size:
        return None
    layout = dataset.id.get_create_plist()
    if layout.get_nfilters() or layout.get_external_count() or dataset.file.userblock_size:
        return None
    if dataset.chunks is None:
        place = dataset.id.get_offset()
        if place is None:
            return None
        size = int(dataset.size)
        return Flat(file, dataset.dtype, size, size, np.array([place]), threads)
    if dataset.ndim > 1:
        return None
    (length,) = dataset.chunks
    places = np.full(-(-int(dataset.size) // length), -1)

    def note(chunk: Any) -> None:
        if chunk.chunk_offset[0] // length < len(places):
            places[chunk.chunk_offset[0] // length] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    whole = Flat(file, dataset.dtype, int(dataset.size), length, places, threads)
    return None if places.min() < 0 else whole


def open_strips(
    labels: ArrayCells, source: Source, scale: Scale | None, threads: int
) -> StripCells | None:
    """Return the cells of a source, to be read where they lie; None where they cannot be.

    Parameters
    ----------
    labels
        What is known of the cells but their values.
    source
        The open file; it may be closed afterwards.
    scale
        What the values are; None: look.
    threads
        How many threads read.
    """
    if source.layout == "csc" or source.dtype == np.float16 or os.name != "posix":
        return None
    file = os.open(source.path, os.O_RDONLY)
    parts: dict[str, Any] = {
        name: flat(array, file, threads) for name, array in source.entries().items()
    }
    if not parts or any(part is None for part in parts.values()):
        os.close(file)
        return None
    if source.indptr is None:
        cells: StripCells = DenseStrips(labels, parts, scale)
    else:
        cells = SparseStrips(labels, parts, scale, source.indptr)
    weakref.finalize(cells, os.close, file)
    return cells if cells.survey() else None


class StripCells(ABC):
    """Cells whose values stay in their file; implements `harness.data.cells.Cells`.

    Parameters
    ----------
    labels
        What is known of the cells but their values.
    parts
        The stored arrays: ``data`` and, of sparse matrices, ``indices``.
    scale
        What the values are; None: look.
    """

    def __init__(self, labels: ArrayCells, parts: dict[str, Flat], scale: Scale | None) -> None:
        self.genes = labels.genes
        self.perturbations = labels.perturbations
        self.contexts = labels.contexts
        self.control_label = labels.control_label
        self.name = labels.name
        self.n_cells = labels.n_cells
        self.parts, self._scale = parts, scale

    @cached_property
    def scale(self) -> Scale:
        """What was declared, else ``log1p`` where any value has a fraction above 0.001."""
        data = self.parts["data"]
        return self._scale or guessed_scale(data.read, data.size)

    @property
    def density(self) -> float:
        """The share of values that the file stores."""
        return float(self.parts["data"].size / max(1, self.n_cells * len(self.genes)))

    def survey(self) -> bool:
        """Look over the file once; False where the entries of some row are not in order."""
        return True

    @abstractmethod
    def take(self, rows: np.ndarray) -> Any:
        """Return all genes of some cells: (len(rows), n_genes), dense or CSR."""

    @abstractmethod
    def gene_block(self, start: int, stop: int) -> Any:
        """Return the genes from `start` to `stop` of all cells: (n_cells, width), dense or CSC."""

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes: (n_cells,) float64."""
        return self._sizes

    @cached_property
    def _sizes(self) -> np.ndarray:
        sizes = np.empty(self.n_cells)
        step = max(1, int(_ENTRIES / max(1.0, len(self.genes) * self.density)))
        for first in range(0, self.n_cells, step):
            rows = np.arange(first, min(first + step, self.n_cells))
            total = self.take(rows).sum(axis=1, dtype=np.float64)
            sizes[rows] = np.asarray(total).ravel()
        return sizes


class DenseStrips(StripCells):
    """Cells of a dense matrix."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return all genes of some cells: (len(rows), n_genes)."""
        return self._read(np.asarray(rows, np.int64), 0, len(self.genes))

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start)."""
        return self._read(np.arange(self.n_cells), start, stop)

    def _read(self, rows: np.ndarray, start: int, stop: int) -> np.ndarray:
        ends = np.arange(len(rows) + 1) * (stop - start)
        found = self.parts["data"].pieces(rows * len(self.genes) + start, ends)
        return found.reshape(len(rows), stop - start)


class SparseStrips(StripCells):
    """Cells of a matrix stored by rows, zeros left out."""

    def __init__(
        self, labels: ArrayCells, parts: dict[str, Flat], scale: Scale | None, indptr: np.ndarray
    ) -> None:
        super().__init__(labels, parts, scale)
        self.indptr = indptr

    def survey(self) -> bool:
        """Note where in each row every few columns begin; False if these are not in order."""
        n_cells, n_genes = self.n_cells, len(self.genes)
        self.step = STEP
        while n_cells * (n_genes // self.step) > _ENTRIES * 4:  # 64 MiB of notes
            self.step *= 2
        self.cuts = np.zeros((n_cells, -(-n_genes // self.step) + 1), np.int32)
        for rows in stretches(self.indptr, _ENTRIES):
            ends = self.indptr[rows.start : rows.stop + 1]
            indices = self.parts["indices"].read(int(ends[0]), int(ends[-1]))
            if not note_cuts(indices, ends - ends[0], self.step, n_genes, self.cuts[rows]):
                return False
        return True

    def take(self, rows: np.ndarray) -> csr_matrix:
        """Return all genes of some cells: (len(rows), n_genes)."""
        rows = np.asarray(rows, np.int64)
        return self._read(self.indptr[rows], self.indptr[rows + 1])

    def strip(self, start: int, stop: int) -> csr_matrix:
        """Return all cells with no other entries than those of a range of columns.

        Parameters
        ----------
        start, stop
            Which columns; some before and after may be there, too.

        Returns
        -------
        (n_cells, n_genes), the columns' numbers being those in the file.
        """
        first, last = start // self.step, -(-stop // self.step)
        starts = self.indptr[:-1]
        return self._read(starts + self.cuts[:, first], starts + self.cuts[:, last])

    def gene_block(self, start: int, stop: int) -> Any:
        """Return the genes from `start` to `stop` of all cells: (n_cells, width) CSC."""
        return columns_of(self.strip(start, stop), start, stop, threads=self.parts["data"].threads)

    def _read(self, starts: np.ndarray, stops: np.ndarray) -> csr_matrix:
        """Return one row for each range of entries."""
        ends = np.concatenate([[0], np.cumsum(stops - starts)])
        data, indices = (self.parts[name].pieces(starts, ends) for name in ("data", "indices"))
        found = csr_matrix((len(starts), len(self.genes)), dtype=data.dtype)
        # Set, not given: SciPy would look through all column numbers again.
        found.data, found.indices = data, indices.astype(np.int32, copy=False)
        found.indptr = ends.astype(np.int32) if ends[-1] < 2**31 else ends
        found.has_canonical_format = True
        return found
