"""Draw the screen that conversion and reading are measured on: streamed into a gzip `.h5ad`.

50,000 cells × 18,080 genes of raw counts, about 24 % of them above zero, cells of 60 perturbations
and the control in random order, as sequencing leaves them. Written as AnnData writes CSR with
``compression="gzip"``: same encoding, same level and the chunk sizes that h5py would choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from h5py._hl.filters import guess_chunk
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

N_CELLS, N_GENES = 50_000, 18_080
BLOCK = 1_000


def draw_labels(rng: np.random.Generator, n_cells: int) -> np.ndarray:
    """Return a perturbation for each cell: 15 % control, the rest spread over 60, unevenly."""
    share = rng.uniform(0.3, 1.3, 60)
    names = ["non-targeting", *(f"G{i}" for i in range(60))]
    return rng.choice(names, n_cells, p=[0.15, *(0.85 * share / share.sum())])


def draw_blocks(rng: np.random.Generator, n_cells: int, n_genes: int):
    """Yield CSR blocks of negative-binomial counts, deep enough for 24 % non-zero."""
    mean = np.exp(rng.normal(-2.0, 2.0, n_genes))
    mean /= mean.sum()
    for start in range(0, n_cells, BLOCK):
        n = min(BLOCK, n_cells - start)
        depth = rng.lognormal(np.log(16_000), 0.4, (n, 1))
        rate = (depth * mean * rng.gamma(4, 0.25, (n, 1))).astype("f4")
        yield sparse.csr_matrix(rng.poisson(rate).astype("f4"))


def write_screen(path: Path, n_cells: int = N_CELLS, n_genes: int = N_GENES, seed: int = 0) -> None:
    """Write the screen, a thousand cells at a time."""
    rng = np.random.default_rng(seed)
    labels = draw_labels(rng, n_cells)
    size = (int(0.24 * n_cells * n_genes),)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        matrix.attrs["shape"] = (n_cells, n_genes)
        parts = {
            name: matrix.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                dtype=dtype,
                chunks=guess_chunk(size, None, 4),
                compression="gzip",
            )
            for name, dtype in (("data", "f4"), ("indices", "i4"))
        }
        indptr = [np.zeros(1, "i8")]
        for block in draw_blocks(rng, n_cells, n_genes):
            for name, dataset in parts.items():
                dataset.resize((dataset.shape[0] + block.nnz,))
                dataset[-block.nnz :] = getattr(block, name)
            indptr.append(block.indptr[1:] + indptr[-1][-1])
        matrix.create_dataset("indptr", data=np.concatenate(indptr), compression="gzip")
        obs = pd.DataFrame(
            {"target_gene": pd.Categorical(labels), "cell_line": pd.Categorical(["H1"] * n_cells)},
            index=[f"cell{i}" for i in range(n_cells)],
        )
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
