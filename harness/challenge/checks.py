"""What a submission must be: its genes, labels and size, and values on one scale.

All that is wrong is collected, not only the first: a submission takes long to make, and the
challenge takes one a day. Each problem is a text that says where, what was found, what was expected
and what to do.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from harness.errors import SHOWN, DataError, listed, near_match
from harness.kernels import FRACTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy import sparse

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CONTROL = "non-targeting"
MAX_CELLS = 100_000
LOG1P_BELOW = 15.0
"""The challenge's scorer refuses log1p values from here on."""
TELLING = 10
"""A cell with so many values that are not zero, all whole numbers, holds counts."""

GENE_HEADERS = frozenset(
    {
        *("gene", "gene_id", "gene_name", "gene_symbol", "genes", "gene_ids", "gene_names"),
        *("gene_symbols", "symbol", "symbols", "feature", "feature_name", "name", "names"),
        *("index", "0"),
    }
)
"""First lines that are a header and no gene; "0" is what pandas calls an unnamed column."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a submission is checked against.

    Attributes
    ----------
    genes
        The genes in order; None: any, each once.
    perturbations
        Those to predict, without the control; None: any.
    max_cells
        How many cells there may be, controls among them.
    """

    genes: tuple[str, ...] | None = None
    perturbations: tuple[str, ...] | None = None
    max_cells: int = MAX_CELLS


# --- lists --------------------------------------------------------------------------------------


def read_genes(path: str) -> tuple[str, ...]:
    """Read a list of genes: one on each line, or a column of a CSV; with or without a header."""
    rows = _read_rows(path, "genes")
    named = [i for i, cell in enumerate(rows[0]) if cell.strip().lower() in GENE_HEADERS]
    column = named[0] if named else 0
    return _column(path, "genes", rows[bool(named) :], column)


def read_perturbations(path: str) -> tuple[str, ...]:
    """Read the perturbations to predict: the column ``target_gene`` of the challenge's CSV."""
    rows = _read_rows(path, "perturbations")
    if "target_gene" not in rows[0]:
        raise DataError(
            f"{path}: no column 'target_gene'. Found {listed(rows[0])}. Expected a CSV with the "
            "columns target_gene, n_cells and median_umi_per_cell: add this header."
        )
    names = _column(path, "perturbations", rows[1:], rows[0].index("target_gene"))
    return tuple(name for name in names if name != CONTROL)


def _read_rows(path: str, what: str) -> list[list[str]]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Give the list of {what}, a CSV.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a list of {what} ({error}). Expected text in UTF-8, a name on each line."
        ) from error
    if not rows:
        raise DataError(f"{path}: empty. Expected a list of {what}, a name on each line.")
    return rows


def _column(path: str, what: str, rows: Sequence[Sequence[str]], column: int) -> tuple[str, ...]:
    names = tuple(row[column].strip() if column < len(row) else "" for row in rows)
    if not all(names) or not names:
        at = [number for number, name in enumerate(names, start=1) if not name]
        lacks = f"no name in entry {listed(at)}" if names else "no entry"
        raise DataError(
            f"{path}: the list of {what} has {lacks}. Expected a name on each line. Correct the "
            "file."
        )
    if repeated := _repeated(names):
        raise DataError(f"{path}: {what} {listed(repeated)} are listed twice. Correct the file.")
    return names


def _repeated(names: Sequence[str]) -> list[str]:
    index = pd.Index(names)
    return [str(name) for name in index[index.duplicated()].unique()]


# --- genes and labels ---------------------------------------------------------------------------


def gene_problems(where: str, genes: Sequence[str], rules: Rules) -> list[str]:
    """List the problems with the genes of a prediction."""
    if repeated := _repeated(genes):
        return [f"{where}: genes {listed(repeated)} are there twice. Expected each once. Drop one."]
    if rules.genes is None or tuple(genes) == rules.genes:
        return []
    missing = sorted(set(rules.genes) - set(genes))
    extra = sorted(set(genes) - set(rules.genes))
    if not missing and not extra:
        pairs = list(enumerate(zip(genes, rules.genes, strict=True)))
        moved = [f"{i}: {a!r} for {b!r}" for i, (a, b) in pairs if a != b]
        more = f" and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
        return [
            f"{where}: {len(moved)} of {len(genes)} genes are at another place than in the gene "
            f"list. Found, at each place, for the expected: {', '.join(moved[:SHOWN])}{more}. Put "
            "the columns into the list's order."
        ]
    return [
        f"{where}: the genes are not those of the gene list. Found {len(genes)}, expected "
        f"{len(rules.genes)}; {_difference(missing, extra)}. Predict exactly the list's genes."
    ]


def _difference(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Describe what differs from a list, in either direction."""
    parts = [f"{len(missing)} are missing: {listed(missing)}"] if missing else []
    parts += [f"{len(extra)} are not in the list: {listed(extra)}"] if extra else []
    return "; ".join(parts)


def column_labels(where: str, obs: pd.DataFrame, column: str) -> Array:
    """Return a column of obs as text, every cell labelled: (n_cells,)."""
    if column not in obs.columns:
        raise DataError(
            f"{where}: column {column!r} is not in obs. Found {listed(obs.columns) or 'none'}. "
            f"{near_match(column, [str(name) for name in obs.columns])} Name it, or rename it."
        )
    labels = obs[column].astype(object).to_numpy()
    missing = np.asarray(obs[column].isna())
    texts = labels.astype(str)
    missing |= np.char.strip(texts) == ""
    if missing.any():
        raise DataError(
            f"{where}: {missing.sum()} cells have an empty label in column {column!r}: "
            f"{listed(obs.index[missing])}. Expected a label for every cell. Label or drop them."
        )
    return texts


def label_problems(where: str, labels: Array, control: str, rules: Rules) -> list[str]:
    """List the problems with the perturbations of cells, and with their number.

    `control` is what the prediction calls controls.
    """
    problems = []
    found = sorted(set(labels.tolist()))
    if len(labels) > rules.max_cells:
        problems.append(
            f"{where}: too many cells. Found {len(labels):,}, expected at most "
            f"{rules.max_cells:,}, controls among them. Predict fewer for each perturbation, or "
            "raise the limit (--max-cells) if the challenge's has been."
        )
    if control not in found:
        problems.append(
            f"{where}: no controls. Found no cell labelled {control!r}, expected some. "
            f"{near_match(control, found)} Add the control cells, or say what they are called "
            "(--control)."
        )
    elif control != CONTROL and CONTROL in found:
        problems.append(
            f"{where}: two kinds of controls. Found cells labelled {CONTROL!r} besides "
            f"{control!r}, which a submission calls {CONTROL!r} too. Drop one kind of them."
        )
    predicted = set(found) - {control, CONTROL}
    if rules.perturbations is None:
        if not predicted:
            problems.append(f"{where}: all cells are controls. Predict some perturbations.")
        return problems
    missing = [name for name in rules.perturbations if name not in predicted]
    extra = sorted(predicted - set(rules.perturbations))
    if missing or extra:
        problems.append(
            f"{where}: the perturbations are not those to predict. Found {len(predicted)}, "
            f"expected {len(rules.perturbations)}; {_difference(missing, extra)}. Predict exactly "
            "the list's."
        )
    return problems


# --- values -------------------------------------------------------------------------------------


class _Offence(NamedTuple):
    """How many values are wrong in one way, and the first of them."""

    number: int
    cell: int
    gene: int
    value: float


class Values:
    """What the values of a prediction are, gathered from blocks of its rows.

    Attributes
    ----------
    sizes
        (n_cells,) the total of each cell, as far as it was read.
    """

    def __init__(self, n_cells: int) -> None:
        self.sizes = np.zeros(n_cells)
        self._fractional = np.zeros(n_cells, dtype=bool)
        self._whole = np.zeros(n_cells, dtype=bool)
        self._offences: dict[str, _Offence] = {}

    def take(self, first: int, block: sparse.csr_matrix, dtype: str) -> sparse.csr_matrix:
        """Look at some rows, the first of which has number `first`; return them as `dtype`.

        Zeros that were stored are dropped, and each row's entries are put in order.
        """
        block.sum_duplicates()
        self._note("negative", block, block.data < 0, first)
        with np.errstate(over="ignore"):  # what becomes infinite is found below
            block.data = block.data.astype(dtype, copy=False)
        self._note("not finite", block, ~np.isfinite(block.data), first)
        self._note("large", block, block.data >= LOG1P_BELOW, first)
        block.eliminate_zeros()
        rows = slice(first, first + block.shape[0])
        fractions = np.concatenate([[0], np.cumsum(np.modf(block.data)[0] > FRACTION)])
        self._fractional[rows] = fractions[block.indptr[1:]] > fractions[block.indptr[:-1]]
        self._whole[rows] = ~self._fractional[rows] & (np.diff(block.indptr) >= TELLING)
        self.sizes[rows] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        return block

    def _note(self, kind: str, block: sparse.csr_matrix, wrong: Array, first: int) -> None:
        entries = np.flatnonzero(wrong)
        if not len(entries):
            return
        if kind in self._offences:
            known = self._offences[kind]
            self._offences[kind] = known._replace(number=known.number + len(entries))
            return
        at = entries[0]
        row = int(np.searchsorted(block.indptr, at, side="right")) - 1
        gene, value = int(block.indices[at]), float(block.data[at])
        self._offences[kind] = _Offence(len(entries), first + row, gene, value)

    @property
    def scale(self) -> str:
        """``log1p`` where any value has a fractional part above 0.001, else ``counts``."""
        return "log1p" if self._fractional.any() else "counts"

    def problems(self, where: str, cells: Sequence[str], genes: Sequence[str]) -> list[str]:
        """List the problems with the values; `cells` and `genes` name rows and columns."""
        found: list[str] = []
        for kind, advice in (
            ("negative", "Expected 0 or more. Do not centre or scale the values."),
            ("not finite", "Expected numbers. Find out what the model divides by."),
        ):
            if kind in self._offences:
                found.append(f"{where}: {self._text(kind, kind, cells, genes)} {advice}")
        if found:
            return found
        if not self.sizes.any():
            return [f"{where}: every value is zero. Expected counts or log1p values. Predict some."]
        if self.scale == "counts":
            return []
        if self._whole.any():
            whole = np.flatnonzero(self._whole)
            return [
                f"{where}: mixes counts and log1p values. Found {len(whole)} cells of whole "
                f"numbers only ({listed(cells[i] for i in whole[:SHOWN])}) among "
                f"{self._fractional.sum()} with fractions. Expected one scale for all. Normalise "
                "all cells, controls too, or none."
            ]
        if "large" in self._offences:
            text = self._text("large", f"{LOG1P_BELOW:g} or more", cells, genes)
            return [
                f"{where}: {text} Expected log1p values below {LOG1P_BELOW:g}, since others have "
                "fractions. Take log(1 + x) of normalised counts, or give whole counts."
            ]
        return []

    def _text(self, kind: str, words: str, cells: Sequence[str], genes: Sequence[str]) -> str:
        number, cell, gene, value = self._offences[kind]
        return (
            f"{number} values are {words}. Found {value:g} first, in cell {str(cells[cell])!r}, "
            f"gene {genes[gene]!r}."
        )
