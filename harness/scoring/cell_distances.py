"""Energy distance of every pair's cells to the controls of their context.

It needs whole cells, many times over, where everything else needs genes, once. A matrix in memory
gives them as it is; other cells are first copied, gene by gene, into a scratch file by rows.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from harness.kernels import (
    Apart,
    Distances,
    Population,
    context_library_sizes,
    energy_distance,
    in_threads,
    log1p_normalise,
    mean_distance,
)
from harness.scoring.group_statistics import block_width, dense, grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data import Cells
    from harness.kernels import Groups

    Take = Callable[[np.ndarray], np.ndarray]
    """From row numbers to log1p cells, (n, n_genes) float32."""


def energy_distances(cells: Cells, *, name: str, threads: int, memory: int) -> np.ndarray:
    """Return the energy distance of each group to its control; NaN for controls.

    Parameters
    ----------
    cells
        One side, its values checked before by `harness.scoring.group_statistics.measure`.
    name
        What errors call this side.
    threads, memory
        How many threads share the groups; how much memory a block of genes may take.

    Returns
    -------
    (n_groups,) in the order of the groups of `Statistics`.
    """
    _, groups = grouped(cells, name)
    found = np.full(groups.n_groups, np.nan)
    # The library's own threads wait for each other by turning, which on a busy machine takes more
    # time than the products; ours take whole groups, and the results do not depend on their number.
    with tempfile.TemporaryFile() as scratch, threadpool_limits(1):
        take = row_reader(cells, scratch, memory)
        for members in groups.segments.members:
            found[members] = _of_segment(take, groups, members, threads, memory)
    return found


def _of_segment(
    take: Take, groups: Groups, members: np.ndarray, threads: int, memory: int
) -> np.ndarray:
    """Return the energy distances of groups to the first of them, NaN for that one."""
    control = np.flatnonzero(groups.codes == members[0])
    total: Any = 0.0
    for start in range(0, len(control), 1024):
        total = total + take(control[start : start + 1024]).sum(axis=0, dtype=np.float64)
    centre = (total / len(control)).astype(np.float32)  # of the controls, only to centre by
    controls = _part(take, control, centre, memory)
    across, within = np.full((2, len(members)), np.nan)

    def work(place: int) -> None:
        if place == 0:
            within[0] = mean_distance(controls, len(control))
            return
        rows = np.flatnonzero(groups.codes == members[place])
        part = _part(take, rows, centre, memory)
        across[place] = mean_distance(part, len(rows), controls, len(control))
        within[place] = mean_distance(part, len(rows))

    in_threads(work, range(len(members)), threads)
    return np.asarray(energy_distance(across, within, within[:1]))


def _part(
    take: Take, rows: np.ndarray, centre: np.ndarray, memory: int
) -> Callable[[int, int], np.ndarray]:
    """Return a function from a range to centred cells; kept dense where that fits the memory."""
    if 4 * len(rows) * len(centre) <= memory:
        kept = take(rows) - centre
        return lambda start, stop: kept[start:stop]
    return lambda start, stop: take(rows[start:stop]) - centre


def row_reader(cells: Cells, scratch: Any, memory: int) -> Take:
    """Return a function from row numbers to log1p cells, (n, n_genes) float32."""
    sizes = cells.library_sizes() if cells.scale == "counts" else None
    targets = None if sizes is None else context_library_sizes(sizes, np.asarray(cells.contexts))

    def logged(block: Any, rows: Any) -> np.ndarray:
        values = dense(block)
        if sizes is not None and targets is not None:
            values = log1p_normalise(values, sizes[rows], targets[rows])
        return values.astype(np.float32, copy=False)

    if hasattr(cells, "take") and getattr(cells, "controls", None) is None:
        return lambda rows: logged(cells.take(rows), rows)
    shape = (cells.n_cells, len(cells.genes))
    copied = np.memmap(scratch, np.float32, "w+", shape=shape)
    width = block_width(*shape, memory)
    for start in range(0, shape[1], width):
        stop = min(start + width, shape[1])
        copied[:, start:stop] = logged(cells.gene_block(start, stop), slice(None))
    return lambda rows: np.asarray(copied[rows])


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
    groups = [grouped(truth, "truth")[1], grouped(prediction, "prediction")[1]]
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


def _population(take: Take, rows: np.ndarray) -> Population:
    return Population(lambda start, stop: take(rows[start:stop]), len(rows))
