"""How far two populations of cells lie apart: energy distance and maximum mean discrepancy.

Both are means over pairs of cells, of the distance or of a kernel of it, so all distances within
and between the two populations are needed, but never together: they are computed a tile of cells
at a time. Tiles are kept from one use to the next where they fit in memory; where they do not, they
are computed again, which the median that sets the kernel's width takes four times. What was given
up is time for populations of many thousands of cells, not exactness.

Everything is float64: the results are small differences between means that are nearly equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SLICE = 2048
"""Genes converted to float64 together."""

COINCIDENT = 1e-12
"""Cells whose squared distance is a smaller share of their squared norms count as the same cell.

It is what is left of |x|² + |y|² - 2xy by rounding, and less than float32 values tell apart."""

_DIGIT = 16
"""Bits by which the median is found at a time."""

Kind = Literal["x", "y", "xy"]


@dataclass(frozen=True, slots=True)
class Population:
    """Cells, taken a few at a time.

    Parameters
    ----------
    take
        Gives cells `start` to `stop`: (stop - start, n_genes).
    n_cells
        How many there are.
    """

    take: Callable[[int, int], np.ndarray]
    n_cells: int

    def tiles(self, size: int) -> Iterator[tuple[int, int]]:
        """Cut the cells into tiles of `size`; the last may be smaller."""
        for start in range(0, self.n_cells, size):
            yield start, min(start + size, self.n_cells)


@dataclass(frozen=True, slots=True)
class Apart:
    """How far each pair's predicted cells lie from its true ones; NaN where that is undefined.

    Parameters
    ----------
    energy, mmd2
        (n_pairs,) of `Distances`.
    """

    energy: np.ndarray
    mmd2: np.ndarray

    def of(self, rows: np.ndarray) -> Apart:
        """Return some pairs."""
        return Apart(self.energy[rows], self.mmd2[rows])


@dataclass
class Distances:
    """All squared Euclidean distances within and between two populations, each pair once.

    Parameters
    ----------
    x, y
        The two populations.
    centre
        (n_genes,) subtracted from all cells. It changes no distance; near the cells it spares
        digits.
    tile
        Cells of either side taken together.
    keep
        Bytes that all distances may take and be kept.
    """

    x: Population
    y: Population
    centre: np.ndarray
    tile: int = 1024
    keep: int = 1 << 28
    _kept: list[tuple[Kind, np.ndarray]] = field(default_factory=list, init=False, repr=False)

    @property
    def n_pairs(self) -> dict[Kind, int]:
        """The number of pairs of cells within `x`, within `y` and between them."""
        n, m = self.x.n_cells, self.y.n_cells
        return {"x": n * (n - 1) // 2, "y": m * (m - 1) // 2, "xy": n * m}

    def energy(self) -> float:
        """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| over pairs of different cells.

        The U-statistic, which is 0 on average for two samples of one population. NaN where either
        side has fewer than two cells.
        """
        if min(self.x.n_cells, self.y.n_cells) < 2:
            return float("nan")
        means = self._means(np.sqrt)
        return 2.0 * means["xy"] - means["x"] - means["y"]

    def mmd2(self) -> float:
        """Return E k(X, X') + E k(Y, Y') - 2 E k(X, Y) over pairs of different cells.

        k(a, b) = exp(-|a - b|² / 2σ²), with σ the median distance among all pairs of different
        cells of both sides together. NaN where either side has fewer than two cells or σ is zero.
        """
        width = self.median() if min(self.x.n_cells, self.y.n_cells) >= 2 else 0.0
        if width == 0:
            return float("nan")
        means = self._means(lambda squared: np.exp(squared / (-2.0 * width * width)))
        return means["x"] + means["y"] - 2.0 * means["xy"]

    def median(self) -> float:
        """Return the median distance among all pairs of different cells of both sides together."""
        middle = middle_values(
            lambda: (squared for _, squared in self._tiles()), sum(self.n_pairs.values())
        )
        return float(np.sqrt(middle).mean())

    def _means(self, function: Callable[[np.ndarray], np.ndarray]) -> dict[Kind, float]:
        sums: dict[Kind, float] = {"x": 0.0, "y": 0.0, "xy": 0.0}
        for kind, squared in self._tiles():
            sums[kind] += float(function(squared).sum())
        return {kind: sums[kind] / number for kind, number in self.n_pairs.items()}

    def _tiles(self) -> Iterable[tuple[Kind, np.ndarray]]:
        if self._kept or 8 * sum(self.n_pairs.values()) > self.keep:
            return self._kept or self._computed()
        self._kept = list(self._computed())
        return self._kept

    def _computed(self) -> Iterator[tuple[Kind, np.ndarray]]:
        """Yield every tile's squared distances, flat."""
        for start, stop in self.x.tiles(self.tile):
            cells = self.x.take(start, stop)
            yield from self._within("x", cells, start)
            for first, last in self.y.tiles(self.tile):
                others = self.y.take(first, last)
                yield "xy", squared_distances(cells, others, self.centre).ravel()
        for start, stop in self.y.tiles(self.tile):
            yield from self._within("y", self.y.take(start, stop), start)

    def _within(
        self, kind: Literal["x", "y"], cells: np.ndarray, start: int
    ) -> Iterator[tuple[Kind, np.ndarray]]:
        """Yield the distances of some cells to each other, then to those of their side before."""
        own = squared_distances(cells, cells, self.centre)
        yield kind, own[np.tril_indices(len(cells), -1)]
        side = self.x if kind == "x" else self.y
        for first in range(0, start, self.tile):
            before = side.take(first, first + self.tile)
            yield kind, squared_distances(cells, before, self.centre).ravel()


def squared_distances(x: np.ndarray, y: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return |x|² + |y|² - 2xy of every pair of rows, both centred: (len(x), len(y)) float64.

    0 where that is rounding error (`COINCIDENT`).
    """
    products = np.zeros((len(x), len(y)))
    norms = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], SLICE):
        genes = slice(start, start + SLICE)
        a = x[:, genes].astype(np.float64) - centre[genes]
        b = a if y is x else y[:, genes].astype(np.float64) - centre[genes]
        products += a @ b.T
        norms += np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)
    squared = norms - 2.0 * products
    squared[squared <= COINCIDENT * norms] = 0.0
    return squared


def middle_values(parts: Callable[[], Iterable[np.ndarray]], n: int) -> np.ndarray:
    """Return the two middle values of `n` non-negative ones, seen a part at a time: (2,) float64.

    The same value twice where `n` is odd; their mean is the median, exactly. Non-negative floats
    are ordered as their bits are, so the bits are found a digit at a time, the highest first, by
    counting the values that share those found so far: nothing is sorted or kept.

    Parameters
    ----------
    parts
        Gives all values, flat float64 arrays, each time it is called: four times.
    n
        How many there are; at least one.
    """
    ranks, found = [(n - 1) // 2, n // 2], [0, 0]
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        counts = {prefix: np.zeros(1 << _DIGIT, np.int64) for prefix in found}
        for part in parts():
            bits = np.ascontiguousarray(part).view(np.uint64) >> np.uint64(shift)
            for prefix, count in counts.items():
                digits = bits[bits >> np.uint64(_DIGIT) == prefix] & np.uint64((1 << _DIGIT) - 1)
                count += np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT)
        for which, (rank, prefix) in enumerate(zip(ranks, found, strict=True)):
            below = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(below, rank, side="right"))
            ranks[which] = rank - (int(below[digit - 1]) if digit else 0)
            found[which] = prefix << _DIGIT | digit
    return np.array(found, dtype=np.uint64).view(np.float64)
