"""Predictions held in memory between predicting and scoring, where they are small.

What is deleted once it is scored need not see a disk: writing a store of it, opening that and
reading it back take longer than the scores of a small trial. A large one goes through a file, so
that memory does not grow with the cells asked for; see `harness.data.predictions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.data.prediction_collector import Answered
from harness.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data.cells import Cells, Scale, StoreCells
    from harness.data.prediction_collector import Asked

HELD_BYTES = 64 * 1024 * 1024
"""The largest prediction that is held, and the most of a screen's controls."""


def fits(n_cells: int, n_genes: int) -> bool:
    """Whether cells are few enough to be held."""
    return 4 * n_cells * n_genes <= HELD_BYTES


class HeldCells:
    """Cells in memory, on the log1p scale; implements `harness.data.cells.Cells`.

    Parameters
    ----------
    matrix
        (n_cells, n_genes) float32.
    perturbations, contexts
        (n_cells,) labels.
    genes, control_label
        The columns; the perturbation of control cells.
    controls
        Cells of the same screen that follow these.
    """

    fingerprint = None

    def __init__(
        self,
        matrix: np.ndarray,
        perturbations: np.ndarray,
        contexts: np.ndarray,
        *,
        genes: Sequence[str],
        control_label: str,
        controls: Cells | None = None,
    ) -> None:
        self.scale: Scale = "log1p"
        self._matrix, self._controls = matrix, controls
        self.genes, self.control_label = tuple(genes), control_label
        self.perturbations, self.contexts = perturbations, contexts
        if controls is not None:
            self.perturbations = np.concatenate([perturbations, controls.perturbations])
            self.contexts = np.concatenate([contexts, controls.contexts])

    @property
    def n_cells(self) -> int:
        """The number of rows, the controls' among them."""
        return len(self.perturbations)

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start)."""
        parts = [self._matrix[:, start:stop]]
        if self._controls is not None:
            parts.append(self._controls.gene_block(start, stop))
        block: np.ndarray = np.concatenate(parts)
        return block

    def library_sizes(self) -> np.ndarray:
        """Raise: there are none without counts."""
        raise TypeError("cells on the log1p scale have no library sizes")


class HeldPredictions(Answered):
    """Predictions that are held in memory; the same checks as for those that are written."""

    def __init__(
        self, queries: Sequence[Asked], *, genes: Sequence[str], control_label: str, model: str
    ) -> None:
        if not queries:
            raise ModelError(f"{model}: there is no query to predict. Check the split.")
        n_cells = sum(query.n_cells for query in queries)
        self._rows = _Rows(np.empty((n_cells, len(genes)), dtype=np.float32))
        self.control_label = control_label
        super().__init__(queries, genes, model, self._rows)

    @property
    def made(self) -> HeldPredictions:
        """What to score: this itself."""
        return self

    def cells(self, controls: Cells | None = None) -> HeldCells:
        """Return the predicted cells, followed by the controls that they are measured from."""
        sizes = [query.n_cells for query in self.queries]
        names = np.array([query.perturbation for query in self.queries], dtype=np.str_)
        contexts = np.array([query.context for query in self.queries], dtype=np.str_)
        return HeldCells(
            self._rows.matrix,
            np.repeat(names, sizes),
            np.repeat(contexts, sizes),
            genes=self.genes,
            control_label=self.control_label,
            controls=controls,
        )


class _Rows:
    """A matrix that is filled row by row."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self._filled = matrix, 0

    def append(self, rows: np.ndarray) -> None:
        """Take a copy of the next rows."""
        self.matrix[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def publish(self) -> None:
        """Do nothing: who has the object has the cells."""

    def __exit__(self, *failure: object) -> None:
        pass


# --- controls that many predictions are measured from -------------------------------------------

_LAST: list[tuple[tuple[object, ...], HeldCells]] = []


def held_controls(controls: StoreCells, *tag: object) -> Cells:
    """Return a screen's controls, read once for all trials of this process that share them.

    Parameters
    ----------
    controls
        What would be read each time; returned as it is where it is too large to be held.
    tag
        What tells its values from others of the same cells.
    """
    if not fits(controls.n_cells, len(controls.genes)):
        return controls
    key = controls.fingerprint, *tag
    if not _LAST or _LAST[0][0] != key:
        found = HeldCells(
            controls.dense(),
            controls.perturbations,
            controls.contexts,
            genes=controls.genes,
            control_label=controls.control_label,
        )
        _LAST[:] = [(key, found)]
    return _LAST[0][1]
