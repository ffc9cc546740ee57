"""Predicted log1p cells as raw counts, for suites that score counts.

Models predict on the log1p scale, where a cell has the screen's median library size. The 2026
challenge scores whole counts. One shared step makes the one of the other, since the choice moves
rank tests: each value becomes ``exp(x) - 1``, rounded up or down at random so that its mean stays
(`harness.kernels.thinning.rounded`). So a predicted cell is as deep as the screen's median cell.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.kernels import rounded

if TYPE_CHECKING:
    from harness.data import Cells, Scale

_BLOCK_BYTES = 64 * 1024 * 1024


class CountedCells:
    """The counts of log1p cells; implements `harness.data.cells.Cells`.

    Parameters
    ----------
    cells
        On the log1p scale, normalised to the screen's library size.
    seed
        Of the rounding. The same cells and seed give the same counts, whatever is read together.
    """

    scale: Scale = "counts"

    def __init__(self, cells: Cells, seed: int = 0) -> None:
        if cells.scale != "log1p":
            raise ValueError(f"cells are {cells.scale}, expected log1p")
        self._cells = cells
        self._seed = seed
        self.genes = cells.genes
        self.control_label = cells.control_label
        self.perturbations = cells.perturbations
        self.contexts = cells.contexts
        self._rows = np.arange(cells.n_cells, dtype=np.uint64)

    @property
    def n_cells(self) -> int:
        """The number of rows."""
        return self._cells.n_cells

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start) float32."""
        block = self._cells.gene_block(start, stop)
        return rounded(block, self._rows, start, self._seed, exponent=True)

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes: (n_cells,) float64."""
        return self._sizes

    @cached_property
    def _sizes(self) -> np.ndarray:
        total = np.zeros(self.n_cells)
        width = max(1, _BLOCK_BYTES // (4 * max(1, self.n_cells)))
        for start in range(0, len(self.genes), width):
            block = self.gene_block(start, min(start + width, len(self.genes)))
            total += block.sum(axis=1, dtype=np.float64)
        return total
