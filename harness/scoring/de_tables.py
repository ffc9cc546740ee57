"""Tables of differential expression that others computed, in place of the rank test.

As pdex and ``cell-eval`` write them: a row for each perturbation and gene with columns target,
feature, p_value, fdr, and fold_change (pdex 0.1) or log2_fold_change (pdex 0.3); a column context
where there are several. CSV or Parquet. Every pair and every gene must be there, once: a table that
leaves some out has decided what counts, and that is a metric's to decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.errors import DataError, listed
from harness.metrics import DETable
from harness.scoring.checks import label_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.metrics import Side
    from harness.scoring.group_statistics import Statistics

REQUIRED = ("target", "feature", "p_value", "fdr")
FOLD_CHANGES = ("fold_change", "log2_fold_change")
NUMBERS = ("p_value", "fdr", *FOLD_CHANGES)


def give_tables(sides: Mapping[str, Side], statistics: Statistics, path: str) -> None:
    """Let a side's differential expression be that of a table, in every context.

    Parameters
    ----------
    sides, statistics
        The sides by context, and whose pairs and genes they have.
    path
        The table.

    Raises
    ------
    DataError
        A column is missing; a pair or gene is missing, unknown or there twice; a value is no
        probability or no fold change.
    """
    frame = read_table(path)
    if "context" not in frame:
        if len(sides) > 1:
            raise DataError(
                f"{path}: there is no column 'context', and the cells have several: "
                f"{listed(sides)}. Add the column."
            )
        frame["context"] = next(iter(sides), "")
    frame = frame[frame["target"] != statistics.control_label]
    pairs = {
        (statistics.perturbations[at], context): row
        for context in sides
        for row, at in enumerate(statistics.rows_of(context))
    }
    rows, columns = _places(frame, pairs, statistics.genes, path)
    contexts = frame["context"].to_numpy()
    for context, side in sides.items():
        here = contexts == context
        values = {name: np.empty(side.u.shape) for name in NUMBERS if name in frame}
        for name, found in values.items():
            found[rows[here], columns[here]] = frame.loc[here, name].to_numpy()
        change = values.get("fold_change")
        if change is None:
            change = np.exp2(values["log2_fold_change"])
        side.given = DETable(values["p_value"], values["fdr"], change)


def read_table(path: str) -> pd.DataFrame:
    """Read a table and check its columns."""
    try:
        if path.endswith((".parquet", ".pq")):
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype={"target": str, "feature": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: the table cannot be read ({error}). Expected CSV or Parquet, as of pdex."
        ) from error
    missing = [name for name in REQUIRED if name not in frame]
    if not missing and not set(FOLD_CHANGES) & set(frame):
        missing = [" or ".join(FOLD_CHANGES)]
    if missing:
        raise DataError(
            f"{path}: columns are missing: {listed(missing)}. Found {listed(map(str, frame))}. "
            "Expected a table as pdex writes it."
        )
    for name in ("target", "feature", *({"context"} & set(frame))):
        frame[name] = frame[name].astype(str)
    _check_numbers(frame, path)
    return frame


def _check_numbers(frame: pd.DataFrame, path: str) -> None:
    for name in NUMBERS:
        if name not in frame:
            continue
        values = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
        frame[name] = values
        high = np.inf if name in FOLD_CHANGES else 1.0
        low = -np.inf if name == "log2_fold_change" else 0.0
        wrong = ~((values >= low) & (values <= high)).to_numpy()  # true of NaN, too
        if wrong.any():
            row = frame.iloc[int(np.argmax(wrong))]
            raise DataError(
                f"{path}: {wrong.sum()} values of {name!r} are impossible. Found {row[name]:g} "
                f"for {row['target']!r} and gene {row['feature']!r}, expected numbers from "
                f"{low:g} to {high:g}. Correct the table."
            )


def _places(
    frame: pd.DataFrame,
    pairs: Mapping[tuple[str, str], int],
    genes: tuple[str, ...],
    path: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each line's row and column; every pair of row and column must be there once."""
    found = pd.MultiIndex.from_frame(frame[["target", "context"]])
    lines = pd.MultiIndex.from_tuples(list(pairs), names=found.names).get_indexer(found)
    columns = pd.Index(genes).get_indexer(pd.Index(frame["feature"]))
    for codes, labels, what in (
        (lines, found, "perturbations"),
        (columns, frame["feature"], "genes"),
    ):
        unknown = dict.fromkeys(labels[codes < 0])
        if unknown:
            names = [name if isinstance(name, str) else label_of(name) for name in unknown]
            raise DataError(
                f"{path}: it has {what} that the cells do not have: {listed(names)}. Expected a "
                "table of the same cells. Compute it from them."
            )
    counts = np.bincount(lines * len(genes) + columns, minlength=len(pairs) * len(genes))
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        names = [
            f"{label_of(list(pairs)[at // len(genes)])}, {genes[at % len(genes)]}"
            for at in wrong[:8].tolist()
        ]
        raise DataError(
            f"{path}: {len(wrong)} of {len(counts)} pairs and genes are missing or there twice: "
            f"{listed(names)}. Expected each perturbation with each gene once. Compute the table "
            "without filters."
        )
    return np.array(list(pairs.values()), np.int64)[lines], columns
