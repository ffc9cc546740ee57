"""One of a job's models, as the file has it: a name, parameters, and which settings are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_serializer

from harness.config.declarations import Declared
from harness.tasks.factors import wrong_factors

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler

CellStep = Literal["shift-controls", "tile-profile"]
OwnCellStep = Literal["own", "shift-controls", "tile-profile"]
Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Filters = Annotated[list[dict[str, Any]], Field(min_length=1)]
"""Partial settings; a trial fits one that it agrees with in every key, or in one of a list."""


def right_factors(factors: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return data factors as they stand; a ``ValueError`` names all that is wrong with them."""
    wrong = [f"{key}: {text}" for key, text in wrong_factors(factors or {})]
    if wrong:
        raise ValueError(" ".join(wrong))
    return factors


class ModelEntry(Declared):
    """One of a job's models: its name, and its parameters, each with one value or a list.

    The other keys say which settings are meant and how often (`settings`); `data` replaces
    the job's own.
    """

    model_config = ConfigDict(extra="allow")

    model: Name
    cells: OwnCellStep | list[OwnCellStep] | None = None
    zip: dict[str, list[Any]] | None = None
    only: Filters | None = None
    except_: Filters | None = Field(default=None, alias="except")
    repeat: Positive | None = None
    data: dict[str, Any] | None = None

    _check_data = field_validator("data")(right_factors)

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the keys that the entry does not use."""
        written = {("except" if k == "except_" else k): v for k, v in handler(self).items()}
        return {k: v for k, v in written.items() if v is not None or k not in ENTRY_KEYS}

    @property
    def given(self) -> dict[str, Any]:
        """What the entry sets, ``cells`` included, as it stands in the file."""
        chosen = {} if self.cells is None else {"cells": self.cells}
        return {**(self.model_extra or {}), **chosen}


ENTRY_KEYS = ("zip", "only", "except", "repeat", "data")
"""What an entry may hold beside `model` and parameters; no parameter can have these names."""
