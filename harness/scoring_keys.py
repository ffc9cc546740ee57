"""What a job of kind score declares: a truth, files of predictions, and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.declarations import Declared
from harness.entries import Name  # noqa: TC001 - pydantic reads it


class TruthSide(Declared):
    """The held-out cells of one fold of a dataset, as the truth of predictions made elsewhere."""

    dataset: Name
    split: Name
    fold: Annotated[int, Field(ge=0)] = 0
    side: Literal["validation", "test"] = "test"


class ReadingOptions(Declared):
    """How truth and predictions are labelled."""

    perturbation_column: Name = "target_gene"
    context_column: Name | None = None
    control: Name = "non-targeting"
    scale: Literal["log1p", "counts"] | None = None
    prediction_scale: Literal["log1p", "counts"] | None = None


class ScoringKeys(Declared):
    """The keys of `kind: score`.

    `predictions` are folders, globs or files; `pattern` says which model, seed and setting a file's
    name speaks of.
    """

    truth: Name | TruthSide
    predictions: Name | Annotated[list[Name], Field(min_length=1)]
    pattern: Name | None = None
    reading: ReadingOptions = ReadingOptions()

    @property
    def files(self) -> tuple[str, ...]:
        """The folders, globs and files, also when only one is named."""
        wanted = self.predictions
        return (wanted,) if isinstance(wanted, str) else tuple(wanted)
