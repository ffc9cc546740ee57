"""The models of trials: identified by all that they read, made, and their programs prepared."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.config import is_file
from harness.errors import JobError
from harness.kernels import available_threads
from harness.models import (
    Command,
    class_of,
    command_of,
    content_of,
    environment_problems,
    local_requirements,
    make_model,
    model_class,
    parameters_of,
    place_of,
    registered_classes,
)
from harness.storage import canonical, content_digest, paths, remembered_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from inspect import Parameter

    from harness.jobs import SearchJob, TrialSpec
    from harness.models import Model

log = logging.getLogger("harness.program")


def identified(trials: Iterable[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Return trials, those of programs with all that decides what these predict."""
    trials = tuple(trials)
    identities: dict[str, str] = {}
    for name in {trial.model for trial in trials}:
        if (command := command_of(name)) is None:
            continue
        digests = {
            key: remembered_digest(Path(file), available_threads(), str(paths.cache_folder()))
            for key, file in command.files.items()
        }
        digests |= {line: content_of(path) for line, path in local_requirements(command).items()}
        identities[name] = canonical(command.identity(digests))
    return tuple(
        replace(trial, command=identities[trial.model]) if trial.model in identities else trial
        for trial in trials
    )


def commands_of(names: Iterable[str]) -> dict[str, str]:
    """Return, for those models that are programs, what a worker needs to run them."""
    found = {name: command_of(name) for name in names}
    return {name: command.to_json() for name, command in found.items() if command is not None}


def missing_here(trials: Sequence[TrialSpec]) -> Iterator[str]:
    """Yield what this machine lacks for the programs of trials."""
    for name in sorted({trial.model for trial in trials if trial.command}):
        command = command_of(name)
        assert command is not None, "a trial of a program has its declaration"
        yield from (f"{name}: {problem}" for problem in environment_problems(command))


def prepare_programs(
    commands: Mapping[str, str], progress: Callable[[str, int, int], None]
) -> None:
    """Build the environments of programs where they are not there yet.

    Parameters
    ----------
    commands
        As `commands_of` returns them.
    progress
        Told what is done, and how much of it: done, of how many.

    Raises
    ------
    ModelError
        One could not be built.
    """
    for name, text in commands.items():
        command = Command.from_json(text)
        if command.spec.environment.requirements:
            progress(f"the environment of {name}", 0, 1)
            place_of(command, 1, log.info)
            progress(f"the environment of {name}", 1, 1)


def is_ceiling(trial: TrialSpec) -> bool:
    """Whether a trial's model is fitted to one half of the truth."""
    return not trial.command and registered_classes()[trial.model].ceiling


def has_own_cells(trial: TrialSpec) -> bool:
    """Whether a trial's model predicts cells, and a profile that a job may prefer."""
    return not trial.command and registered_classes()[trial.model].cells == "own"


def class_for(trial: TrialSpec, command: str) -> type[Model]:
    """Return the class of a trial's model; `command` as for `model_for`."""
    made_by = class_of(Command.from_json(command)) if command else None
    return made_by or model_class(trial.model)


def model_for(trial: TrialSpec, command: str, scratch: str, threads: int) -> Model:
    """Return a trial's model, not fitted yet.

    Parameters
    ----------
    trial
        The trial.
    command
        For one of a program, what `commands_of` has of it.
    scratch, threads
        For a program: where its files may lie, and how many threads it may use.
    """
    parameters = dict(trial.parameters)
    if not command:
        return make_model(trial.model, parameters, trial.seed)
    made_by: Any = class_for(trial, command)
    program = made_by(**parameters, seed=trial.seed)
    program.work_in(scratch, threads)
    return cast("Model", program)


def with_inputs(trials: Sequence[TrialSpec]) -> Iterator[TrialSpec]:
    """Yield trials with a digest of each file that they name; each file is looked at once.

    Raises
    ------
    JobError
        Two files hold the same, so that two settings would be one trial.
    """
    digests: dict[str, str] = {}
    by_id: dict[str, TrialSpec] = {}
    known_of = {model: parameters_of(model) for model in {trial.model for trial in trials}}
    for trial in trials:
        named = _files(trial, known_of[trial.model])
        for path in named.values():
            digests[path] = digests.get(path) or content_digest(path)
        inputs = {name: digests[path] for name, path in named.items()}
        known = replace(trial, inputs=tuple(sorted(inputs.items())))
        if inputs and by_id.setdefault(known.id, known) != known:
            other = _files(by_id[known.id], known_of[trial.model])
            name = next(name for name in named if named[name] != other[name])
            raise JobError(
                f"{trial.model}: {name} {other[name]!r} and {named[name]!r} hold the same, and "
                "would be one trial. Remove one."
            )
        yield known


def with_absolute_paths(trial: TrialSpec) -> TrialSpec:
    """Return a trial whose files are found by a worker in any folder; its id is the same."""
    places = dict(trial.parameters)
    places |= {name: paths.absolute(str(places[name])) for name, _ in trial.inputs}
    return replace(trial, parameters=tuple(sorted(places.items())))


def digests_of_choices(job: SearchJob) -> dict[str, dict[str, str]]:
    """Return, under ``files``, a digest of each file that a search chooses from; else nothing."""
    known = parameters_of(job.model)
    found = {
        str(value): content_digest(value)
        for name, dimension in job.space.items()
        for value in dimension.choice or ()
        if is_file(known[name].annotation, value)
    }
    return {"files": found} if found else {}


def _files(trial: TrialSpec, known: Mapping[str, Parameter]) -> dict[str, str]:
    """Find the parameters of a trial that name files."""
    return {
        name: str(value)
        for name, value in trial.parameters
        if is_file(known[name].annotation, value)
    }
