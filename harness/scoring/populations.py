"""How far a prediction's cells lie from the truth's, pair by pair.

Needs whole cells of both sides, which `cell_distances.row_reader` gives; of them only two tiles are
held at once, and the distances among the cells of one pair where they fit.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from harness.kernels import Apart, Distances, Population
from harness.scoring.cell_distances import row_reader
from harness.scoring.group_statistics import grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data import Cells

TILES = (32, 1024)
"""Fewest and most cells in a tile: fewer multiply slowly, more gain nothing."""


def distances_apart(
    truth: Cells, prediction: Cells, centres: np.ndarray, *, threads: int, memory: int
) -> Apart:
    """Compare the cells of each pair with those predicted for it, over all genes, log1p.

    Parameters
    ----------
    truth, prediction
        The two sides, checked before: by `group_statistics.measure`, and to have the same pairs.
    centres
        (n_groups, n_genes) the truth's pseudobulks, controls included, sorted by context, then
        perturbation.
    threads, memory
        How many threads multiply matrices; about how many bytes may be taken.

    Returns
    -------
    Of all groups, in the order of `centres`; controls are not compared. The values do not depend on
    `threads` or `memory`, save for rounding.
    """
    cells = (truth, prediction)
    groups = [
        grouped(side, name)[1] for side, name in zip(cells, ("truth", "prediction"), strict=True)
    ]
    found = np.full((2, len(centres)), np.nan)
    tile = int(np.clip(memory // (32 * centres.shape[1]), *TILES))
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(threads))
        take = [
            row_reader(side, stack.enter_context(tempfile.TemporaryFile()), memory)
            for side in cells
        ]
        for group in np.flatnonzero(~groups[0].is_control):
            x, y = (
                _population(read, np.flatnonzero(side.codes == group))
                for read, side in zip(take, groups, strict=True)
            )
            distances = Distances(x, y, centres[group], tile=tile, keep=memory // 2)
            found[:, group] = distances.energy(), distances.mmd2()
    return Apart(*found)


def _population(take: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> Population:
    return Population(lambda start, stop: take(rows[start:stop]), len(rows))
