"""What may be joined: results of several runs are compared only where they are of one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.errors import DataError, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def places(names: pd.Series[Any], known: pd.Series[Any]) -> NDArray[np.int64]:
    """Return where in `known` each of the categorical `names` stands; −1 for one that does not."""
    found = np.asarray(pd.Index(known).get_indexer(names.cat.categories), dtype=np.int64)
    return found[names.cat.codes.to_numpy()]


def of_one_version(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Return score rows whose metrics have one version each; refuse others."""
    names = ["suite", "metric"]
    versions = distinct_metrics(rows)
    if versions[names].duplicated().any() and "run" in trials:
        run = trials["run"].to_numpy()[places(rows["trial"], trials["trial"])]
        refuse_mixture(rows.assign(run=run), names, "version")
    refuse_mixture(versions, names, "version")
    return rows


def distinct_metrics(rows: pd.DataFrame) -> pd.DataFrame:
    """Return which suites, metrics and versions stand together in score rows, each once.

    As `DataFrame.drop_duplicates` would, in the order of codes and in a quarter of its time.
    """
    suite, metric = rows["suite"].cat, rows["metric"].cat
    version, versions = pd.factorize(rows["version"].to_numpy())
    codes = (suite.codes.to_numpy(), metric.codes.to_numpy(), version)
    shape = (len(suite.categories), len(metric.categories), len(versions))
    joint = np.ravel_multi_index([code.astype(np.intp) for code in codes], shape)
    found = np.unravel_index(np.flatnonzero(np.bincount(joint)), shape)
    return pd.DataFrame(
        {
            "suite": suite.categories.take(found[0]),
            "metric": metric.categories.take(found[1]),
            "version": versions[found[2]],
        }
    )


def refuse_mixture(frame: pd.DataFrame, names: list[str], column: str) -> None:
    """Raise unless `column` has one value for each of `names`.

    The error says which value is in which run, where `frame` has a column ``run``.
    """
    distinct = frame[[*names, column]].drop_duplicates().astype(str)
    for _, part in distinct.groupby(names, sort=True):
        if len(part) > 1:
            label = " ".join(part[names].iloc[0])
            same = (frame[names].astype(str) == part[names].iloc[0]).all(axis=1)
            found = ", ".join(_in_runs(frame[same], column, v) for v in sorted(part[column]))
            raise DataError(
                f"{' '.join(names)} {label}: results of different {column} cannot be compared. "
                f"Found {found}, expected one. Run or score the older ones again, or keep the two "
                "in run folders of their own."
            )


def _in_runs(frame: pd.DataFrame, column: str, value: str) -> str:
    """Return a value, and the runs that have it where that is known."""
    if "run" not in frame:
        return repr(value)
    runs = sorted(set(frame.loc[frame[column].astype(str) == value, "run"].astype(str)))
    return f"{value!r} in {listed(runs)}"
