"""Cells in memory: of an AnnData object, of a small file, or as a model predicted them.

AnnData is duck-typed: a caller that has an AnnData object has imported anndata already. Missing or
empty labels and matrices on disk are refused here, where columns can be named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError, did_you_mean, listed
from harness.kernels import available_threads, columns_of, has_fractions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.data.cells import Cells, Scale

NO_CONTEXT = ""
"""The context of cells that have no column for it."""

_PIECE = 1 << 22
"""Values whose fractional parts are looked at together."""


class ArrayCells:
    """Cells in memory; implements `harness.data.cells.Cells`.

    Parameters
    ----------
    matrix
        (n_cells, n_genes) NumPy array, or SciPy CSR or CSC matrix in canonical form.
    perturbations, contexts
        (n_cells,) labels.
    genes, control_label
        The columns; the perturbation of control cells.
    scale
        What the values are.
    controls
        Cells of the same genes and scale that follow these.
    name
        What errors call them.
    threads
        How many threads read a block; None: as many as this process may use.
    """

    def __init__(  # noqa: PLR0913 - labels and options, all but three by keyword
        self,
        matrix: Any,
        perturbations: np.ndarray,
        contexts: np.ndarray,
        *,
        genes: Sequence[str],
        control_label: str,
        scale: Scale = "log1p",
        controls: Cells | None = None,
        name: str = "cells in memory",
        threads: int | None = None,
    ) -> None:
        self._matrix, self.controls = matrix, controls
        self.genes, self.control_label = tuple(genes), control_label
        self.perturbations, self.contexts = perturbations, contexts
        if controls is not None:
            self.perturbations = np.concatenate([perturbations, controls.perturbations])
            self.contexts = np.concatenate([contexts, controls.contexts])
        self.scale: Scale = scale
        self.name, self.threads = name, threads

    @property
    def n_cells(self) -> int:
        """The number of rows, the controls' among them."""
        return len(self.perturbations)

    @property
    def rows(self) -> Any:
        """The matrix itself where ranks can be taken from it as it is: log1p, CSR, float32."""
        fit = getattr(self._matrix, "format", "dense") == "csr" and self._matrix.dtype == np.float32
        return self._matrix if fit and self.scale == "log1p" and self.controls is None else None

    def gene_block(self, start: int, stop: int) -> Any:
        """Return the genes from `start` to `stop` of all cells: (n_cells, width), dense or CSC."""
        if getattr(self._matrix, "format", "dense") == "csr":
            threads = self.threads or available_threads()
            return columns_of(self._matrix, start, stop, threads=threads)
        block = self._matrix[:, start:stop]
        if self.controls is None:
            return block
        return np.concatenate([block, self.controls.gene_block(start, stop)])

    def take(self, rows: np.ndarray) -> Any:
        """Return all genes of some cells, controls aside: (len(rows), n_genes), dense or sparse."""
        return self._matrix[rows]

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes: (n_cells,) float64."""
        sizes = np.asarray(self._matrix.sum(axis=1, dtype=np.float64)).ravel()
        if self.controls is None:
            return sizes
        return np.concatenate([sizes, self.controls.library_sizes()])


def anndata_cells(  # noqa: PLR0913 - one object, and options by keyword
    annotated: Any,
    *,
    perturbation_column: str,
    control_label: str,
    context_column: str | None = None,
    scale: Scale | None = None,
    name: str = "AnnData object",
    threads: int | None = None,
) -> ArrayCells:
    """Return the cells of an AnnData object.

    Parameters
    ----------
    annotated
        Anything with `X` (NumPy, or SciPy CSR or CSC), `obs` and `var_names`.
    perturbation_column, context_column
        Columns of `obs`; without a context column all cells share one context.
    control_label
        The perturbation of control cells.
    scale
        What the values are. None: counts where no value has a fractional part above 0.001.
    name, threads
        As for `ArrayCells`.

    Raises
    ------
    DataError
        There are no cells, a column or a label is missing, or the matrix is not in memory.
    """
    matrix = _matrix(annotated.X, name)
    perturbations = _labels(annotated.obs, perturbation_column, name)
    if not matrix.shape[0]:
        raise DataError(f"{name}: there are no cells. Found 0 rows, expected at least one.")
    contexts = np.full(matrix.shape[0], NO_CONTEXT)
    if context_column is not None:
        contexts = _labels(annotated.obs, context_column, name)
    if scale is None:
        values = matrix.data if hasattr(matrix, "indptr") else matrix.reshape(-1)
        scale = guessed_scale(lambda start, stop: values[start:stop], values.size)
    return ArrayCells(
        matrix,
        perturbations,
        contexts,
        genes=[str(gene) for gene in annotated.var_names],
        control_label=control_label,
        scale=scale,
        name=name,
        threads=threads,
    )


def guessed_scale(read: Callable[[int, int], np.ndarray], n_values: int) -> Scale:
    """Return ``log1p`` where any value has a fractional part above 0.001, else ``counts``.

    Values are read from a start to a stop, as far as one with a fraction.
    """
    start, size = 0, 1 << 12  # where there are fractions, a few values have some
    while start < n_values:
        if has_fractions(read(start, min(start + size, n_values))):
            return "log1p"
        start, size = start + size, min(2 * size, _PIECE)
    return "counts"


def _matrix(X: Any, name: str) -> Any:
    found = f"{type(X).__module__.split('.')[0]}.{type(X).__name__}"
    stored = getattr(X, "format", "dense" if isinstance(X, np.ndarray) else None)
    if stored == "dense":
        return np.asarray(X, dtype=np.float32) if X.dtype == np.float16 else np.asarray(X)
    in_memory = hasattr(X, "indptr") and hasattr(X, "has_sorted_indices")
    if stored not in {"csr", "csc"} or not in_memory:
        raise DataError(
            f"{name}: X cannot be scored. Found {found}, expected a NumPy array or a SciPy CSR or "
            "CSC matrix in memory. Give the file's path instead, or load it (`to_memory()`)."
        )
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X.astype(np.float32) if X.dtype == np.float16 else X


def _labels(obs: Any, column: str, name: str) -> np.ndarray:
    if column not in obs.columns:
        known = [str(found) for found in obs.columns]
        raise DataError(
            f"{name}: column {column!r} is not in obs. Found {listed(known) or 'no column'}."
            f"{did_you_mean(column, known)} Name the column that is meant, or add it."
        )
    missing = np.asarray(obs[column].isna())
    labels = obs[column].to_numpy().astype(str)
    missing |= labels == ""
    if missing.any():
        raise DataError(
            f"{name}: column {column!r} has no label for {missing.sum()} cells: "
            f"{listed(obs.index[missing])}. Expected a label for every cell. Label or drop them."
        )
    return np.asarray(labels)
