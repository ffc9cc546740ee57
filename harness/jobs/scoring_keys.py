"""What a job of kind score declares: a truth, files of predictions, and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.config.declarations import Declared
from harness.jobs.entries import Name  # noqa: TC001 - pydantic reads it


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

    `predictions` are folders, globs or files. Which model, seed and setting each is of is said by
    its name and a `pattern`, or by a row of a `manifest`; with one, `predictions` may be left out.
    """

    truth: Name | TruthSide
    predictions: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    pattern: Name | None = None
    manifest: Name | None = None
    reading: ReadingOptions = ReadingOptions()

    @model_validator(mode="after")
    def _names_predictions(self) -> ScoringKeys:
        if self.predictions is None and self.manifest is None:
            raise ValueError("predictions: is missing: neither files nor a manifest is named.")
        if self.pattern is not None and self.manifest is not None:
            raise ValueError("manifest: stands beside pattern, and both name models. Remove one.")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The folders, globs and files, also when only one is named; none for a manifest alone."""
        wanted = self.predictions
        if wanted is None:
            return ()
        return (wanted,) if isinstance(wanted, str) else tuple(wanted)
