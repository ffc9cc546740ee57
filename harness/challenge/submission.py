"""The challenge's file format of 2025: prepare a submission, and check one.

A submission is an archive (`harness.data.vcc_archive`) of an `.h5ad`: the challenge's genes in the
challenge's order, one column ``target_gene``, controls among the cells, raw counts or log1p values
as float32. Preparing checks everything, converts counts to log1p as the challenge's own tool does,
and repairs nothing: genes are not reordered and cells not dropped.

A prediction is read and written a few cells at a time, so that memory does not grow with it. What
it gave up: room beside the output for the uncompressed file, which HDF5 needs.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from harness.challenge.checks import (
    CONTROL,
    Rules,
    Values,
    column_labels,
    gene_problems,
    label_problems,
    read_genes,
    read_perturbations,
)
from harness.data import (
    CHUNK_ROWS,
    MAX_UNPACKED,
    SUFFIX,
    H5adWriter,
    from_dense,
    is_store,
    open_source,
    open_store,
    pack,
    unpacked,
)
from harness.errors import DataError, listed, near_match
from harness.kernels import available_threads, log1p_normalise, median_library_size
from harness.storage import publish, scratch_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scipy import sparse

    from harness.data import Source

__all__ = [
    "Layout",
    "Prepared",
    "Rules",
    "check_submission",
    "prepare",
    "read_genes",
    "read_perturbations",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Blocks: TypeAlias = "Iterator[tuple[int, sparse.csr_matrix]]"

COLUMN = "target_gene"
BLOCK_BYTES = 16 * 1024 * 1024
"""Larger blocks are no faster and cost several times their size in memory."""


class Progress(Protocol):
    """Called with a stage, how much of it is done, all of it, and the unit."""

    def __call__(self, stage: str, done: int, total: int, unit: str = "cells") -> None:
        """Show it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a prediction calls things.

    Attributes
    ----------
    perturbation_column, context_column
        Columns of obs; a store of ours knows its own.
    control
        The perturbation of control cells; None: the store's own, else ``non-targeting``.
    context
        The one to submit; None where there is only one.
    """

    perturbation_column: str = COLUMN
    context_column: str | None = None
    control: str | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written.

    Attributes
    ----------
    scale
        Of the prediction: ``counts`` or ``log1p``.
    library_size
        The total count that each cell was scaled to; None where nothing was converted.
    n_bytes
        Size of the archive.
    """

    path: str
    n_cells: int
    n_genes: int
    n_perturbations: int
    scale: str
    library_size: float | None
    n_bytes: int


# --- preparing ----------------------------------------------------------------------------------


def prepare(  # noqa: PLR0913 - the public face: each option is one of the command's
    prediction: str,
    out: str,
    rules: Rules,
    layout: Layout | None = None,
    *,
    encoding: Literal[32, 64] = 32,
    keep_counts: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Write a prediction as a submission; nothing is there before it is whole.

    Parameters
    ----------
    prediction
        A prediction or store of ours, an `.h5ad`, an AnnData `.zarr`, or a submission.
    out
        The archive, NAME.vcc. It must not exist; scratch files lie beside it meanwhile.
    rules, layout
        What to check against; how to read the prediction.
    encoding
        Bits of a value. The challenge asks for 32.
    keep_counts
        Leave counts as they are; by default each cell is scaled to the median total count of all
        cells and log(1 + x) is taken.

    Raises
    ------
    DataError
        The prediction cannot be submitted; the text has a line for each reason.
    FileExistsError
        There is something at `out`.
    """
    final, scratch = Path(out), Path(scratch_name(out))
    if final.exists():
        raise FileExistsError(f"{out} exists already and is never overwritten. Remove it first.")
    if final.suffix != SUFFIX:
        raise DataError(f"{out}: a submission is called NAME{SUFFIX}. Change the output's name.")
    if not final.parent.is_dir():
        raise DataError(f"{out}: there is no folder {str(final.parent)!r}. Make it first.")
    report = progress or _silent
    try:
        with _opened(prediction, layout or Layout()) as given:
            _refuse(given.problems(rules))
            scratch.mkdir()
            cells, archive = scratch / "pred.h5ad", scratch / "archive"
            scale, library_size = _write_cells(given, cells, encoding, report, keep=keep_counts)
        packed = partial(report, "compressing", unit="bytes")
        pack(cells, archive, threads=available_threads(), progress=packed)
        n_bytes = archive.stat().st_size
        publish(str(archive), out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Prepared(
        out,
        n_cells=given.n_cells,
        n_genes=len(given.genes),
        n_perturbations=len(set(given.labels.tolist()) - {given.control}),
        scale=scale,
        library_size=library_size,
        n_bytes=n_bytes,
    )


def _silent(stage: str, done: int, total: int, unit: str = "cells") -> None:
    """Show nothing."""


def _refuse(problems: list[str]) -> None:
    if problems:
        raise DataError("\n".join(problems))


def _write_cells(
    given: _Given, file: Path, encoding: int, report: Progress, *, keep: bool
) -> tuple[str, float | None]:
    """Write the cells; return their scale, and the library size if they were normalised."""
    dtype, library_size = f"float{encoding}", None
    labels = np.where(given.labels == given.control, CONTROL, given.labels)
    values = Values(given.n_cells)
    with H5adWriter(file, columns={COLUMN: labels}, genes=given.genes, dtype=dtype) as writer:
        for first, block in given.blocks():
            writer.append(values.take(first, block, dtype))
            report("checking and writing", first + block.shape[0], given.n_cells)
        _refuse(values.problems(given.path, given.cells.tolist(), given.genes))
        if values.scale == "counts" and not keep:
            library_size = median_library_size(values.sizes)
            writer.rewrite(partial(_normalised, values.sizes, library_size), BLOCK_BYTES // 8)
        writer.finish()
    return values.scale, library_size


def _normalised(sizes: Array, library_size: float, entries: Array, rows: Array) -> Array:
    # each entry as a cell of one gene, so that there is one definition of normalising
    column: Array = log1p_normalise(entries[:, None], sizes[rows], library_size)
    return column[:, 0]


# --- checking -----------------------------------------------------------------------------------


def check_submission(
    path: str, rules: Rules | None = None, *, max_unpacked: int = MAX_UNPACKED
) -> list[str]:
    """Return all that is wrong with a submission; nothing where it is acceptable.

    Parameters
    ----------
    path
        The archive, NAME.vcc.
    rules
        What to check against; without genes or perturbations, only that they are consistent.
    max_unpacked
        Bytes that it may unpack to.
    """
    try:
        with _opened(path, Layout(), max_unpacked) as given:
            problems = given.problems(rules or Rules())
            if given.dtype.kind != "f" or given.dtype.itemsize < 4:
                problems.append(
                    f"{given.path}: X holds values of type {given.dtype}, expected float32. Make "
                    "the archive with `harness prep`."
                )
            values = Values(given.n_cells)
            for first, block in given.blocks():
                values.take(first, block, "float32")
            return problems + values.problems(path, given.cells.tolist(), given.genes)
    except DataError as error:
        return [str(error)]


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """A prediction as it was given: the cells that are to be submitted."""

    path: str
    genes: tuple[str, ...]
    cells: Array  # names, for messages
    labels: Array
    control: str
    dtype: np.dtype[Any]
    _read: Callable[[], Blocks]
    _kept: Array

    @property
    def n_cells(self) -> int:
        return len(self.labels)

    def problems(self, rules: Rules) -> list[str]:
        """List what is wrong with genes and labels."""
        genes = gene_problems(self.path, self.genes, rules)
        return genes + label_problems(self.path, self.labels, self.control, rules)

    def blocks(self) -> Blocks:
        """Yield the cells, some at a time, with the number of the first."""
        done = 0
        for first, block in self._read():
            kept = self._kept[first : first + block.shape[0]]
            if kept.any():
                yield done, block if kept.all() else block[kept]
                done += int(kept.sum())


@contextmanager
def _opened(path: str, layout: Layout, max_unpacked: int = MAX_UNPACKED) -> Iterator[_Given]:
    if path.endswith(SUFFIX):
        with unpacked(path, max_unpacked=max_unpacked) as file, open_source(file) as source:
            yield _from_source(path, source, layout)
    elif is_store(path):
        yield _from_store(path, layout)
    else:
        with open_source(path) as source:
            yield _from_source(path, source, layout)


def _from_source(path: str, source: Source, layout: Layout) -> _Given:
    labels = column_labels(path, source.obs, layout.perturbation_column)
    contexts = None
    if layout.context_column is not None:
        contexts = column_labels(path, source.obs, layout.context_column)
    kept = _in_context(path, contexts, len(labels), layout)
    return _Given(
        path,
        source.genes,
        np.asarray(source.obs.index)[kept],
        labels[kept],
        layout.control or CONTROL,
        source.dtype,
        lambda: source.row_blocks(BLOCK_BYTES),
        kept,
    )


def _from_store(path: str, layout: Layout) -> _Given:
    store = open_store(path)
    sizes = [found.stop - found.start for found in store.ranges]
    labels = np.repeat(np.array([found.perturbation for found in store.ranges]), sizes)
    contexts = np.repeat(np.array([found.context for found in store.ranges]), sizes)
    kept = _in_context(path, contexts, len(labels), layout)

    def read() -> Blocks:
        for start in range(0, store.n_cells, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, store.n_cells)
            yield start, from_dense(store.rows(start, stop))

    return _Given(
        path,
        store.genes,
        np.flatnonzero(kept),
        labels[kept],
        layout.control or store.control_label,
        store.dtype,
        read,
        kept,
    )


def _in_context(path: str, contexts: Array | None, n_cells: int, layout: Layout) -> Array:
    """Mark the cells of the context to submit: (n_cells,) bool."""
    found = [] if contexts is None else sorted(set(contexts.tolist()))
    if layout.context is None:
        if len(found) > 1:
            raise DataError(
                f"{path}: found {len(found)} contexts, {listed(found)}, expected one: this format "
                "has no column for them. Say which to submit (--context)."
            )
        return np.ones(n_cells, dtype=bool)
    if layout.context not in found:
        raise DataError(
            f"{path}: no cell is of context {layout.context!r}. "
            f"{near_match(layout.context, found)} Correct --context, or name the column of "
            "contexts (--context-column)."
        )
    assert contexts is not None, "some were found"
    chosen: Array = contexts == layout.context
    return chosen
