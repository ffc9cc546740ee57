"""Types and names that declarations of several kinds share."""

from __future__ import annotations

from inspect import Parameter
from typing import Annotated, Literal

from pydantic import Field

CellStep = Literal["match-controls", "shift-controls", "tile-profile"]
OwnCellStep = Literal["own", "match-controls", "shift-controls", "tile-profile"]
CELL_STEP: CellStep = "match-controls"
"""The step by which a profile becomes cells where neither job nor model names one."""

Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
ENTRY_KEYS = ("zip", "only", "except", "repeat", "data")
"""What an entry may hold beside `model` and parameters; no parameter can have these names."""

Controls = Literal["divided", "shared"]
Kept = Literal["scores", "profiles", "predictions", "checkpoints"]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What every random number generator takes that a model may be written with."""

CELLS = Parameter("cells", Parameter.KEYWORD_ONLY, default=CELL_STEP, annotation=CellStep)
"""What a model that predicts profiles accepts beside its own parameters: how it gets cells."""

JSON = str | int | float | bool | None | tuple["JSON", ...]

DATA_FACTORS = (
    "cells_per_perturbation",
    "control_cells",
    "train_contexts",
    "train_perturbations",
    "umi_depth",
)
"""The factors by which a job shows a model a part of the training data only."""
