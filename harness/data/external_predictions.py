"""Predictions that others wrote, `.h5ad` or AnnData `.zarr`, as cells that scoring can read.

Files store cells by rows, and scoring reads them by genes. A matrix that is small is read once,
front to back, and kept sparse in memory. A larger one is read where it lies if it is stored by rows
and not compressed (`h5ad_strips`); any other is copied to a scratch store beside the system's
other temporary files, which goes when the cells are no longer used.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from harness.data.anndata_file import open_source
from harness.data.array_cells import anndata_cells
from harness.data.h5ad_strips import open_strips
from harness.data.store import PairRange, StoredCells
from harness.data.store_writer import StoreWriter
from harness.kernels import Limits, compressed, has_fractions

if TYPE_CHECKING:
    from harness.data.anndata_matrix import Source
    from harness.data.array_cells import ArrayCells
    from harness.data.cells import Cells, Scale

BLOCK_BYTES = 64 * 1024 * 1024
DEFAULT = Limits()


def open_external(
    path: str,
    *,
    perturbation_column: str,
    context_column: str | None,
    control_label: str,
    scale: Scale | None = None,
    limits: Limits = DEFAULT,
) -> Cells:
    """Return the cells of a foreign file.

    Parameters
    ----------
    path
        `.h5ad` or an AnnData `.zarr`.
    perturbation_column, context_column
        Columns of obs; without a context column all cells share one context.
    control_label
        The perturbation of control cells.
    scale
        What the values are; None: counts where no value has a fractional part above 0.001.
    limits
        Threads, and the memory up to which the matrix is kept there.

    Raises
    ------
    DataError
        The file is damaged, or lacks a column or a label.
    """
    with open_source(path) as source:

        def labelled(matrix: sparse.csr_matrix, scale: Scale | None) -> ArrayCells:
            return anndata_cells(
                SimpleNamespace(X=matrix, obs=source.obs, var_names=source.genes),
                perturbation_column=perturbation_column,
                context_column=context_column,
                control_label=control_label,
                scale=scale,
                name=path,
                threads=limits.n_threads,
            )

        # Columns are checked before the first value is read.
        labels = labelled(sparse.csr_matrix((source.n_cells, source.n_genes)), "log1p")
        whole = _whole(source, limits.memory)
        if whole is not None:
            return labelled(whole, scale)
        strips = open_strips(labels, source, scale, limits.n_threads)
        if strips is not None:
            return strips
        return _spilled(labels, source, scale)


def _whole(source: Source, memory: int) -> sparse.csr_matrix | None:
    """Read the matrix at once, its zeros left out; None where it takes more memory than that.

    Sparse files say how many entries they have; of dense ones the first block tells about how many.
    """
    shape = (source.n_cells, source.n_genes)
    most = min(memory // (source.dtype.itemsize + 4), 2**31 - 1)
    if source.layout != "dense":
        if source.density * shape[0] * shape[1] > most:
            return None
        parts = [block for _, block in source.row_blocks(memory)]
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
    blocks = source.dense_blocks(BLOCK_BYTES)
    first = next(blocks, np.zeros((0, shape[1]), source.dtype))
    if np.count_nonzero(first) / max(1, first.size) * shape[0] * shape[1] > most:
        return None
    return compressed(chain([first], blocks), shape, first.dtype, most)


def _spilled(labels: ArrayCells, source: Source, scale: Scale | None) -> StoredCells:
    """Copy the matrix into a scratch store, which is deleted with the cells."""
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    fractions = False
    sizes: list[np.ndarray] = []
    try:
        with StoreWriter(
            str(folder / "cells.zarr"),
            obs=pd.DataFrame(index=pd.Index(np.arange(source.n_cells).astype(str))),
            var=pd.DataFrame(index=pd.Index(labels.genes)),
            # Foreign cells come in any order: the labels above say what they are, not ranges.
            ranges=[PairRange("", "", 0, source.n_cells)],
            dtype=np.promote_types(source.dtype, np.float32),
            card={"name": source.path},
            scale="log1p",
            control_label=labels.control_label,
        ) as writer:
            for _, block in source.row_blocks(BLOCK_BYTES):
                fractions = fractions or has_fractions(block.data)
                sizes.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
                writer.append(block)
            store = writer.finish()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    cells = StoredCells(store)
    cells.relabel(
        labels.perturbations,
        labels.contexts,
        scale=scale or ("log1p" if fractions else "counts"),
        sizes=np.concatenate(sizes),
    )
    weakref.finalize(cells, shutil.rmtree, folder, ignore_errors=True)
    return cells
