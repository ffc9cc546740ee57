"""Every model that a job may name: registered classes, and programs that declarations describe.

`harness.models` knows classes and nothing of declarations; `commands` reads declarations and knows
nothing of models. Here they meet, so whoever plans, checks, lists or runs asks here. Declarations
are read each time: a file that was edited is another model.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import models
from harness.config.declarations import Problem
from harness.errors import UnknownNameError
from harness.jobs.specs import CELLS, TrialSpec, canonical
from harness.kernels.threads import available_threads
from harness.models.base import CellStep, ModelInfo
from harness.models.external.environment import (
    content_of,
    local_requirements,
    place_of,
    wrong_places,
)
from harness.models.external.model import class_of
from harness.models.external.spec import Command, check_command, read_command
from harness.storage import paths
from harness.storage.identity import remembered_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from inspect import Parameter

    from harness.models import Model

log = logging.getLogger("harness.program")


def registered() -> dict[str, ModelInfo]:
    """Return every model by its name; without declarations that something is wrong with."""
    found = dict(models.registered())
    for name in paths.declarations("commands"):
        if name not in found and not command_problems(name):
            found[name] = _info(read_command(name))
    return dict(sorted(found.items()))


def _info(command: Command) -> ModelInfo:
    cells: CellStep | None = "shift-controls" if command.spec.output.holds == "profiles" else None
    return ModelInfo(command.name, class_of(command), ceiling=False, cells=cells)


def command_problems(name: str) -> list[Problem]:
    """Return all that is wrong with the declaration of a command model."""
    path = paths.declarations("commands")[name]
    problems = check_command(path)
    if name in models.registered():
        clash = (
            f"there is a registered model {name!r}, and jobs could mean either. Rename the file."
        )
        problems.append(Problem(str(path), "", clash))
    return problems


def broken() -> dict[str, list[Problem]]:
    """Return the declarations that something is wrong with, by name, and what it is."""
    found = {name: command_problems(name) for name in paths.declarations("commands")}
    return {name: problems for name, problems in found.items() if problems}


def command_of(name: str) -> Command | None:
    """Return the declaration of a model that is a program; None for a class."""
    return read_command(name) if name in paths.declarations("commands") else None


def parameters_of(name: str) -> dict[str, Parameter]:
    """Return the parameters that a job may set for a model, with types and defaults."""
    command = command_of(name)
    if command is None:
        if name not in models.registered():
            raise UnknownNameError("model", name, tuple(registered()))
        return models.parameters_of(name)
    profiles = command.spec.output.holds == "profiles"
    return {**command.parameters, **({"cells": CELLS} if profiles else {})}


def identified(trials: Iterable[TrialSpec]) -> tuple[TrialSpec, ...]:
    """Return trials, those of programs with all that decides what these predict."""
    trials = tuple(trials)
    said = {name: _identity(name) for name in {trial.model for trial in trials}}
    return tuple(
        replace(trial, command=said[trial.model]) if said[trial.model] else trial
        for trial in trials
    )


def _identity(name: str) -> str:
    command = command_of(name)
    if command is None:
        return ""
    folder, threads = str(paths.cache_folder()), available_threads()
    digests = {
        key: remembered_digest(Path(file), threads, folder) for key, file in command.files.items()
    }
    digests |= {line: content_of(path) for line, path in local_requirements(command).items()}
    return canonical(command.identity(digests))


def commands_of(names: Iterable[str]) -> dict[str, str]:
    """Return, for those models that are programs, what a worker needs to run them."""
    found = {name: command_of(name) for name in names}
    return {name: command.to_json() for name, command in found.items() if command is not None}


def impossible_here(trials: Sequence[TrialSpec]) -> Iterator[str]:
    """Yield what this machine lacks for the programs of trials."""
    for name in sorted({trial.model for trial in trials if trial.command}):
        command = command_of(name)
        assert command is not None, "a trial of a program has its declaration"
        yield from (f"{name}: {problem}" for problem in wrong_places(command))


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
    return not trial.command and models.registered()[trial.model].ceiling


def has_own_cells(trial: TrialSpec) -> bool:
    """Whether a trial's model predicts cells, and a profile that a job may prefer."""
    return not trial.command and models.registered()[trial.model].cells == "own"


def class_for(trial: TrialSpec, command: str) -> type[Model]:
    """Return the class of a trial's model; `command` as for `model_for`."""
    made_by = class_of(Command.from_json(command)) if command else None
    return made_by or models.model_class(trial.model)


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
        return models.make_model(trial.model, parameters, trial.seed)
    made_by: Any = class_for(trial, command)
    program = made_by(**parameters, seed=trial.seed)
    program.work_in(scratch, threads)
    made: Model = program
    return made
