"""What runs say of their trials, as a table: what each is, its state, what it took.

A trial is done when its manifest is there; one without that left a failure, was planned, or begun.
"""

from __future__ import annotations

import json
from dataclasses import fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.config import with_contents
from harness.errors import DataError
from harness.jobs.trial_spec import TrialSpec
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Runs = str | PathLike[str] | Iterable[str | PathLike[str]]

NOT_FACTORS = ("dataset_version", "fingerprint", "split_spec", "side", "prediction", "inputs")
"""What a trial's specification says that is no choice of the job; results never mix them."""

VARIED = ("param.", "data.")
"""How the columns of a trial's parameters and of its data factors begin."""

STATES = ("done", "failed", "missing")
"""A trial with a manifest; one without that left a failure; one that was planned or begun."""

_COMMON = ("trial", "run", "state", "planned", *(field.name for field in fields(TrialSpec)))


_NOT_FLAT = ("scored", "ends")


def read_trials(runs: Runs) -> pd.DataFrame:
    """Return one row per trial of the runs: its factors, what became of it, what it took.

    Columns: ``trial``, ``run``, ``state`` (see `STATES`), ``planned`` (whether the run's job has it
    now); those of the specification, parameters as ``param.NAME`` (None for a model without it); of
    the manifest and of the failure each plain value, nested ones with dots (``seconds.fit``), None
    where nothing is said; ``ends``, as JSON, the anchors of the trial's truth where its suite has
    any. A trial of the job that left no files is missing. One that several runs hold stands once,
    done if any of them completed it.
    """
    rows: list[dict[str, Any]] = []
    for run in several(runs):
        planned = read_run(run).get("trials", {})
        read = _read_trials(run, planned)
        rows += [{**row, "planned": row["trial"] in planned or not planned} for row in read]
    return _trial_frame(rows)


def read_run(run: str) -> dict[str, Any]:
    """Return what a run says of itself: ``job`` as declared, ``trials`` by id. May be empty."""
    path = paths.join(run, "run.json")
    return _parsed([path], paths.read_each([path])).get(path, {})


def _read_trials(run: str, planned: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what is known of each trial; nothing is asked of those that never began."""
    begun = paths.list_names(paths.join(run, "trials"))
    others = [name for name in begun if name not in planned]
    specs = {**planned, **_read_each(run, others, "spec.json")}
    manifests = _read_each(run, begun, "manifest.json")
    failures = _read_each(run, [name for name in begun if name not in manifests], "failure.json")
    for name in sorted({*begun, *planned}):
        spec, said = specs.get(name), manifests.get(name) or failures.get(name) or {}
        if not spec:  # an attempt that ended before it wrote anything says nothing
            continue
        state = "done" if name in manifests else "failed" if name in failures else "missing"
        row = {"trial": name, "run": run, "state": state, **flat_factors(spec)}
        if "ends" in said:
            row["ends"] = json.dumps(said["ends"])
        said = dict(_flat({key: value for key, value in said.items() if key not in _NOT_FLAT}))
        yield {**said, **row} if said.keys() & row.keys() else {**row, **said}


def _read_each(run: str, trials: Sequence[str], name: str) -> dict[str, dict[str, Any]]:
    """Return a JSON file of each of several trials, where it is there."""
    files = [paths.join(run, "trials", trial, name) for trial in trials]
    found = _parsed(files, paths.read_each(files))
    return {trial: found[file] for trial, file in zip(trials, files, strict=True) if file in found}


def _trial_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per trial, in the best of its states; factors stand first."""
    unique: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["trial"], STATES.index(row["state"]))):
        kept = unique.setdefault(row["trial"], row)
        kept["planned"] |= row["planned"]  # of several runs, one that wants it is enough
    names = dict.fromkeys(_COMMON[:4])
    names |= dict.fromkeys(name for row in unique.values() for name in row)
    ordered = sorted(names, key=_section)  # stable: within a section as first seen
    return pd.DataFrame(
        {name: column_of([row.get(name) for row in unique.values()]) for name in ordered},
        columns=ordered,
    )


def flat_factors(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with parameters as ``param.NAME``, data factors as ``data.NAME``.

    Lists become JSON text; of a file that the model read, its content is a part of the value.
    """
    given = {"param": with_contents(spec), "data": dict(spec.get("data", {}))}
    named = {k: v for k, v in spec.items() if k not in ("parameters", "data", "inputs")}
    named |= {f"{kind}.{k}": v for kind, values in given.items() for k, v in values.items()}
    many = (list, tuple, dict)
    return {k: json.dumps(v) if isinstance(v, many) else v for k, v in named.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, str | int | float):
            yield prefix + key, value


def _section(name: str) -> int:
    """Return where a column stands: parameters after what all models have, then the rest."""
    if name in _COMMON:
        return _COMMON.index(name)
    return len(_COMMON) + (not name.startswith(VARIED))


def column_of(values: list[Any]) -> pd.Series[Any]:
    """Return a column of its own type; pandas would make floats of whole numbers beside None."""
    if any(value is None for value in values):
        return pd.Series(values, dtype=object)
    return pd.Series(values).infer_objects()


def _parsed(files: Sequence[str], texts: Sequence[bytes | None]) -> dict[str, dict[str, Any]]:
    """Return the JSON objects of files, by name; what is not there is left out."""
    parsed = {}
    for file, text in zip(files, texts, strict=True):
        try:
            if text is not None:
                parsed[file] = dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}: not JSON: {error}. Expected what the harness wrote. Remove the folder it "
                "stands in, and run the job again."
            ) from error
    return parsed


def several(runs: Runs) -> tuple[str, ...]:
    """Return run folders as texts, each once; one alone may be given by itself."""
    several = [runs] if isinstance(runs, str | PathLike) else runs
    return tuple(dict.fromkeys(str(run) for run in several))
