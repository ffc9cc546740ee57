"""A screen in memory, and a tiny one drawn with effects that a model can learn."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.kernels import median_library_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data import Scale


class PairRange(NamedTuple):
    """Where the cells of one pair, or the controls of one context, lie."""

    context: str
    perturbation: str
    start: int
    stop: int


class MemoryScreen:
    """A screen in memory that answers as a store does.

    Parameters
    ----------
    cells
        (n_cells, n_genes) counts or log1p values, sorted by context and perturbation.
    genes
        (n_genes,) names.
    ranges
        Rows of each pair and of each context's controls, together all rows in order.
    scale
        What the values are.
    separator
        What joins the names of a combination.
    """

    control_label = "control"

    def __init__(
        self,
        cells: np.ndarray,
        genes: Sequence[str],
        ranges: Sequence[PairRange],
        scale: Scale = "counts",
        separator: str | None = "+",
    ) -> None:
        self.genes = tuple(genes)
        self.ranges = tuple(ranges)
        self.scale: Scale = scale
        self.card: dict[str, Any] = {"name": "memory", "combination_separator": separator}
        self._cells = cells
        self._sizes = cells.sum(axis=1, dtype=np.float64)

    @property
    def fingerprint(self) -> str:
        """A digest of the values."""
        return blake2b(np.ascontiguousarray(self._cells).tobytes(), digest_size=16).hexdigest()

    @property
    def library_size(self) -> float | None:
        """The median total count over the cells that have any, for counts."""
        return median_library_size(self._sizes) if self.scale == "counts" else None

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return some cells: (stop - start, n_genes)."""
        return self._cells[start:stop]

    def gene_block(
        self, start: int, stop: int, first: int = 0, last: int | None = None
    ) -> np.ndarray:
        """Return some genes of the cells ``first:last``: cells by genes."""
        return self._cells[first:last, start:stop]

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell: (n_cells,)."""
        sizes: np.ndarray = self._sizes
        return sizes

    def batches(self) -> np.ndarray | None:
        """Return nothing: no cell has a batch."""
        return None

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Return the names in a perturbation that are genes of the screen."""
        separator = self.card["combination_separator"]
        names = perturbation.split(separator) if separator else [perturbation]
        return tuple(name for name in names if name in self.genes)


def tiny_screen(  # noqa: PLR0913 - what a screen can differ in, all by keyword
    *,
    contexts: Sequence[str] = ("c0", "c1"),
    n_perturbations: int = 12,
    n_combinations: int = 4,
    n_cells: int = 20,
    n_controls: int | None = None,
    shared: float | Mapping[str, float] = 0.8,
    silencing: float = 2.0,
    seed: int = 0,
) -> MemoryScreen:
    """Draw a screen of counts on 60 genes, whose effects follow gene programmes.

    Every perturbation also has a part of its effect in common with all others, as cells that are
    stressed have.

    Parameters
    ----------
    contexts
        Their names. Base expression differs between them.
    n_perturbations, n_combinations
        Perturbations of one gene, named after it, and of two of these genes, whose effects add.
    n_cells, n_controls
        Cells of each pair, and controls of each context: three times as many where nobody says.
    shared
        Share of the effects' variance that contexts have in common: 0 for none, 1 for all; for all
        alike, or for each by name.
    silencing
        Natural logarithm by which a target is lowered in every context, whatever they share.
    seed
        For everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    genes = [f"G{i:02d}" for i in range(60)]
    singles = genes[:n_perturbations]
    combined = [f"{singles[i]}+{singles[i + 1]}" for i in range(n_combinations)]
    loadings = rng.normal(size=(len(genes), 6))
    stress = rng.normal(0, 0.3, size=len(genes))
    common = _effects(rng, loadings, len(singles))
    shares = shared if isinstance(shared, Mapping) else dict.fromkeys(contexts, shared)
    base = rng.gamma(1.0, 1.0, size=len(genes)) + 0.2
    blocks: list[np.ndarray] = []
    ranges: list[PairRange] = []
    for context in sorted(contexts):
        own, share = _effects(rng, loadings, len(singles)), shares[context]
        mixed = np.sqrt(share) * common + np.sqrt(1 - share) * own
        mixed[np.arange(len(singles)), np.arange(len(singles))] = -silencing
        effects = dict(zip(singles, mixed, strict=True))
        means = base * np.exp(rng.normal(0, 0.3, size=len(genes)))
        for name in sorted([*singles, *combined, MemoryScreen.control_label]):
            control = name == MemoryScreen.control_label
            effect = 0.0 if control else stress + sum(effects[part] for part in name.split("+"))
            n = (n_controls or 3 * n_cells) if control else n_cells
            cells = _counts(rng, means * np.exp(effect), n)
            start = ranges[-1].stop if ranges else 0
            ranges.append(PairRange(context, name, start, start + len(cells)))
            blocks.append(cells)
    return MemoryScreen(np.concatenate(blocks), genes, ranges)


def _effects(rng: np.random.Generator, loadings: np.ndarray, n: int) -> np.ndarray:
    """Return log fold changes of perturbing the first `n` genes: (n, n_genes).

    Each is the target's loadings sent through a random map, so that genes that vary together do
    alike when perturbed.
    """
    k = loadings.shape[1]
    effects: np.ndarray = 0.07 * loadings[:n] @ rng.normal(size=(k, k)) @ loadings.T
    return effects


def _counts(rng: np.random.Generator, means: np.ndarray, n: int) -> np.ndarray:
    """Draw overdispersed counts of `n` cells of different depth: (n, n_genes) float32."""
    depth = rng.lognormal(np.log(1000), 0.3, size=(n, 1))
    expected = depth * means / means.sum()
    counts: np.ndarray = rng.poisson(expected * rng.gamma(5.0, 0.2, size=expected.shape))
    return counts.astype(np.float32)
