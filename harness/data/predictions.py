"""Predictions on disk: written as they are made, and read by blocks of genes.

A prediction is laid out as a store: cells sorted into one range per pair, `obs` with `perturbation`
and `context`, log1p values, readable by `anndata.read_zarr`. Before the predicted cells stand the
controls that they are measured from, the ones that the model was shown. A scratch prediction,
deleted once it is scored, can do without them (`controls=None`) and be opened `with_controls`, that
are read where they lie: they can be a third of the file.

Profiles are a prediction with one cell per pair, so that whatever reads the one reads the other.

Files that others wrote, `.h5ad` or AnnData `.zarr`, store cells by rows, and scoring reads them by
genes. A matrix that is small is read once, front to back, and kept sparse in memory. A larger one
is read where it lies if it is stored by rows and not compressed (`h5ad_strips`); any other is
copied to a scratch store beside the system's other temporary files, which goes when the cells are
no longer used.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from harness.data.anndata_file import open_source
from harness.data.array_cells import anndata_cells
from harness.data.h5ad_strips import open_strips
from harness.data.prediction_writer import (
    HeldPredictions,
    PredictionCollector,
    cell_labels,
    fits,
)
from harness.data.store import PairRange, StoredCells, open_store, ranges_of
from harness.data.store_writer import StoreWriter
from harness.data.vcc_archive import SUFFIX, unpacked
from harness.kernels import Limits, compressed, has_fractions
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.data.anndata_matrix import Source
    from harness.data.array_cells import ArrayCells
    from harness.data.cells import Cells, Scale, StoreCells
    from harness.data.prediction_writer import PredictionQuery

BLOCK_BYTES = 64 * 1024 * 1024
DEFAULT = Limits()


class PredictionWriter(PredictionCollector):
    """Writes predictions in the order of the queries; nothing is there until `publish`.

    Use as a context manager: what is left without `publish` leaves no file.

    Parameters
    ----------
    path
        The folder to write; a Zarr store.
    queries
        What must be answered, in this order.
    genes
        The columns.
    control_label
        The perturbation of control cells.
    controls
        The controls to write before the predicted cells; None leaves them out.
    model
        For messages and the file's card.
    compression
        ``none`` for a prediction that is deleted once it is scored.
    temporary
        Whether this process deletes it; see `StoreWriter`.
    """

    def __init__(  # noqa: PLR0913 - all but two by keyword, and no two belong together
        self,
        path: str,
        queries: Sequence[PredictionQuery],
        *,
        genes: Sequence[str],
        control_label: str,
        controls: StoreCells | None = None,
        model: str = "model",
        compression: Literal["zstd", "none"] = "zstd",
        temporary: bool = False,
    ) -> None:
        super().__init__(queries, genes, model)
        names, contexts = cell_labels(queries)
        if controls is not None:
            names = np.concatenate([controls.perturbations, names])
            contexts = np.concatenate([controls.contexts, contexts])
        self._writer = StoreWriter(
            path,
            obs=_frame({"perturbation": names, "context": contexts}),
            var=_frame({}, index=genes),
            ranges=ranges_of(contexts, names),
            dtype="float32",
            card={"name": f"predictions of {model}"},
            scale="log1p",
            control_label=control_label,
            compression=compression,
            temporary=temporary,
        )
        if controls is not None:
            for _, block in controls.blocks():
                self._writer.append(block)

    def keep(self, cells: np.ndarray) -> None:
        """Write the cells that answer the next query."""
        self._writer.append(cells)

    def publish(self) -> None:
        """Give the file its name; `ModelError` where queries are unanswered."""
        super().publish()
        self._writer.publish()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._writer.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)

    @property
    def result(self) -> str:
        """The file's path."""
        return self._writer.path

    def finish(self) -> StoredCells:
        """Publish the file and open it; `ModelError` where queries are unanswered."""
        self.publish()
        return StoredCells(open_store(self.result))


def scratch_predictions(
    path: str,
    queries: Sequence[PredictionQuery],
    *,
    genes: Sequence[str],
    control_label: str,
    model: str = "model",
) -> PredictionWriter | HeldPredictions:
    """Take predictions that are scored at once: held in memory if they are few, else in a file.

    The ``result`` is then what to score, without controls: the file's path, or what is held. The
    parameters are those of `PredictionWriter`.
    """
    asked: Any = {"genes": genes, "control_label": control_label, "model": model}
    if fits(sum(query.n_cells for query in queries), len(genes)):
        return HeldPredictions(queries, **asked)
    return PredictionWriter(path, queries, **asked, compression="none", temporary=True)


def write_profiles(
    path: str,
    queries: Sequence[PredictionQuery],
    profiles: np.ndarray,
    *,
    genes: Sequence[str],
    control_label: str,
    controls: Mapping[str, np.ndarray],
) -> None:
    """Write one profile for each query and for each context's controls, on the log1p scale.

    Parameters
    ----------
    path
        The folder to write; reads like a prediction whose pairs have one cell each.
    queries, profiles
        What was asked, and (n_queries, n_genes) the answers.
    genes
        The columns.
    control_label, controls
        The controls' perturbation, and (n_genes,) their profile by context.
    """
    contexts = [*controls, *(query.context for query in queries)]
    names = [*(control_label for _ in controls), *(query.perturbation for query in queries)]
    obs = _frame({"perturbation": names, "context": contexts})
    with StoreWriter(
        path,
        obs=obs,
        var=_frame({}, index=list(genes)),
        ranges=ranges_of(contexts, names),
        dtype="float64",
        card={"name": "profiles"},
        scale="log1p",
        control_label=control_label,
    ) as writer:
        for profile in controls.values():
            writer.append(profile[None, :])
        writer.append(profiles)
        writer.publish()


def open_predictions(
    path: str,
    *,
    perturbation_column: str = "target_gene",
    context_column: str | None = None,
    control_label: str = "non-targeting",
    scale: Scale | None = None,
    limits: Limits = DEFAULT,
) -> Cells:
    """Open predictions: ours, a foreign `.h5ad` or AnnData `.zarr`, or a `.vcc` archive.

    Parameters
    ----------
    path
        A prediction or store of ours says itself what its labels and scale are; what follows is
        for other files.
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
    if is_store(path):
        return StoredCells(open_store(path))
    with (
        unpacked(path) if path.endswith(SUFFIX) else nullcontext(path) as file,
        open_source(file) as source,
    ):

        def labelled(matrix: sparse.csr_matrix, scale: Scale | None) -> ArrayCells:
            return anndata_cells(
                SimpleNamespace(X=matrix, obs=source.obs, var_names=source.genes),
                perturbation_column=perturbation_column,
                context_column=context_column,
                control_label=control_label,
                scale=scale,
                name=str(file),
                threads=limits.n_threads,
            )

        # Columns are checked before the first value is read.
        labels = labelled(sparse.csr_matrix((source.n_cells, source.n_genes)), "log1p")
        whole = _whole(source, limits.memory)
        if whole is not None:
            return labelled(whole, scale)
        strips = open_strips(labels, source, scale, limits.n_threads)
        return _spilled(labels, source, scale) if strips is None else strips


def with_controls(path: str, controls: Cells) -> StoredCells:
    """Open a prediction that was written without controls, with those it is measured from."""
    return StoredCells(open_store(path), controls)


def is_store(path: str) -> bool:
    """Whether there is a store or prediction of ours, and not a foreign file or nothing."""
    root = paths.join(path, "zarr.json")
    if not paths.exists(root):
        return False
    described = json.loads(paths.read_text(root))
    return "harness" in described.get("attributes", {})


def _frame(columns: Mapping[str, Any], index: Sequence[str] | None = None) -> pd.DataFrame:
    data = {name: pd.Categorical(values) for name, values in columns.items()}
    frame = pd.DataFrame(data, index=None if index is None else pd.Index(index))
    frame.index = frame.index.astype(str)
    return frame


# --- predictions that others wrote --------------------------------------------------------------


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
