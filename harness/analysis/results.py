"""Score rows as Parquet, one file per trial; trials and scores read back as tables and as a cube.

A run is read from its files alone: a trial counts when its manifest exists, whatever else lies in
its folder, and one file per trial means that no two writers ever share one (a common Zarr cube lost
28 of 1,000 trials without an error when we tried). Texts are dictionary-encoded from the file to
the frame, so that ten million rows take 200 MB rather than several GB.

Reading 10,000 trials opens as many files (6 to 19 s); thirty million rows peak at 2 GB while read.
"""

from __future__ import annotations

import io
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from harness.analysis.score_frame import make_cube, score_rows
from harness.analysis.trials import NOT_FACTORS, VARIED, column_of, read_run, read_trials, several
from harness.errors import DataError, listed
from harness.jobs.trial_spec import TrialSpec
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    import xarray as xr
    from numpy.typing import NDArray

    Runs = str | PathLike[str] | Iterable[str | PathLike[str]]


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
    """Return the distinct (suite, metric, version) of score rows.

    Equals `DataFrame.drop_duplicates`, sorted by category code, in a quarter of its time.
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


_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("trial", _TEXT),
        ("suite", _TEXT),
        ("metric", _TEXT),
        ("version", pa.int32()),
        ("context", _TEXT),
        ("perturbation", _TEXT),
        ("value", pa.float64()),
        ("reason", _TEXT),
    ]
)
"""What a file of scores holds: one row per trial, suite, metric and pair."""

_KEY = ["trial", "suite", "metric", "context", "perturbation"]
_AT_ONCE = 1024  # files of scores read and then joined: what is held of them twice


# --- score files --------------------------------------------------------------------------------


def write_scores(path: str, frame: pd.DataFrame) -> None:
    """Write score rows whole: a reader sees the old file, the new one or none.

    Parameters
    ----------
    path
        ``RUN/results/TRIAL.parquet``, a local path or a URL.
    frame
        The columns of `SCHEMA`. ``value`` may be NaN, with its reason; ``reason`` is empty where
        the value is defined. A pair that a metric scored twice is refused.
    """
    absent = [name for name in SCHEMA.names if name not in frame]
    if absent:
        raise ValueError(
            f"{path}: scores lack the columns {listed(absent)}. Found {listed(frame.columns)}."
        )
    twice = frame.duplicated(_KEY)
    if twice.any():
        first = ", ".join(str(value) for value in frame.loc[twice, _KEY].iloc[0])
        raise ValueError(
            f"{path}: {int(twice.sum())} scores are given twice, the first for {first}. "
            "Expected one row per trial, suite, metric and pair."
        )
    columns = frame[SCHEMA.names].assign(reason=frame["reason"].fillna(""))
    table = pa.Table.from_pandas(columns, schema=SCHEMA, preserve_index=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), buffer, compression="zstd")
    paths.write_atomic(path, buffer.getvalue())


def read_scores(runs: Runs) -> pd.DataFrame:
    """Return the score rows of all complete trials; texts are categories in sorted order.

    A trial that several runs hold is read from the first that completed it.
    """
    trials = pd.DataFrame(
        [
            {"run": run, "trial": name, "state": "done"}
            for run in several(runs)
            for name in paths.find(paths.join(run, "trials"), "manifest.json")
        ]
    )
    return _read_done(trials) if len(trials) else score_rows([], SCHEMA)


def _read_done(trials: pd.DataFrame) -> pd.DataFrame:
    return score_rows(_tables_of(trials), SCHEMA)


def _tables_of(trials: pd.DataFrame) -> Iterator[pa.Table]:
    """Yield the scores of trials that are done, of so many at once."""
    done = trials[trials["state"] == "done"].drop_duplicates("trial")
    for run, part in done.groupby("run", sort=True):
        folder = paths.join(str(run), "results")
        present = set(paths.list_names(folder))
        files = [f"{name}.parquet" for name in sorted(part["trial"])]
        files = [file for file in files if file in present]
        for at in range(0, len(files), _AT_ONCE):
            yield _read_files(folder, files[at : at + _AT_ONCE])


def _read_files(folder: str, names: list[str]) -> pa.Table:
    try:
        if paths.is_remote(folder):  # one request a file, where Arrow would take four
            read = paths.read_each([paths.join(folder, name) for name in names])
            tables = [pq.read_table(pa.BufferReader(part), schema=SCHEMA) for part in read if part]
            return pa.concat_tables([SCHEMA.empty_table(), *tables])
        root = Path(folder.removeprefix("file://"))
        files = [str(root / name) for name in names]
        return ds.dataset(files, schema=SCHEMA, format="parquet").to_table()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{folder}: a file of scores cannot be read: {error} Expected what the harness wrote. "
            "Remove that file and its trial's folder, and run the job again."
        ) from error


# --- the results of runs ------------------------------------------------------------------------


class Results:
    """The trials and scores of one or several runs; refuses to mix what cannot be compared.

    Parameters
    ----------
    runs
        A run folder or several: local paths or URLs. Trials of several runs are joined when the
        datasets and splits of one name are the same, and the metrics' versions too. Trials that a
        run's job no longer has are left out, `n_unplanned` of them: they are of a model that was
        taken out again, or of a dataset that was made anew. So are those on the validation side,
        which `validation` has.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = several(runs)
        trials = read_trials(self.runs)
        for run in set(self.runs) - set(trials["run"]):
            if not read_run(run) and not paths.list_names(paths.join(run, "trials")):
                raise DataError(
                    f"{run}: this is no run folder: it has neither run.json nor trials. Expected "
                    "one that `harness run` wrote, such as runs/quickstart."
                )
        planned = trials["planned"].astype(bool)
        side = trials["side"] if "side" in trials else pd.Series(None, trials.index, dtype=object)
        tested = side.isna()
        self.n_unplanned = int((~planned & tested).sum())
        self._validation = trials[planned & ~tested].reset_index(drop=True)
        self._hold(trials[planned & tested].reset_index(drop=True))

    @cached_property
    def validation(self) -> Results:
        """The results of the same runs on validation pairs, which settings are chosen by."""
        other = type(self).__new__(type(self))
        other.runs, other.n_unplanned = self.runs, 0
        other._validation = self._validation.iloc[:0]
        other._hold(self._validation)
        return other

    def _hold(self, trials: pd.DataFrame) -> None:
        self.trials = trials
        done = trials[trials["state"] == "done"]
        for key, fixed in (("dataset", NOT_FACTORS[:2]), ("split", NOT_FACTORS[2:4])):
            names = ["dataset"] if key == "dataset" else ["dataset", "split"]
            for column in fixed:
                if column in done:
                    refuse_mixture(done, names, column)

    @classmethod
    def of(cls, scores: pd.DataFrame, trials: pd.DataFrame) -> Results:
        """Return results from frames as `read_scores` and `read_trials` give them.

        Of `trials` only ``trial`` and ``model`` are needed: a missing factor is the same for all.

        Raises
        ------
        ValueError
            A score is of a trial that is not among `trials`.
        """
        if unknown := sorted(str(trial) for trial in {*scores["trial"]} - {*trials["trial"]}):
            raise ValueError(
                f"There are scores of {listed(unknown)}, which {'are' if unknown[1:] else 'is'} "
                f"not among the {len(trials)} trials given. Give every trial that was scored."
            )
        results = cls.__new__(cls)
        results.runs, results.n_unplanned = (), 0
        defaults: dict[str, Any] = {"state": "done", "run": "", "dataset": "", "split": ""}
        defaults |= {"fold": 0, "seed": 0}
        absent = {name: value for name, value in defaults.items() if name not in trials}
        known = trials.astype(object).where(trials.notna(), None)
        columns = {str(name): column_of(known[name].tolist()) for name in known}
        results._hold(pd.DataFrame(columns).assign(**absent))
        results._validation = results.trials.iloc[:0]
        table = pa.Table.from_pandas(scores[SCHEMA.names], schema=SCHEMA, preserve_index=False)
        results.__dict__["rows"] = of_one_version(score_rows([table], SCHEMA), results.trials)
        return results

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The score rows of complete trials, without the trials' factors."""
        return of_one_version(_read_done(self.trials), self.trials)

    @property
    def factors(self) -> tuple[str, ...]:
        """The columns of `trials` that a job chooses, parameters and data factors by prefix."""
        known = {field.name for field in fields(TrialSpec)} - {*NOT_FACTORS}
        names = (str(name) for name in self.trials)
        return tuple(name for name in names if name in known or name.startswith(VARIED))

    @property
    def scores(self) -> pd.DataFrame:
        """The score rows joined with their trials' factors, texts as categories."""
        rows = self.rows
        place = places(rows["trial"], self.trials["trial"])
        joined = {}
        for name in self.factors:
            codes, values = pd.factorize(self.trials[name])
            joined[name] = pd.Categorical.from_codes(codes[place], categories=values)
        return pd.concat([rows, pd.DataFrame(joined, index=rows.index)], axis=1)

    @cached_property
    def score_options(self) -> dict[str, Any]:
        """What the runs' jobs say of scoring (baseline, floors); only what they agree on."""
        said = [read_run(run).get("job", {}).get("score", {}) for run in self.runs]
        agreed = {k: v for k, v in (said[0] if said else {}).items() if v is not None}
        return {k: v for k, v in agreed.items() if all(other.get(k) == v for other in said)}

    def to_xarray(self, *, by_context: bool = False) -> xr.Dataset:
        """Return the scores as a cube with the trials' factors as coordinates.

        ``score`` (trial, perturbation, metric) is NaN where undefined and where a trial did not
        score a pair; ``reason`` tells them apart: −1 not scored, 0 defined, else a place in its
        attribute ``reasons``. With several contexts the perturbation's label is the pair,
        ``perturbation|context``; the coordinates ``context`` and ``perturbation_name`` give the
        parts. With several suites the metric's label is ``suite:metric``.

        Parameters
        ----------
        by_context
            Give contexts a dimension of their own: (trial, context, perturbation, metric), with
            plain labels. A perturbation that was not done in a context is not scored there. See
            `harness.analysis.score_frame` for what each shape is for.
        """
        versions = [name for name in ("dataset_version",) if name in self.trials]
        factors = (*self.factors, *versions)
        return make_cube(self.rows, self.trials, factors, by_context=by_context)
