"""Models to compare, and what a model is.

Each shipped model has a file; `networks` holds those that are trained, `external` runs programs of
other teams. Models that other packages offer by the entry point group ``harness.models`` are found
by the same registry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.models.base import Count as Count
    from harness.models.base import Model as Model
    from harness.models.base import ModelInfo as ModelInfo
    from harness.models.base import NonNegative as NonNegative
    from harness.models.base import Positive as Positive
    from harness.models.base import Share as Share
    from harness.models.base import answers as answers
    from harness.models.base import make_model as make_model
    from harness.models.base import model_class as model_class
    from harness.models.base import model_info as model_info
    from harness.models.base import notes as notes
    from harness.models.base import query_rng as query_rng
    from harness.models.base import register as register
    from harness.models.base import registered_classes as registered_classes
    from harness.models.code_version import code_of_model as code_of_model
    from harness.models.code_version import is_other_code as is_other_code
    from harness.models.effects import MeanEffects as MeanEffects
    from harness.models.external.environment import content_of as content_of
    from harness.models.external.environment import environment_problems as environment_problems
    from harness.models.external.environment import local_requirements as local_requirements
    from harness.models.external.environment import place_of as place_of
    from harness.models.external.model import class_of as class_of
    from harness.models.external.process import idle_seconds as idle_seconds
    from harness.models.external.spec import Command as Command
    from harness.models.external.spec import check_command as check_command
    from harness.models.features import Source as Source
    from harness.models.features import features_of as features_of
    from harness.models.profile_to_cells import profiles_alone as profiles_alone
    from harness.models.profile_to_cells import with_cells as with_cells
    from harness.models.registry import broken as broken
    from harness.models.registry import command_of as command_of
    from harness.models.registry import command_problems as command_problems
    from harness.models.registry import parameters_of as parameters_of
    from harness.models.registry import registered as registered

_NAMES = {
    "base": (
        "Count Model ModelInfo NonNegative Positive Share answers make_model model_class "
        "model_info notes query_rng register registered_classes"
    ),
    "code_version": "code_of_model is_other_code",
    "effects": "MeanEffects",
    "external.environment": "content_of local_requirements place_of environment_problems",
    "external.model": "class_of",
    "external.process": "idle_seconds",
    "external.spec": "Command check_command",
    "features": "Source features_of",
    "profile_to_cells": "profiles_alone with_cells",
    "registry": "broken command_of command_problems parameters_of registered",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
