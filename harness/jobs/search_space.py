"""What a search declares: a space of settings, how it is sampled, when a bad one is stopped.

A dimension has one key that says what it is: ``{choice: [2, 4]}``, ``{uniform: [0, 1]}``,
``{log: [0.001, 10]}``, or ``{int: [1, 64]}``, both ends included.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config import Declared, Name, Positive

DEFAULT_TRIALS = 20
"""How many settings are tried where the budget does not say, and the space is no grid."""

MOST_OF_GRID = 1_000_000
"""How many settings a grid may have; what is tried of it is the budget's to say."""

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

    @property
    def size(self) -> int | None:
        """How many values there are; None between two real numbers."""
        if self.kind == "choice":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind == "int" else None

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
    """How the next setting is drawn: by what earlier ones scored, or blindly.

    ``tpe`` and ``gp`` (a Gaussian process; needs torch) learn; ``random``, ``qmc`` (a scrambled
    Sobol sequence, which fills the space evenly) and ``grid`` (every setting once, in an order
    drawn from the seed) do not.
    """

    kind: Literal["tpe", "gp", "random", "qmc", "grid"] = "tpe"
    seed: Annotated[int, Field(ge=0)] = 0


class Scheduler(Declared):
    """When a setting is given up in the middle of its fit.

    ``asha`` compares the validation scores that settings report at the steps `grace`,
    `grace` × `factor`, `grace` × `factor`², …, and lets the best of every `factor` go on. Steps of
    networks are epochs, and they report every `validate_every` of them.
    """

    kind: Literal["none", "asha"] = "none"
    grace: Positive = 1
    factor: Annotated[int, Field(ge=2)] = 3

    def reaches_rung(self, before: int, step: int) -> bool:
        """Return True if a step at which settings are compared is after `before`, up to `step`."""
        if self.kind == "none":
            return False
        rung = self.grace
        while rung <= before:
            rung *= self.factor
        return rung <= step


class Budget(Declared):
    """How many settings are tried, how many at a time, and until when new ones are begun.

    Without `trials`, 20 are, and of a grid all.
    """

    trials: Positive | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    concurrent: Positive = 1


class Objective(Declared):
    """What is chosen by: the mean of a metric over validation pairs, the better the better.

    Also given as one text, ``vcc2025:mae``.
    """

    suite: Name = "vcc2025"
    name: Name = "mae"

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        return objective_keys(given)


def objective_keys(given: Any) -> Any:
    """Return ``vcc2025:mae`` as the keys that it stands for, anything else as it is."""
    if not isinstance(given, str):
        return given
    suite, parted, name = given.rpartition(":")
    return {"suite": suite, "name": name} if parted else {"name": name}


Space = Annotated[dict[Name, Dimension], Field(min_length=1)]


class SearchKeys(Declared):
    """What a search has beside the keys of every job."""

    model: Name
    space: Space
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    metric: Objective = Objective()

    @property
    def n_settings(self) -> int:
        """How many settings are tried: what the budget says, and no more than a grid has."""
        if self.sampler.kind != "grid":
            return self.budget.trials or DEFAULT_TRIALS
        return min(self.grid_size, self.budget.trials or self.grid_size)

    @property
    def grid_size(self) -> int:
        """How many settings the space has, where every dimension has so many values."""
        return math.prod(dimension.size or 0 for dimension in self.space.values())

    @model_validator(mode="after")
    def _is_a_grid(self) -> SearchKeys:
        if self.sampler.kind != "grid":
            return self
        for name, dimension in self.space.items():
            if dimension.size is None:
                raise ValueError(
                    f"space.{name}: found {dimension.kind} {dimension.values}, but a grid has no "
                    f"end of them. List those to try, {name}: {{choice: [...]}}, or take another "
                    "sampler: tpe, gp, random or qmc."
                )
        if self.grid_size > MOST_OF_GRID:
            raise ValueError(
                f"space: a grid of {self.grid_size:,} settings, expected at most "
                f"{MOST_OF_GRID:,}. Give fewer values, or take another sampler: qmc fills a space "
                "evenly with however few."
            )
        return self

    @field_validator("space")
    @classmethod
    def _no_seed(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        if "seed" in space:
            raise ValueError("seed is not searched: the best of many seeds is luck. Use `seeds`.")
        return space
