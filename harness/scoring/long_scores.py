"""Results as cell-eval2 shapes them: a row for each metric and pair, statistics by context.

What is undefined is passed over by statistics. A metric that is a ratio of sums has no rows of its
own, and of all statistics only its aggregate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.metrics import NO_CHANGE, TOO_FEW_GENES, Ratio, aggregates, metric_named

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHOUT_ROW = frozenset({NO_CHANGE, TOO_FEW_GENES})
"""Reasons for which the oracle has no row, rather than NaN."""


def long_results(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one suite as ``results.csv`` has them.

    Columns perturbation, metric, value; `context` before them where there are several.
    """
    ratio = part["metric"].map(_is_ratio)
    kept = part[~ratio & ~part["reason"].isin(WITHOUT_ROW)]
    columns = ["perturbation", "metric", "value"]
    columns = ["context", *columns] if part["context"].nunique() > 1 else columns
    return kept[columns].reset_index(drop=True)


def context_aggregates(part: pd.DataFrame) -> pd.DataFrame:
    """Return each metric's aggregate in each context: columns context, metric, value."""
    rows = [
        (context, name, value)
        for context, table in _contexts(part)
        for name, value in aggregates(_values(table)).items()
    ]
    return pd.DataFrame(rows, columns=["context", "metric", "value"])


def long_means(part: pd.DataFrame) -> dict[str, float]:
    """Return each metric's aggregate, averaged over contexts."""
    table = context_aggregates(part).groupby("metric", sort=False)["value"]
    return {str(name): float(np.mean(values)) for name, values in table}


def long_statistics(part: pd.DataFrame) -> pd.DataFrame:
    """Return the statistics of one suite as ``agg_results.csv`` has them, metrics by name.

    With several contexts a block of rows for each, its name in the first column.
    """
    tables = []
    for context, table in _contexts(part):
        found, columns = aggregates(_values(table)), {}
        for name, rows in table.groupby("metric"):
            columns[str(name)] = _statistics(str(name), rows, found[str(name)])
        statistics = pd.DataFrame(columns).rename_axis("statistic").reset_index()
        statistics.insert(0, "context", context)
        tables.append(statistics)
    joined = pd.concat(tables, ignore_index=True)
    return joined if len(tables) > 1 else joined.drop(columns="context")


def _is_ratio(name: str) -> bool:
    return isinstance(metric_named(name).reduce, Ratio)


def _contexts(part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for context, table in part.groupby("context", sort=False):
        yield str(context), table


def _values(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        str(name): rows["value"].to_numpy() for name, rows in table.groupby("metric", sort=False)
    }


def _statistics(name: str, rows: pd.DataFrame, aggregate: float) -> pd.Series[float]:
    names = ["count", "null_count", "mean", "std", "min", "max", "median"]
    if _is_ratio(name):
        return pd.Series(np.nan, names).where(np.array(names) != "mean", aggregate)
    values = rows.loc[~rows["reason"].isin(WITHOUT_ROW), "value"]
    defined = values.dropna()
    spread = [defined.std(), defined.min(), defined.max()]
    spread.append(defined.median() if len(defined) else np.nan)  # pandas warns of a NaN median
    return pd.Series([len(values), 0.0, aggregate, *spread], names, dtype=np.float64)
