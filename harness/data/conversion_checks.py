"""What a conversion refuses: labels before the matrix is touched, values block by block.

Every refusal is a `DataError` that names the first cells or genes and says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from harness.data.cards import correction
from harness.data.store import ranges_of
from harness.errors import DataError, listed, near_match

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scipy import sparse

    from harness.data.anndata_matrix import Source
    from harness.data.cards import Card
    from harness.data.store import PairRange

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGEST_LOG1P = 15.0
"""exp(15) is three million: no cell has so many counts of one gene, so these are not log1p."""
TELLING = 1000
"""So many values, all whole numbers, are not log1p: log(1 + x) of a count never is one."""


def read_labels(source: Source, card: Card) -> tuple[Array, tuple[PairRange, ...]]:
    """Check the annotation of a source against its card, and sort its cells.

    Returns the order of cells in the store, as row numbers of the source, and the pairs' ranges.
    """
    where = f"{source.path} ({card.name})"
    _check_columns(where, source, card)
    _check_unique(where, "cells", source.obs.index)
    genes = source.var.index if card.gene_column is None else source.var[card.gene_column]
    _check_unique(where, "genes", genes)
    cells = source.obs.index
    perturbation = _codes(where, "perturbation", source.obs[card.columns.perturbation], cells)
    if card.columns.context is None:
        context = np.array([card.context_label]), np.zeros(len(cells), dtype="i8")
    else:
        context = _codes(where, "context", source.obs[card.columns.context], cells)
    order = np.lexsort((perturbation[1], context[1]))  # stable: ties stay as in the source
    ranges = ranges_of(context[0][context[1][order]], perturbation[0][perturbation[1][order]])
    # The largest first: where the control label is wrong, the right one is mostly among these.
    largest = np.argsort(-np.bincount(perturbation[1]), kind="stable")
    _check_controls(where, card, ranges, [str(perturbation[0][i]) for i in largest])
    return order, ranges


def _check_columns(where: str, source: Source, card: Card) -> None:
    columns = card.columns
    wanted = {
        "columns.perturbation": columns.perturbation,
        "columns.context": columns.context,
        "columns.batch": columns.batch,
        "target_column": card.target_column,
    }
    frames = [("obs", source.obs, wanted), ("var", source.var, {"gene_column": card.gene_column})]
    problems = [
        f"column {column!r} ({key}) is not in {name}. {near_match(column, list(map(str, frame)))} "
        f"{correction(card, key)}"
        for name, frame, keys in frames
        for key, column in keys.items()
        if column is not None and column not in frame
    ]
    if problems:
        raise DataError(f"{where}: {' And '.join(problems)}")


def _check_unique(where: str, kind: str, names: pd.Index[Any] | pd.Series[Any]) -> None:
    unnamed = int(np.count_nonzero(names.isna()))
    if unnamed:
        raise DataError(f"{where}: {unnamed} {kind} have no name. Name them.")
    repeated = pd.Index(names)[pd.Index(names).duplicated()].unique()
    if len(repeated):
        advice = (
            "Name a column of unique names as gene_column in the card, or sum the duplicates."
            if kind == "genes"
            else "Make the names unique, for example by adding the batch to each."
        )
        raise DataError(f"{where}: {kind} {listed(repeated)} occur more than once. {advice}")


def _codes(
    where: str, kind: str, column: pd.Series[Any], cells: pd.Index[Any]
) -> tuple[Array, Array]:
    """Return the sorted labels, and for each cell the number of its label."""
    codes, found = pd.factorize(column)
    names = np.array([str(name) for name in found], dtype=object)
    empty = (codes < 0) | np.isin(codes, [i for i, name in enumerate(names) if not name.strip()])
    if empty.any():
        raise DataError(
            f"{where}: {int(empty.sum())} cells have no {kind} in column {column.name!r}: "
            f"{listed(cells[empty])}. Label them, or remove them from the source."
        )
    labels, number = np.unique(names.astype(str), return_inverse=True)
    return labels, number[codes]


def _check_controls(where: str, card: Card, ranges: Iterable[PairRange], labels: list[str]) -> None:
    controlled = {found.context for found in ranges if found.perturbation == card.control_label}
    if not controlled:
        raise DataError(
            f"{where}: no cell of column {card.columns.perturbation!r} has the control label "
            f"{card.control_label!r}. {near_match(card.control_label, labels)} "
            f"{correction(card, 'control_label')}"
        )
    without = sorted({found.context for found in ranges} - controlled)
    if without:
        raise DataError(
            f"{where}: contexts {listed(without)} have perturbed cells and no control "
            f"{card.control_label!r}, so no effect can be measured there. Remove these contexts "
            "from the source, or label their controls."
        )


# --- values -------------------------------------------------------------------------------------


def check_values(block: sparse.csr_matrix, first_cell: int, source: Source, card: Card) -> None:
    """Check some rows of the matrix against the scale that the card declares.

    Puts the entries of each row into the order of genes, if they are not. `first_cell` is the
    number in the source of the block's first row.
    """
    if not block.has_canonical_format:
        block.sort_indices()
        twice = np.concatenate([[False], block.indices[1:] == block.indices[:-1]])
        starts = block.indptr[:-1]
        twice[starts[starts < len(twice)]] = False  # the same gene as the last of the row before
        if twice.any():
            advice = "Call sum_duplicates() on the matrix and write the file again."
            text = "stored twice for the same cell and gene"
            raise DataError(_offence(block, twice, (first_cell, source), text, advice))
    values = block.data
    if card.expression.scale == "counts" and _are_counts(values):
        return
    found: list[tuple[Array, str, str]] = [
        (~np.isfinite(values), "not finite", "Find out why, and write the file again."),
        (values < 0, "negative", "Centred or scaled values cannot be used: take another layer."),
    ]
    if card.expression.scale == "counts":
        fractions = values != np.trunc(values)
        advice = "If they are log-normalised, set expression.scale to log1p, or name a layer."
        found.append((fractions, "fractions, but the card declares counts", advice))
    else:
        advice = "If they are raw counts, set expression.scale to counts."
        found.append((values >= LARGEST_LOG1P, "too large for the declared log1p", advice))
        whole = np.count_nonzero(values) >= TELLING and bool((values == np.trunc(values)).all())
        if whole:
            text = "whole numbers without exception, but the card declares log1p"
            found.append((np.ones(len(values), dtype=bool), text, advice))
    for wrong, what, advice in found:
        if wrong.any():
            raise DataError(_offence(block, wrong, (first_cell, source), what, advice))


def _are_counts(values: Array) -> bool:
    if values.dtype.kind == "u":
        return True
    if values.dtype.kind == "i":
        return not len(values) or bool(values.min() >= 0)
    # one comparison finds NaN, infinity, negatives and fractions alike
    with np.errstate(invalid="ignore"):
        return np.array_equal(values.astype("u4"), values)


def _offence(
    block: sparse.csr_matrix, wrong: Array, place: tuple[int, Source], what: str, advice: str
) -> str:
    first_cell, source = place
    entries = np.flatnonzero(wrong)
    rows = np.searchsorted(block.indptr, entries, side="right") - 1
    cells = source.obs.index[np.unique(rows) + first_cell]
    genes = source.var.index[np.unique(block.indices[entries])]
    return (
        f"{source.path}: {len(entries)} values are {what}; the first is {block.data[entries[0]]} "
        f"in cell {source.obs.index[rows[0] + first_cell]!r}, gene "
        f"{source.var.index[block.indices[entries[0]]]!r}. Cells {listed(cells)}; "
        f"genes {listed(genes)}. {advice}"
    )
