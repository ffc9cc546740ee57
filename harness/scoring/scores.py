"""The scores of one prediction: long, as results are stored, and wide, as files have them.

The files are named and shaped as ``cell-eval`` writes them, so that its own tools read them: a row
for each perturbation, a column for each metric, and a second file of the columns' statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.metrics import (
    NO_CHANGE,
    NO_TRUE_GENES,
    TOO_FEW_GENES,
    Ratio,
    aggregates,
    metric_named,
    registered_suites,
)
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from harness.scoring.anchors import Ends

QUANTILES = (0.25, 0.5, 0.75)

WITHOUT_ROW = frozenset({NO_CHANGE, TOO_FEW_GENES})
"""Reasons for which the oracle has no row, rather than NaN."""


@dataclass(frozen=True)
class Scores:
    """One row for each suite, metric and pair.

    Parameters
    ----------
    frame
        Columns suite, metric, version, context, perturbation, value, reason. Value is NaN where the
        metric is undefined; then reason says why.
    name
        What the prediction is called; its folder when written.
    scales
        For suites whose score lies between anchors: the truth's, or none and why; see
        `harness.scoring.truth.PreparedTruth.ends`.
    """

    frame: pd.DataFrame
    name: str = "prediction"
    scales: Mapping[str, tuple[Ends, str]] = field(default_factory=dict)

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites scored, in order."""
        return tuple(self.frame["suite"].unique())

    def results(self, suite: str) -> pd.DataFrame:
        """Return a suite's scores as ``results.csv`` has them: a row for each pair.

        The column `context` stands before `perturbation` where there are several contexts. Suites
        whose oracle writes them long have a row for each metric and pair.
        """
        part = self._part(suite)
        if not _is_long(suite):
            return _wide(part, "value")
        kept = part[~part["metric"].map(_is_ratio) & ~part["reason"].isin(WITHOUT_ROW)]
        context = ["context"] if part["context"].nunique() > 1 else []
        return kept[[*context, "perturbation", "metric", "value"]].reset_index(drop=True)

    def means(self, suite: str) -> dict[str, float]:
        """Return each metric's mean over pairs as the oracle aggregates it.

        NaN if any pair's is, save that pairs without a significant true gene are passed over; for
        suites in long form, the mean over contexts of `by_context`.
        """
        if _is_long(suite):
            table = self.by_context(suite).groupby("metric", sort=False)["value"]
            return {str(name): float(np.mean(values)) for name, values in table}
        return dict(self.aggregate(suite).set_index("statistic").loc["mean"])

    def by_context(self, suite: str) -> pd.DataFrame:
        """Return each metric's aggregate in each context: columns context, metric, value.

        The mean over what is defined, or what the metric declares instead (a ratio of sums).
        """
        rows = [
            (context, name, value)
            for context, _, found in _aggregated(self._part(suite))
            for name, value in found.items()
        ]
        return pd.DataFrame(rows, columns=["context", "metric", "value"])

    def aggregate(self, suite: str) -> pd.DataFrame:
        """Return the statistics of a suite's columns as ``agg_results.csv`` has them.

        Suites in long form with several contexts have a block of rows for each, its name in the
        first column.
        """
        part = self._part(suite)
        if _is_long(suite):
            tables = []
            for context, table, found in _aggregated(part):
                described = {
                    str(name): _long_statistics(str(name), rows, found[str(name)])
                    for name, rows in table.groupby("metric")
                }
                tables.append(pd.DataFrame(described).rename_axis("statistic").reset_index())
                tables[-1].insert(0, "context", context)
            joined = pd.concat(tables, ignore_index=True)
            return joined if len(tables) > 1 else joined.drop(columns="context")
        columns = {}
        for metric, rows in part.groupby("metric", sort=False):
            present = rows.loc[rows["reason"] != NO_TRUE_GENES, "value"].to_numpy()
            columns[str(metric)] = _statistics(present, len(rows) - len(present))
        table = pd.DataFrame(columns)
        return table.rename_axis("statistic").reset_index()

    def write(self, folder: str | Path) -> str:
        """Write ``<name>/<suite>/results.csv`` and ``agg_results.csv`` of every suite.

        Returns
        -------
        The prediction's folder.
        """
        home = paths.join(str(folder), self.name)
        for suite in self.suites:
            if _is_long(suite):
                results = self.results(suite).to_csv(index=False, na_rep="NaN")
            else:
                part = self._part(suite)
                results = _wide(part.assign(text=_texts(part)), "text").to_csv(index=False)
            statistics = self.aggregate(suite).to_csv(index=False, na_rep="NaN")
            place = paths.join(home, suite.replace(":", "-"))
            paths.write_atomic(paths.join(place, "results.csv"), results)
            paths.write_atomic(paths.join(place, "agg_results.csv"), statistics)
        return home

    def _part(self, suite: str) -> pd.DataFrame:
        part = self.frame[self.frame["suite"] == suite]
        if part.empty:
            raise ValueError(f"Suite {suite!r} was not scored. Scored: {', '.join(self.suites)}.")
        return part


def _is_long(suite: str) -> bool:
    known = registered_suites().get(suite)
    return known is not None and known.form == "long"


def _wide(part: pd.DataFrame, column: str) -> pd.DataFrame:
    keys = ["context", "perturbation"]
    wide = part.pivot(index=keys, columns="metric", values=column)
    wide = wide.reindex(pd.MultiIndex.from_frame(part[keys].drop_duplicates()))
    wide = wide[list(part["metric"].unique())].reset_index()
    wide.columns.name = None
    return wide if part["context"].nunique() > 1 else wide.drop(columns="context")


def _texts(part: pd.DataFrame) -> list[str]:
    """Write NaN as the oracle does, and leave empty what it has no value for."""
    return [
        "" if reason == NO_TRUE_GENES else "NaN" if np.isnan(value) else repr(float(value))
        for value, reason in zip(part["value"], part["reason"], strict=True)
    ]


def _statistics(values: np.ndarray, n_missing: int) -> pd.Series[float]:
    """Describe a column as polars does: NaN spoils mean and deviation, and sorts last."""
    rows = {"count": float(len(values)), "null_count": float(n_missing)}
    ordered = np.sort(values)
    rows["mean"] = float(values.mean()) if len(values) else np.nan
    rows["std"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    defined = ordered[~np.isnan(ordered)]
    rows["min"] = float(defined[0]) if len(defined) else np.nan
    for quantile in QUANTILES:
        nearest = int(np.floor(quantile * (len(ordered) - 1) + 0.5))
        rows[f"{quantile:.0%}"] = float(ordered[nearest]) if len(ordered) else np.nan
    rows["max"] = float(defined[-1]) if len(defined) else np.nan
    return pd.Series(rows)


def _aggregated(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, dict[str, float]]]:
    """Yield each context, its rows, and the aggregate of each metric there."""
    for context, table in part.groupby("context", sort=False):
        metrics = table.groupby("metric", sort=False)["value"]
        yield str(context), table, aggregates({str(n): v.to_numpy() for n, v in metrics})


def _is_ratio(name: str) -> bool:
    return isinstance(metric_named(name).reduce, Ratio)


def _long_statistics(name: str, rows: pd.DataFrame, aggregate: float) -> pd.Series[float]:
    names = ["count", "null_count", "mean", "std", "min", "max", "median"]
    if _is_ratio(name):
        return pd.Series(np.nan, names).where(np.array(names) != "mean", aggregate)
    values = rows.loc[~rows["reason"].isin(WITHOUT_ROW), "value"]
    defined = values.dropna()
    spread = [defined.std(), defined.min(), defined.max()]
    spread.append(defined.median() if len(defined) else np.nan)  # pandas warns of a NaN median
    return pd.Series([len(values), 0.0, aggregate, *spread], names, dtype=np.float64)
