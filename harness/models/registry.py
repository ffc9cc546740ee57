"""Every model that a job may name: registered classes and declared programs.

`base` finds classes, `external.spec` reads declarations. This module joins the two: plans, checks,
lists and runs look models up here. Declarations are read each time, because an edited file is
another model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.config import CELL_STEP, CELLS, CellStep, Problem, declarations
from harness.errors import UnknownNameError
from harness.models.base import ModelInfo, class_parameters, registered_classes
from harness.models.external.model import class_of
from harness.models.external.spec import Command, check_command, read_command

if TYPE_CHECKING:
    from inspect import Parameter


def registered() -> dict[str, ModelInfo]:
    """Return every model by its name; without declarations that something is wrong with."""
    found = dict(registered_classes())
    for name in declarations("commands"):
        if name not in found and not command_problems(name):
            command = read_command(name)
            profiles = command.spec.output.holds == "profiles"
            cells: CellStep | None = CELL_STEP if profiles else None
            found[name] = ModelInfo(name, class_of(command), ceiling=False, cells=cells)
    return dict(sorted(found.items()))


def command_problems(name: str) -> list[Problem]:
    """Return all that is wrong with the declaration of a command model."""
    path = declarations("commands")[name]
    problems = check_command(path)
    if name in registered_classes():
        clash = (
            f"there is a registered model {name!r}, and jobs could mean either. Rename the file."
        )
        problems.append(Problem(str(path), "", clash))
    return problems


def broken() -> dict[str, list[Problem]]:
    """Return the declarations that something is wrong with, by name, and what it is."""
    found = {name: command_problems(name) for name in declarations("commands")}
    return {name: problems for name, problems in found.items() if problems}


def command_of(name: str) -> Command | None:
    """Return the declaration of a model that is a program; None for a class."""
    return read_command(name) if name in declarations("commands") else None


def parameters_of(name: str) -> dict[str, Parameter]:
    """Return the parameters that a job may set for a model, with types and defaults."""
    command = command_of(name)
    if command is None:
        if name not in registered_classes():
            raise UnknownNameError("model", name, tuple(registered()))
        return class_parameters(name)
    profiles = command.spec.output.holds == "profiles"
    return {**command.parameters, **({"cells": CELLS} if profiles else {})}
