"""What a search declares: a space of settings, how it is sampled, when a bad one is stopped.

A dimension has one key that says what it is: ``{choice: [2, 4]}``, ``{uniform: [0, 1]}``,
``{log: [0.001, 10]}``, or ``{int: [1, 64]}``, both ends included.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.declarations import Declared
from harness.entries import Name, Positive

Ends = Annotated[list[float], Field(min_length=2, max_length=2)]


class Dimension(Declared):
    """The values that one parameter may take; exactly one of the keys is given."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: Ends | None = None
    log: Ends | None = None
    int_: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        default=None, alias="int"
    )

    @property
    def kind(self) -> Literal["choice", "uniform", "log", "int"]:
        """Which of the keys is given."""
        return next(kind for kind, values in self._given().items() if values is not None)

    @property
    def values(self) -> list[Any]:
        """The choices, or the two ends."""
        return next(values for values in self._given().values() if values is not None)

    def _given(self) -> dict[Any, Any]:
        return {"choice": self.choice, "uniform": self.uniform, "log": self.log, "int": self.int_}

    @model_validator(mode="after")
    def _is_one(self) -> Dimension:
        given = [kind for kind, values in self._given().items() if values is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'nothing'}, expected one of choice, uniform, "
                "log, int."
            )
        if self.kind == "choice":
            return self
        low, high = self.values
        if not low < high or (self.kind == "log" and low <= 0):
            above = " above 0" if self.kind == "log" else ""
            raise ValueError(f"found {self.values}, expected [low, high] with low < high{above}.")
        return self


class Sampler(Declared):
    """How the next setting is drawn: by what earlier ones scored (``tpe``), or blindly."""

    kind: Literal["tpe", "random"] = "tpe"
    seed: Annotated[int, Field(ge=0)] = 0


class Scheduler(Declared):
    """When a setting is given up in the middle of its fit.

    ``asha`` compares the validation scores that settings report at the steps `grace`,
    `grace` × `factor`, `grace` × `factor`², …, and lets the best of every `factor` go on.
    """

    kind: Literal["none", "asha"] = "none"
    grace: Positive = 1
    factor: Annotated[int, Field(ge=2)] = 3


class Budget(Declared):
    """How many settings are tried, how many at a time, and until when new ones are begun."""

    trials: Positive = 20
    seconds: Annotated[float, Field(gt=0)] | None = None
    concurrent: Positive = 1


class Objective(Declared):
    """What is chosen by: the mean of a metric over validation pairs, the better the better."""

    suite: Name = "vcc2025"
    name: Name = "mae"


Space = Annotated[dict[Name, Dimension], Field(min_length=1)]


class SearchKeys(Declared):
    """What a search has beside the keys of every job."""

    model: Name
    space: Space
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    metric: Objective = Objective()

    @field_validator("space")
    @classmethod
    def _no_seed(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        if "seed" in space:
            raise ValueError("seed is not searched: the best of many seeds is luck. Use `seeds`.")
        return space
