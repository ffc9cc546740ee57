"""Models to compare: one file each, found through the registry in `base`.

A model with a file here, and one that another package offers by the entry point group
``harness.models``, are used alike: by the name that they are registered under.
"""

from __future__ import annotations

from harness.models.base import (
    Model,
    ModelInfo,
    answers,
    make_model,
    model_class,
    notes,
    parameters_of,
    register,
    registered,
)
from harness.models.profile_to_cells import profiles_alone, with_cells

__all__ = [
    "Model",
    "ModelInfo",
    "answers",
    "make_model",
    "model_class",
    "notes",
    "parameters_of",
    "profiles_alone",
    "register",
    "registered",
    "with_cells",
]
