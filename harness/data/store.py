"""One screen as a chunked Zarr store: read by pairs or by genes, only the chunks needed.

The matrix is dense, in tiles of 256 cells × 1,024 genes packed into shards of about a thousand
cells, because a screen is read in two directions: all genes of one pair (training, pseudobulks)
and some genes of all cells (rank tests). Cells are sorted by (context, perturbation), so a pair is
one range of rows. ``docs/decisions.md`` has the measurements behind these numbers.

Beside the matrix lie ``obs`` and ``var`` as AnnData writes them, so that `anndata.read_zarr` opens
a store unchanged; the manifest is the attribute ``harness`` of the root group. ``store_writer``
writes all of it.
What it gave up: the source's layers, embeddings and ``uns`` are not carried over.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import zarr

from harness.errors import DataError, listed, near_match
from harness.storage import client, client_options, paths

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from harness.data.cells import Cells, Scale

FORMAT = 1
"""Version of the layout and of the manifest; a store of a newer one is refused."""
CHUNK_ROWS = 256
CHUNK_GENES = 1024
SHARD_BYTES = 64 * 2**20
"""Largest dense size of a shard: what a writer must hold for each shard in flight."""

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class PairRange(NamedTuple):
    """The rows ``start:stop`` that hold one perturbation, or the control, in one context."""

    context: str
    perturbation: str
    start: int
    stop: int


def ranges_of(contexts: Iterable[str], perturbations: Iterable[str]) -> tuple[PairRange, ...]:
    """Return the range of each pair, from the labels of cells in store order.

    The cells of a pair must follow one another; otherwise ``ValueError``.
    """
    ranges: list[PairRange] = []
    labels = list(zip(map(str, contexts), map(str, perturbations), strict=True))
    starts = [i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    for start, stop in zip(starts, [*starts[1:], len(labels)], strict=False):
        ranges.append(PairRange(*labels[start], start, stop))
    if len({found[:2] for found in ranges}) < len(ranges):
        raise ValueError("The cells of a pair must follow one another: sort them by pair first.")
    return tuple(ranges)


def shard_rows(n_genes: int, itemsize: int) -> int:
    """Return the number of cells in a shard: whole chunks that fit into `SHARD_BYTES`."""
    fitting = SHARD_BYTES // max(1, n_genes * itemsize) // CHUNK_ROWS * CHUNK_ROWS
    return min(max(fitting, CHUNK_ROWS), 32 * CHUNK_ROWS)


# --- reading ------------------------------------------------------------------------------------


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store: reads its manifest, and no cell."""
    return Store(os.fspath(path))


class Store:
    """A converted screen, read-only. Pickles as its path, so it may be sent to workers.

    Rows are cells in store order, columns are `genes`; values are on the stored scale.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._group, manifest = _open_group(path)
        self.n_cells, self.n_genes = (int(length) for length in self._matrix.shape)
        self.dtype = np.dtype(self._matrix.dtype)
        self.scale: Scale = manifest["scale"]
        self.control_label: str = manifest["control_label"]
        self.card: dict[str, Any] = manifest["card"]
        self.fingerprint: str = manifest["fingerprint"]
        self.library_size: float | None = manifest["library_size"]
        self.ranges = tuple(PairRange(*entry) for entry in manifest["ranges"])

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

    def __repr__(self) -> str:
        return f"<Store {self.path}: {self.n_cells:,} cells × {self.n_genes:,} genes, {self.scale}>"

    @cached_property  # on an object store, asking for it is a request
    def _matrix(self) -> zarr.Array[Any]:
        matrix = self._group["X"]
        assert isinstance(matrix, zarr.Array)
        return matrix

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """Names of the columns: the card's gene column if it names one, else var's index."""
        column = self.card.get("gene_column") or self._group["var"].attrs["_index"]
        return tuple(map(str, self._column("var", str(column))))

    @cached_property
    def contexts(self) -> tuple[str, ...]:
        """Every context, sorted."""
        return tuple(sorted({found.context for found in self.ranges}))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every (perturbation, context) in store order, without controls."""
        return tuple(
            (found.perturbation, found.context)
            for found in self.ranges
            if found.perturbation != self.control_label
        )

    @cached_property
    def perturbations(self) -> tuple[str, ...]:
        """Every perturbation, sorted, without the control."""
        return tuple(sorted({perturbation for perturbation, _ in self.pairs}))

    @cached_property
    def _range_by_pair(self) -> dict[tuple[str, str], PairRange]:
        return {(found.perturbation, found.context): found for found in self.ranges}

    def cells(self, perturbation: str, context: str) -> Array:
        """Return all cells of a pair, or of the control: ``(n_cells of the pair, n_genes)``.

        `DataError` where the store has none.
        """
        found = self._range_by_pair.get((perturbation, context))
        if found is not None:
            return self.rows(found.start, found.stop)
        in_context = [p for p, c in self._range_by_pair if c == context]
        elsewhere = [c for p, c in self._range_by_pair if p == perturbation]
        if not in_context:
            hint = f"No such context. {near_match(context, self.contexts)}"
        elif elsewhere:
            hint = f"It was measured in {listed(elsewhere)}. Ask for one of these contexts."
        else:
            hint = near_match(perturbation, in_context)
        raise DataError(
            f"{self.path}: no cells of perturbation {perturbation!r} in context {context!r}. {hint}"
        )

    def rows(self, start: int, stop: int) -> Array:
        """Return cells ``start:stop``, ``(stop - start, n_genes)``."""
        _check_slice(start, stop, self.n_cells, "cells")
        with paths.reaching(self.path):
            return np.asarray(self._matrix[start:stop])

    def controls(self, context: str) -> Array:
        """Return all control cells of a context."""
        return self.cells(self.control_label, context)

    def gene_block(self, start: int, stop: int, first: int = 0, last: int | None = None) -> Array:
        """Return genes ``start:stop`` of all cells, or of cells ``first:last``; cells by genes."""
        last = self.n_cells if last is None else last
        _check_slice(start, stop, self.n_genes, "genes")
        _check_slice(first, last, self.n_cells, "cells")
        with paths.reaching(self.path):
            return np.asarray(self._matrix[first:last, start:stop])

    def library_sizes(self) -> Array:
        """Return the total count of each cell, ``(n_cells,)`` float64; counts only."""
        if self.scale != "counts":
            raise DataError(
                f"{self.path}: library sizes are kept for counts only, and this store is on the "
                f"{self.scale} scale. Convert the raw counts if you need them."
            )
        return np.asarray(self._column("uns/harness", "library_sizes"), dtype="f8")

    def batches(self) -> Array | None:
        """Return the batch of each cell, ``(n_cells,)``, where the card names a column of them."""
        column = self.card.get("columns", {}).get("batch")
        return None if column is None else self._column("obs", str(column))

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Return the genes that a perturbation acts on, as far as they are in `genes`.

        The name itself, or the card's target column, is split at the card's separator. The control
        and compounds act on no measured gene: an empty tuple.
        """
        if perturbation == self.control_label:
            return ()
        name, separator = perturbation, self.card.get("combination_separator")
        if self._target_labels is not None:
            row = next((r.start for r in self.ranges if r.perturbation == perturbation), None)
            name = "" if row is None else str(self._target_labels[row])
        parts = name.split(separator) if separator else [name]
        return tuple(part for part in map(str.strip, parts) if part in self._gene_set)

    @cached_property
    def _gene_set(self) -> frozenset[str]:
        return frozenset(self.genes)

    @cached_property
    def _target_labels(self) -> Array | None:
        column = self.card.get("target_column")
        return None if column is None else self._column("obs", str(column))

    def obs(self) -> pd.DataFrame:
        """Return the annotation of cells, in store order; the source's columns, unchanged."""
        return self._frame("obs")

    def var(self) -> pd.DataFrame:
        """Return the annotation of genes; the source's columns, unchanged."""
        return self._frame("var")

    def _frame(self, name: str) -> pd.DataFrame:
        from anndata.io import read_elem

        with paths.reaching(self.path):
            frame: pd.DataFrame = read_elem(self._group[name])
        return frame

    def _column(self, frame: str, column: str) -> Array:
        """Read one column of obs or var, categorical or not, without AnnData's slow import."""
        with paths.reaching(self.path):
            stored = self._group[f"{frame}/{column}"]
            if isinstance(stored, zarr.Array):
                return np.asarray(stored[:])
            from anndata.io import read_elem

            return np.asarray(read_elem(stored))


def _open_group(path: str) -> tuple[zarr.Group, dict[str, Any]]:
    options = None
    if paths.is_remote(path):
        client(path)  # says what is missing where there is no such client
        options = client_options(path)
    try:
        with paths.reaching(path):
            group = zarr.open_group(
                path, mode="r", zarr_format=3, use_consolidated=False, storage_options=options
            )
    except FileNotFoundError:
        raise DataError(
            f"{path}: no store here. Expected a folder written by `harness convert` or "
            "`harness simulate`."
        ) from None
    manifest: Any = group.attrs.get("harness")
    if manifest is None:
        raise DataError(
            f"{path}: Zarr, but without this project's manifest. Make a store of it with "
            "`harness convert SOURCE -o STORE`."
        )
    if manifest["format"] > FORMAT:
        raise DataError(
            f"{path}: a store of format {manifest['format']}, and this version reads up to "
            f"{FORMAT}. Update the harness, or convert the source again."
        )
    return group, dict(manifest)


def _check_slice(start: int, stop: int, length: int, axis: str) -> None:
    if not 0 <= start <= stop <= length:
        raise ValueError(f"{axis} {start}:{stop} asked for, but there are 0:{length}.")


class StoredCells:
    """The cells of a store or a prediction on disk; implements `harness.data.cells.Cells`.

    Parameters
    ----------
    store
        The store, its cells labelled by its ranges.
    controls
        Cells of the same screen that follow its own.
    """

    def __init__(self, store: Store, controls: Cells | None = None) -> None:
        self._store = store
        self._controls = controls
        self.genes = store.genes
        self.control_label = store.control_label
        self.scale: Scale = store.scale
        sizes = [r.stop - r.start for r in store.ranges]
        names = np.repeat(np.array([r.perturbation for r in store.ranges], dtype=np.str_), sizes)
        contexts = np.repeat(np.array([r.context for r in store.ranges], dtype=np.str_), sizes)
        if controls is not None:
            names = np.concatenate([names, controls.perturbations])
            contexts = np.concatenate([contexts, controls.contexts])
        self.perturbations = names
        self.contexts = contexts

        self._sizes: np.ndarray | None = None

    def relabel(
        self, perturbations: np.ndarray, contexts: np.ndarray, *, scale: Scale, sizes: np.ndarray
    ) -> None:
        """Take labels (n_cells,), scale and library sizes (n_cells,) from elsewhere."""
        self.perturbations, self.contexts = perturbations, contexts
        self.scale, self._sizes = scale, sizes

    @property
    def fingerprint(self) -> str | None:
        """A digest of the content; None if controls or labels are from elsewhere."""
        own = self._controls is None and self._sizes is None
        return self._store.fingerprint if own else None

    @property
    def n_cells(self) -> int:
        """The number of rows, the controls' among them."""
        return len(self.perturbations)

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes, for counts: (n_cells,) float64."""
        own = self._store.library_sizes() if self._sizes is None else self._sizes
        if self._controls is None:
            return own
        return np.concatenate([own, self._controls.library_sizes()])

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start)."""
        own = self._store.gene_block(start, stop)
        if self._controls is None:
            return own
        return np.concatenate([own, self._controls.gene_block(start, stop)])
