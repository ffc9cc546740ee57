"""What scoring needs of one side, computed in one pass over blocks of genes.

`measure` reads every value once and keeps, for each pair and gene, the mean, U against the controls
of the same context, and the tie term: a few arrays of (n_groups, n_genes), however many cells there
are. The truth's are computed once and serve every prediction; which p-values and fold changes they
become is a suite's convention and decided later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError, listed
from harness.kernels import (
    FRACTION,
    Groups,
    RowRange,
    choose,
    context_library_sizes,
    has_fractions,
    log1p_normalise,
    stream_statistics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.data import Cells, Scale
    from harness.kernels import Backend
    from harness.scoring.checks import Axes

LOG1P_BELOW = 15.0
"""Log1p values lie below this; what does not was never logged."""

ROW_BLOCK = 4096
"""Genes taken at once of a matrix that is in memory, by rows: nothing is copied for them."""

STEP = 256
"""Genes are read in multiples of so many, as stores chunk them, or else of a sixteenth of it."""

_PIECE = 1 << 22
"""Values of a matrix in memory that are checked together."""

_BYTES_PER_VALUE = 16
"""Peak bytes per cell and gene of a block: as read, as normalised, and a copy between the two."""


@dataclass(frozen=True)
class Statistics:
    """Means and rank sums of every pair of one side, sorted by context, then perturbation.

    Parameters
    ----------
    genes
        The gene axis.
    perturbations, contexts
        (n_groups,) labels of each group, controls included.
    control_label
        What a control's perturbation is called.
    sizes, reference
        (n_groups,) number of cells; position of the control group of the same context.
    means
        (n_groups, n_genes) float64 mean of log1p values.
    u, ties
        (n_groups, n_genes) as in `harness.kernels.rank_test.BlockStatistics`.
    single
        Whether the values were of single precision.
    scale
        On which scale they were given.
    """

    genes: tuple[str, ...]
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    control_label: str
    sizes: np.ndarray
    reference: np.ndarray
    means: np.ndarray
    u: np.ndarray
    ties: np.ndarray
    single: bool
    scale: Scale

    def rows_of(self, context: str) -> np.ndarray:
        """Return the positions of a context's pairs, without its control."""
        here = np.asarray(self.contexts) == context
        return np.flatnonzero(here & (np.asarray(self.perturbations) != self.control_label))

    @property
    def axes(self) -> Axes:
        """The genes, and the (perturbation, context) pairs with the controls."""
        return self.genes, frozenset(zip(self.perturbations, self.contexts, strict=True))


def measure(
    cells: Cells,
    *,
    name: str,
    scale: Scale | None = None,
    threads: int = 1,
    memory: int = 1 << 30,
    backend: Backend | None = None,
) -> Statistics:
    """Stream a side's genes and return its statistics.

    Parameters
    ----------
    cells
        Truth or prediction. Counts are scaled to the median library size of their context, then
        log1p-transformed: contexts scored together score as each would alone.
    name
        What errors call this side.
    scale
        What the values are said to be; an error if they are not. None: what `cells` says.
    threads, memory
        How many threads; about how many bytes a block of genes may take.
    backend
        Where to compute; None: on the CPU. U and ties do not depend on it, means by no more than
        1e-13.
    """
    if scale is not None and scale != cells.scale:
        raise DataError(
            f"{name}: the values are {cells.scale}, expected {scale} as was said. "
            "Correct the scale, or give the other matrix."
        )
    check_genes(tuple(cells.genes), name)
    labels, groups = grouped(cells, name)
    sizes = groups.sizes()
    shape = (groups.n_groups, len(cells.genes))
    means, u, ties = np.empty(shape), np.empty(shape), np.empty(shape)
    prepare = _Preparation(cells, name)
    blocks, device = prepare.blocks(memory), backend or choose("cpu")
    for start, found in stream_statistics(blocks, groups, device, threads=threads):
        here = slice(start, start + found.u.shape[1])
        means[:, here] = found.sums / sizes[:, None]
        u[:, here], ties[:, here] = found.u, found.ties
    prepare.conclude()
    return Statistics(
        genes=tuple(cells.genes),
        perturbations=tuple(perturbation for _, perturbation in labels),
        contexts=tuple(context for context, _ in labels),
        control_label=cells.control_label,
        sizes=sizes,
        reference=groups.reference,
        means=means,
        u=u,
        ties=ties,
        single=prepare.single,
        scale=cells.scale,
    )


def check_genes(genes: tuple[str, ...], name: str) -> None:
    """Refuse a side without genes, or with a gene given twice."""
    if not genes:
        raise DataError(f"{name}: there are no genes. Expected at least one column.")
    if len(set(genes)) < len(genes):
        twice = sorted(gene for gene, number in Counter(genes).items() if number > 1)
        raise DataError(
            f"{name}: gene names are given more than once. Found {listed(twice)}, expected each "
            "name once. Make the names unique, or drop the columns."
        )


def block_width(n_cells: int, n_genes: int, memory: int) -> int:
    """Return the number of genes in a block: at least sixteen, within `memory` bytes."""
    fitting = memory // (_BYTES_PER_VALUE * max(1, n_cells))
    step = STEP if fitting >= STEP else STEP // 16
    return min(n_genes, max(step, fitting // step * step))


def grouped(cells: Cells, name: str) -> tuple[list[tuple[str, str]], Groups]:
    """Return the (context, perturbation) of each group in byte order, and every cell's group."""
    contexts, context_codes = np.unique(np.asarray(cells.contexts, str), return_inverse=True)
    names, name_codes = np.unique(np.asarray(cells.perturbations, str), return_inverse=True)
    joint, codes = np.unique(context_codes * len(names) + name_codes, return_inverse=True)
    labels = [(str(contexts[at // len(names)]), str(names[at % len(names)])) for at in joint]
    controls = {context: at for at, (context, p) in enumerate(labels) if p == cells.control_label}
    bare = sorted({context for context, _ in labels} - set(controls))
    if bare:
        where = f" in context {listed(bare)}" if any(bare) else ""
        most = names[np.bincount(name_codes).argmax()]
        raise DataError(
            f"{name}: there are no control cells{where}. Found the perturbations {listed(names)} "
            f"(most cells: {str(most)!r}), expected cells labelled {cells.control_label!r}. Add "
            "them, or name the control label."
        )
    if len(labels) == len(controls):
        raise DataError(
            f"{name}: all cells are controls. Found only {cells.control_label!r}, expected "
            "perturbed cells besides. Check the column of perturbations and the control label."
        )
    reference = np.array([controls[context] for context, _ in labels], dtype=np.int32)
    return labels, Groups(codes.astype(np.int32), reference)


def dense(block: Any) -> np.ndarray:
    """Return a block of genes as a NumPy array."""
    return np.asarray(block.toarray() if hasattr(block, "toarray") else block)


class _Preparation:
    """Reads blocks, brings them to log1p, and refuses values that cannot be on their scale."""

    def __init__(self, cells: Cells, name: str) -> None:
        self.cells, self.name = cells, name
        self.fractions = self.anything = self.single = False
        self.sizes = cells.library_sizes() if cells.scale == "counts" else None
        self.targets = self.sizes
        if self.sizes is not None:
            self.targets = context_library_sizes(self.sizes, np.asarray(cells.contexts))
        self.limit = LOG1P_BELOW if cells.scale == "log1p" else np.inf
        self.rows: Any = getattr(cells, "rows", None)
        self.strip: Any = None if self.sizes is not None else getattr(cells, "strip", None)
        if self.rows is not None:
            self._check_rows(self.rows)

    def blocks(self, memory: int) -> Iterator[tuple[int, Any]]:
        """Yield the first gene of each block, and the block."""
        n_genes, width = len(self.cells.genes), ROW_BLOCK
        if self.rows is None:  # more genes fit of a matrix whose zeros are left out
            share = 1.0 if self.strip is None else self.cells.density  # type: ignore[attr-defined]
            width = block_width(int(self.cells.n_cells * share) + 1, n_genes, memory)
        for start in range(0, n_genes, width):
            block = self.block(start, min(start + width, n_genes))
            self.single = block.dtype != np.float64
            ready = [(start, block)]
            del block  # whoever takes it decides when it goes
            yield ready.pop()

    def block(self, start: int, stop: int) -> Any:
        """Return a checked block of genes on the log1p scale."""
        if self.rows is not None:
            return RowRange(self.rows, start, stop)
        if self.strip is not None:
            part = self.strip(start, stop)
            self._check_rows(part)
            return RowRange(part, start, stop)
        block: Any = self.cells.gene_block(start, stop)
        values = block.data if hasattr(block, "indptr") else block
        if values.size and not self._possible(values):
            every = dense(block)
            cell, gene = (int(at) for at in np.argwhere(self._wrong(every))[0])
            raise self._complaint(cell, start + gene, float(every[cell, gene]))
        if self.sizes is None or self.targets is None:
            return block
        return log1p_normalise(block, self.sizes, self.targets)

    def _check_rows(self, rows: Any) -> None:
        data = rows.data
        for start in range(0, data.size, _PIECE):
            piece = data[start : start + _PIECE]
            if not self._possible(piece):
                at = start + int(np.argmax(self._wrong(piece)))
                cell = int(np.searchsorted(rows.indptr, at, side="right")) - 1
                raise self._complaint(cell, int(rows.indices[at]), float(data[at]))

    def _wrong(self, values: np.ndarray) -> np.ndarray:
        wrong: np.ndarray = ~((values >= 0) & (values < self.limit))
        return wrong

    def _possible(self, values: np.ndarray) -> bool:
        """Note what the values are; tell whether all of them can be on their scale."""
        lowest, highest = float(values.min()), float(values.max())
        self.anything |= highest > 0
        self.fractions = self.fractions or has_fractions(values)
        if not (lowest >= 0 and highest < self.limit):  # false for NaN, too
            return False
        if self.cells.scale == "counts" and self.fractions:
            raise DataError(
                f"{self.name}: counts were declared, but values have fractional parts above "
                f"{FRACTION}. Expected whole numbers. Give the counts, or declare log1p."
            )
        return True

    def _complaint(self, cell: int, gene: int, value: float) -> DataError:
        expected = f"finite values in [0, {self.limit:g})"
        return DataError(
            f"{self.name}: values cannot be {self.cells.scale}. Found {value!r} in cell {cell} for "
            f"gene {self.cells.genes[gene]!r}, expected {expected}. "
            "Correct the values, or say what scale they are on."
        )

    def conclude(self) -> None:
        """Refuse whole numbers that were called log1p, once all have been seen."""
        if self.cells.scale == "log1p" and self.anything and not self.fractions:
            raise DataError(
                f"{self.name}: log1p was declared, but all values are whole numbers. "
                "Expected log1p values. Give those, or declare counts."
            )
