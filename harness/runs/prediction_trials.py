"""The trials of a job that scores predictions made elsewhere: one for each file.

A file's trial is known by what is in it, not by where it lies: moving it scores nothing anew, and
writing it anew does. A name says model, seed and setting where the job gives a pattern, such as
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
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    common, truth = _common(job, prepared)
    reading = job.reading.model_dump(mode="json")
    named = _by_manifest(job) if job.manifest else _by_name(job)
    _check_parted(named)
    _check_baseline(job, named)
    _check_truth(truth, named)
    found: dict[TrialSpec, str] = {}
    for file, said in named.items():
        content = canonical({"content": content_of(file), "reading": reading})
        found[TrialSpec(**common, **said, prediction=content)] = file
    return found, {common["dataset"]: truth}


def _by_name(job: ScoringJob) -> dict[str, dict[str, Any]]:
    """Return what each file's name says of it."""
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
    """Return what a manifest says of each file; all of those that are named, where any are."""
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
    wrong += _alike(places.values())
    if files and whole:
        given = {Path(file).resolve(): file for file in prediction_files(files)}
        wrong += [f"{file} has no row." for place, file in given.items() if place not in places]
        wrong += [
            f"{row.where}: {row.file} is not among the predictions."
            for place, row in places.items()
            if place not in given
        ]
    return rows, wrong


def _alike(rows: Iterable[Listed]) -> Iterator[str]:
    """Yield what is wrong with rows that are of one model, setting and seed."""
    first: dict[tuple[Any, ...], Listed] = {}
    for row in rows:
        parameters = tuple(sorted(row.setting.items()))
        before = first.setdefault((row.model, row.seed, parameters), row)
        if before is not row:
            setting = "".join(f", {name}={value}" for name, value in parameters)
            yield (
                f"{row.where}: {row.file} and {before.file} ({before.where}) are both of "
                f"{row.model}{setting}, seed {row.seed}. Give one another seed, or a setting that "
                "parts them."
            )


def _check_parted(named: Mapping[str, Mapping[str, Any]]) -> None:
    first: dict[tuple[Any, ...], str] = {}
    for file, said in named.items():
        key = (said["model"], said["seed"], said["parameters"])
        if key in first:
            setting = "".join(f", {name}={value}" for name, value in said["parameters"])
            raise JobError(
                f"predictions: {first[key]} and {file} are both of {said['model']}{setting}, seed "
                f"{said['seed']}. Remove one, or part them by the pattern or a manifest: another "
                "seed is a repetition, another setting a row of its own."
            )
        first[key] = file


def _check_baseline(job: ScoringJob, named: Mapping[str, Mapping[str, Any]]) -> None:
    wanted = job.score.baseline
    if wanted is None:
        return
    settings = {said["parameters"] for said in named.values() if said["model"] == wanted}
    if not settings:
        models = sorted({said["model"] for said in named.values()})
        hint = near_match(wanted, models)
        raise JobError(f"score.baseline: no prediction is of {wanted!r}. {hint}")
    if len(settings) > 1:
        raise JobError(
            f"score.baseline: {wanted!r} is there with {len(settings)} settings, expected one."
        )


def _check_truth(truth: str, named: Mapping[str, object]) -> None:
    place = Path(truth).resolve()
    for file in named:
        if Path(file).resolve() == place:
            raise JobError(
                f"predictions: {file} is the truth, which would score best. Keep it in a folder "
                "of its own, or name the predictions one by one."
            )


def _common(job: ScoringJob, prepared: Mapping[str, Prepared]) -> tuple[dict[str, Any], str]:
    """Return what all trials have of the truth, and where that is."""
    held: dict[str, Any] = {"cells": None, "controls": job.score.controls}
    if isinstance(job.truth, str):
        if not paths.exists(job.truth):
            raise JobError(f"truth: there is no {job.truth}. Found nothing at that path.")
        held |= {"dataset": _called(job.truth), "dataset_version": 1, "split": ""}
        held |= {"fingerprint": content_of(job.truth), "split_spec": "", "fold": 0}
        return held, job.truth
    side = job.truth
    screen = prepared[side.dataset].screen
    if side.split not in screen.splits:
        hint = near_match(side.split, tuple(screen.splits))
        raise JobError(f"truth.split: {side.dataset} has no split {side.split!r}. {hint}")
    choice = screen.splits[side.split]
    if side.fold >= choice.n_folds:
        raise JobError(f"truth.fold: found {side.fold}, but there are {choice.n_folds}, from 0.")
    held |= {"dataset": side.dataset, "dataset_version": screen.version, "split": side.split}
    held |= {"fingerprint": screen.fingerprint, "split_spec": choice.spec, "fold": side.fold}
    return held | {"side": side.side}, prepared[side.dataset].store


def prediction_files(wanted: Sequence[str]) -> list[str]:
    """Return the files that folders, globs and paths mean, sorted, each once."""
    found: dict[str, None] = {}
    for one in wanted:
        files = _files(one)
        if not files:
            raise JobError(
                f"predictions: nothing is at {one}. Expected files or folders ending in "
                f"{', '.join(sorted(SUFFIXES))}."
            )
        found |= dict.fromkeys(files)
    return sorted(found)


def _files(wanted: str) -> list[str]:
    folder = Path(wanted)
    if folder.suffix in SUFFIXES and folder.exists():
        return [wanted]
    if folder.is_dir():
        inside = (path for path in folder.iterdir() if not path.name.startswith("."))
        return [str(path) for path in inside if path.suffix in SUFFIXES]
    return [path for path in glob.glob(wanted, recursive=True) if Path(path).suffix in SUFFIXES]  # noqa: PTH207 - Path.glob takes no absolute pattern


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
        return {"model": _called(file), "seed": 0, "parameters": ()}
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


def _called(path: str) -> str:
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


def content_of(path: str) -> str:
    """Return a digest of what a file holds; a file that did not change is not read again."""
    if is_store(path):
        return open_store(path).fingerprint
    if paths.is_remote(path):
        raise DataError(f"{path}: is on an object store. Copy it here to score it in a job.")
    return remembered_digest(Path(path), available_threads(), str(paths.cache_folder()))
