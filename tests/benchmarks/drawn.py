"""Draw the screens that scoring is measured on, straight into `.h5ad`, whatever their size.

M has the cells of a perturbation that the 2026 challenge has, L about what one context of the 2025
challenge has. About 48 % of the values are above zero; cells come in random order; counts are whole
parts of exponentials (geometric: overdispersed, as counts of transcripts are); each perturbation
moves a tenth of the genes. Truth and prediction share genes and effects and differ in their cells.
What is drawn depends on the seed alone. Memory: a few hundred rows at a time.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = {
    # perturbations, cells of each, controls, genes
    "S": (10, 100, 500, 1_000),
    "M": (50, 400, 4_000, 6_000),
    "L": (50, 1_000, 10_000, 18_080),
}
CONTROL = "non-targeting"
NON_ZERO = 0.48
LIBRARY = 1e4
ROWS, PIECE = 500, 1 << 24


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a screen is."""

    perturbations: int
    cells: int
    controls: int
    genes: int

    @classmethod
    def of(cls, size: str, **changed: int | None) -> Shape:
        """Return a size by name, some of its numbers changed."""
        names = ("perturbations", "cells", "controls", "genes")
        numbers = dict(zip(names, SIZES[size], strict=True))
        return cls(**numbers | {name: n for name, n in changed.items() if n is not None})

    @property
    def n_cells(self) -> int:
        """All cells, controls included."""
        return self.perturbations * self.cells + self.controls


def rates(rng: np.random.Generator, n_genes: int) -> np.ndarray:
    """Draw the mean count of each gene such that the share of counts above zero is as wanted."""
    spread = rng.lognormal(0, 1.4, n_genes)
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        if np.exp(-1 / (middle * spread)).mean() < NON_ZERO:
            low = middle
        else:
            high = middle
    return (low * spread).astype(np.float32)


def rows_of(shape: Shape, seed: int, scale: str) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Return the group of each cell, 0 for controls, and an iterator of dense float32 rows."""
    common, own = np.random.default_rng(0), np.random.SeedSequence(seed)
    rate = rates(common, shape.genes)
    moved = common.random((shape.perturbations + 1, shape.genes)) < 0.1
    effect = np.exp(common.normal(0, 0.5, moved.shape) * moved).astype(np.float32)
    effect[0] = 1
    numbers = [shape.controls] + [shape.cells] * shape.perturbations
    rng = np.random.default_rng(own)
    codes = rng.permutation(np.repeat(np.arange(len(numbers)), numbers))
    depth = rng.gamma(12.0, 1 / 12, shape.n_cells).astype(np.float32)

    def some(given: tuple[int, np.random.SeedSequence]) -> np.ndarray:
        start, seed = given
        cells = slice(start, start + ROWS)
        means = effect[codes[cells]] * rate * depth[cells, None]
        drawn = np.random.default_rng(seed).standard_exponential(means.shape, np.float32)
        counts = np.floor(np.multiply(drawn, means, out=drawn), out=drawn)
        if scale == "log1p":
            total = counts.sum(axis=1, dtype=np.float64)
            counts *= (LIBRARY / np.maximum(total, 1)).astype(np.float32)[:, None]
            np.log1p(counts, out=counts)
        return counts

    def blocks() -> Iterator[np.ndarray]:
        starts = range(0, shape.n_cells, ROWS)
        tasks = list(zip(starts, own.spawn(len(starts)), strict=True))
        with ThreadPoolExecutor(2) as pool:
            for first in range(0, len(tasks), 8):  # a few ahead of the writer, not all
                yield from pool.map(some, tasks[first : first + 8])

    return codes, blocks()


def codes_and_rows(shape: Shape, seed: int) -> tuple[np.ndarray, Iterator[sparse.csr_matrix]]:
    """Return the group of each cell, and rows of log1p values as CSR, some at a time."""
    codes, blocks = rows_of(shape, seed, "log1p")
    return codes, (sparse.csr_matrix(block) for block in blocks)


def write_h5ad(
    path: Path,
    shape: Shape,
    seed: int,
    *,
    form: Literal["sparse", "dense"] = "sparse",
    scale: Literal["log1p", "counts"] = "log1p",
) -> None:
    """Write a screen as AnnData does by default: CSR in chunks or dense, float32, uncompressed."""
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    codes, blocks = rows_of(shape, seed, scale)
    names = np.array([CONTROL, *(f"G{i}" for i in range(shape.perturbations))])
    scratch = path.with_suffix(".partial")
    with h5py.File(scratch, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write = _write_dense if form == "dense" else _write_sparse
        write(file, blocks, (shape.n_cells, shape.genes))
        obs = pd.DataFrame({"target_gene": pd.Categorical(names[codes])})
        obs.index = obs.index.astype(str)
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"G{i}" for i in range(shape.genes)]))
    scratch.rename(path)


def _write_dense(file: Any, blocks: Iterator[np.ndarray], shape: tuple[int, int]) -> None:
    matrix = file.create_dataset("X", shape, "f4")
    matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    at = 0
    for block in blocks:
        matrix[at : at + len(block)] = block
        at += len(block)


def _write_sparse(file: Any, blocks: Iterator[np.ndarray], shape: tuple[int, int]) -> None:
    """Entries go through scratch files: how many there are is known at the end."""
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = shape
    ends = [np.zeros(1, np.int64)]
    with tempfile.TemporaryFile() as data, tempfile.TemporaryFile() as indices:
        for block in blocks:
            rows = sparse.csr_matrix(block)
            ends.append(rows.indptr[1:] + ends[-1][-1])
            rows.data.tofile(data)
            rows.indices.astype(np.int32).tofile(indices)
        indptr = np.concatenate(ends)
        for name, kind, source in (("data", "f4", data), ("indices", "i4", indices)):
            source.seek(0)
            # May be resized, as AnnData makes them, and is therefore in chunks of h5py's choice.
            target = group.create_dataset(name, (int(indptr[-1]),), kind, maxshape=(None,))
            for start in range(0, len(target), PIECE):
                target[start : start + PIECE] = np.fromfile(source, kind, PIECE)
    group.create_dataset("indptr", data=indptr.astype(np.int32), maxshape=(None,))
