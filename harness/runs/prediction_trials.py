"""The trials of a job that scores predictions made elsewhere: one for each file.

A trial is identified by the content of its file: a moved file is not scored again, a changed one
is. A name says model, seed and setting where the job gives a pattern, such as
``{model}_rank{rank}_seed{seed}.h5ad``, or a row of a manifest does. A file that is left over is an
error, since a row that is missing from a table is not seen; so are two files of one model, setting
and seed, which a table would take for one another.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data import is_store, open_store
from harness.errors import DataError, JobError, listed, near_match
from harness.jobs import TrialSpec, frozen_parameters, read_manifest, value_of
from harness.kernels import available_threads
from harness.scoring import SUFFIXES
from harness.storage import canonical, paths, remembered_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.jobs import Listed, Prepared, ScoringJob

_FIELD = re.compile(r"\{([^{}]*)\}")


def trials_of_files(
    job: ScoringJob, prepared: Mapping[str, Prepared]
) -> tuple[dict[TrialSpec, str], dict[str, str]]:
    """Return each trial with its file, and the truth of each dataset that they name.

    Parameters
    ----------
    prepared
        The dataset whose held-out cells are the truth, where they are.

    Raises
    ------
    JobError
        There is no truth or no file, names do not fit the pattern, manifest and files differ, or
        two files are of one model, setting and seed.
    """
    truth, common = _truth(job, prepared)
    reading = job.reading.model_dump(mode="json")
    named = _by_manifest(job) if job.manifest else _by_name(job)
    first: dict[tuple[Any, ...], str] = {}
    for file, said in named.items():
        if Path(file).resolve() == Path(truth).resolve():
            raise JobError(
                f"predictions: {file} is the truth, which would score best. Keep it in a folder "
                "of its own, or name the predictions one by one."
            )
        key = (said["model"], said["seed"], said["parameters"])
        if key in first:
            setting = "".join(f", {name}={value}" for name, value in said["parameters"])
            raise JobError(
                f"predictions: {first[key]} and {file} are both of {said['model']}{setting}, seed "
                f"{said['seed']}. Remove one, or part them by the pattern or a manifest: another "
                "seed is a repetition, another setting a row of its own."
            )
        first[key] = file
    baseline = job.score.baseline
    if baseline is not None:
        n_settings = len({s["parameters"] for s in named.values() if s["model"] == baseline})
        if n_settings == 0:
            hint = near_match(baseline, sorted({said["model"] for said in named.values()}))
            raise JobError(f"score.baseline: no prediction is of {baseline!r}. {hint}")
        if n_settings > 1:
            raise JobError(
                f"score.baseline: {baseline!r} is there with {n_settings} settings, expected one."
            )
    trials: dict[TrialSpec, str] = {}
    for file, said in named.items():
        content = canonical({"content": _content_digest(file), "reading": reading})
        trials[TrialSpec(**common, **said, prediction=content)] = file
    return trials, {common["dataset"]: truth}


def _truth(job: ScoringJob, prepared: Mapping[str, Prepared]) -> tuple[str, dict[str, Any]]:
    """Return where the truth is, and the fields that all trials have of it."""
    common: dict[str, Any] = {"cells": None, "controls": job.score.controls}
    if isinstance(job.truth, str):
        if not paths.exists(job.truth):
            raise JobError(f"truth: there is no {job.truth}. Found nothing at that path.")
        return job.truth, {
            **common,
            "dataset": _model_name(job.truth),
            "dataset_version": 1,
            "fingerprint": _content_digest(job.truth),
            "split": "",
            "split_spec": "",
            "fold": 0,
        }
    side = job.truth
    screen = prepared[side.dataset].screen
    if side.split not in screen.splits:
        hint = near_match(side.split, tuple(screen.splits))
        raise JobError(f"truth.split: {side.dataset} has no split {side.split!r}. {hint}")
    choice = screen.splits[side.split]
    if side.fold >= choice.n_folds:
        raise JobError(f"truth.fold: found {side.fold}, but there are {choice.n_folds}, from 0.")
    return prepared[side.dataset].store, {
        **common,
        "dataset": side.dataset,
        "dataset_version": screen.version,
        "fingerprint": screen.fingerprint,
        "split": side.split,
        "split_spec": choice.spec,
        "fold": side.fold,
        "side": side.side,
    }


def _content_digest(path: str) -> str:
    """Return a digest of a file's content; a file that did not change is not read again."""
    if is_store(path):
        return open_store(path).fingerprint
    if paths.is_remote(path):
        raise DataError(f"{path}: is on an object store. Copy it here to score it in a job.")
    return remembered_digest(Path(path), available_threads(), str(paths.cache_folder()))


def _by_name(job: ScoringJob) -> dict[str, dict[str, Any]]:
    """Return model, seed and parameters of each file by its name."""
    files = prediction_files(job.files)
    if job.pattern is not None:
        name = _compiled(job.pattern)
        wrong = [short for f in files if not name.fullmatch(short := _short(f, job.pattern))]
        if wrong:
            raise JobError(
                f"pattern: {listed(wrong)} {'does' if len(wrong) == 1 else 'do'} not fit "
                f"{job.pattern!r}. Correct the pattern, or name fewer files under predictions."
            )
    return {file: named_by(file, job.pattern) for file in files}


def _by_manifest(job: ScoringJob) -> dict[str, dict[str, Any]]:
    """Return model, seed and parameters of each file by the manifest."""
    rows, wrong = manifest_problems(str(job.manifest), job.files)
    if wrong:
        raise JobError(*(f"manifest: {job.manifest}: {text}" for text in wrong))
    return {
        row.file: {
            "model": row.model,
            "seed": row.seed,
            "parameters": frozen_parameters(row.setting),
        }
        for row in rows
    }


def manifest_problems(manifest: str, files: Sequence[str]) -> tuple[list[Listed], list[str]]:
    """Return the rows of a manifest, and all that is wrong with it and the files that it names.

    Parameters
    ----------
    manifest
        Its path.
    files
        The predictions that a job names besides, which must be those of the manifest; none if it
        names none.

    Raises
    ------
    JobError
        It cannot be read, or the job names what is not there.
    """
    rows, wrong = read_manifest(manifest)
    whole = not wrong  # else a file without a row may be meant by one that cannot be read
    places: dict[Path, Listed] = {}
    for row in rows:
        place = Path(row.file).resolve()
        if place.suffix not in SUFFIXES or not place.exists():
            wrong.append(f"{row.where}: there is no prediction {row.file}.")
        elif place in places:
            wrong.append(f"{row.where}: {row.file} is in {places[place].where}, too.")
        else:
            places[place] = row
    first: dict[tuple[Any, ...], Listed] = {}
    for row in places.values():
        parameters = tuple(sorted(row.setting.items()))
        before = first.setdefault((row.model, row.seed, parameters), row)
        if before is not row:
            setting = "".join(f", {name}={value}" for name, value in parameters)
            wrong.append(
                f"{row.where}: {row.file} and {before.file} ({before.where}) are both of "
                f"{row.model}{setting}, seed {row.seed}. Give one another seed, or a setting that "
                "parts them."
            )
    if files and whole:
        given = {Path(file).resolve(): file for file in prediction_files(files)}
        wrong += [f"{file} has no row." for place, file in given.items() if place not in places]
        wrong += [
            f"{row.where}: {row.file} is not among the predictions."
            for place, row in places.items()
            if place not in given
        ]
    return rows, wrong


def prediction_files(wanted: Sequence[str]) -> list[str]:
    """Return the files that folders, globs and paths name, sorted, each once."""
    found: dict[str, None] = {}
    for one in wanted:
        path = Path(one)
        if path.suffix in SUFFIXES and path.exists():
            files = [one]
        elif path.is_dir():
            files = [str(file) for file in path.iterdir() if not file.name.startswith(".")]
        else:
            files = glob.glob(one, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [file for file in files if Path(file).suffix in SUFFIXES]
        if not files:
            raise JobError(
                f"predictions: nothing is at {one}. Expected files or folders ending in "
                f"{', '.join(sorted(SUFFIXES))}."
            )
        found |= dict.fromkeys(files)
    return sorted(found)


def named_by(file: str, pattern: str | None) -> dict[str, Any]:
    """Return what a file's name says: model, seed, and the other fields as parameters.

    Parameters
    ----------
    file
        As many of its last folders are read as the pattern has.
    pattern
        With ``{model}``, perhaps ``{seed}``, and any other names. None: the name without its
        suffix is the model.
    """
    if pattern is None:
        return {"model": _model_name(file), "seed": 0, "parameters": ()}
    match = _compiled(pattern).fullmatch(_short(file, pattern))
    if match is None:
        raise JobError(f"pattern: {_short(file, pattern)!r} does not fit {pattern!r}.")
    fields = match.groupdict()
    model, seed = fields.pop("model"), int(fields.pop("seed", None) or 0)
    parameters = {field: value_of(text) for field, text in fields.items()}
    return {"model": model, "seed": seed, "parameters": frozen_parameters(parameters)}


def _short(file: str, pattern: str) -> str:
    """Return as many of a file's last folders as a pattern speaks of, and its name."""
    return "/".join(Path(file).parts[-1 - pattern.count("/") :])


def _model_name(path: str) -> str:
    named = Path(path.rstrip("/"))
    return named.stem if named.suffix in SUFFIXES else named.name


def _compiled(pattern: str) -> re.Pattern[str]:
    fields = _FIELD.findall(pattern)
    wrong = [field for field in fields if not field.isidentifier() or fields.count(field) > 1]
    if wrong or "model" not in fields:
        raise JobError(
            f"pattern: found {pattern!r}, expected {{model}} and, each once, other names in braces "
            f"such as {{seed}}. {f'Wrong: {listed(wrong[:1])}.' if wrong else ''}".rstrip()
        )
    parts = _FIELD.split(pattern)  # text and fields by turns
    texts = [
        f"(?P<{part}>{'[0-9]+' if part == 'seed' else '[^/]+?'})" if at % 2 else re.escape(part)
        for at, part in enumerate(parts)
    ]
    return re.compile("".join(texts))
