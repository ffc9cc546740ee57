"""What to run and where: read jobs/*.yaml and cluster/*.yaml, and say what a trial is.

A job says what, never how: no class paths, no templates, no arithmetic. It expands (`expansion`)
into trials. A `TrialSpec` is a frozen value that can be hashed, pickled and stored; its `id` is a
hash of what the trial computes, not of when, where or under which job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_serializer, model_validator

from harness.config import (
    ENTRY_KEYS,
    Controls,
    Declared,
    Kept,
    Name,
    Natural,
    OwnCellStep,
    Positive,
    Seed,
    check_model,
    find_declaration,
    read_yaml,
)
from harness.errors import JobError
from harness.executors.resources import StageResources
from harness.jobs.search_space import SearchKeys
from harness.tasks import data_factor_problems

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler


Filters = Annotated[list[dict[str, Any]], Field(min_length=1)]
"""Partial settings; a trial fits one that it agrees with in every key, or in one of a list."""


def check_data_factors(factors: dict[str, Any] | None) -> dict[str, Any] | None:
    """Check data factors and give them back; a ``ValueError`` names all that is wrong."""
    wrong = [f"{key}: {text}" for key, text in data_factor_problems(factors or {})]
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

    _check_data = field_validator("data")(check_data_factors)

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


Names = Annotated[list[Name], Field(min_length=1)]


class Limits(Declared):
    """When a trial is given up, and when a whole run is.

    `seconds` bounds the wall time of one attempt at a call, which in a search is a setting with all
    of its seeds; `stall_seconds` the time without a sign of life from its worker. Neither failure
    is retried.
    """

    seconds: Annotated[float, Field(gt=0)] | None = None
    stall_seconds: Annotated[float, Field(ge=10)] | None = None
    max_failures: Natural | None = None


class ScoreOptions(Declared):
    """How the trials of a job are scored; none of it is part of a trial's id, save `controls`."""

    suite: Name | Names = "vcc2025"
    baseline: Name | None = None
    floors: dict[str, float] | None = None
    controls: Controls = "divided"

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites, also when only one is named."""
        return _several(self.suite)


class Job(Declared):
    """The declaration that expands into trials."""

    kind: Literal["sweep", "ablation", "search", "score"] = "sweep"
    title: str | None = None
    comment: str | None = None
    dataset: Name | Names
    split: Name | Names
    split_version: Literal[1, 2] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0])
    repeat: Positive = 1
    folds: Annotated[list[Natural], Field(min_length=1)] | None = None
    data: dict[str, Any] | None = None
    models: Annotated[list[ModelEntry], Field(min_length=1)]
    score: ScoreOptions = ScoreOptions()
    resources: StageResources = StageResources()
    limits: Limits = Limits()
    fail_fast: bool = False
    keep: list[Kept] = Field(default=["scores", "profiles"])

    _check_data = field_validator("data")(check_data_factors)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, also when only one is named."""
        return _several(self.dataset)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, also when only one is named."""
        return _several(self.split)

    @property
    def entries(self) -> tuple[tuple[str, ModelEntry], ...]:
        """Every model entry with its key."""
        return tuple((f"models[{place}]", entry) for place, entry in enumerate(self.models))


class AblationJob(Job):
    """A base setting, and what to vary of it: one factor at a time, or all at once.

    `models` are others that stand beside it in the tables, a baseline perhaps.
    """

    models: list[ModelEntry] = Field(default=[])
    base: ModelEntry
    vary: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    design: Literal["one-factor", "full-factorial"] = "one-factor"

    @property
    def entries(self) -> tuple[tuple[str, ModelEntry], ...]:
        """Every model entry with its key."""
        return (("base", self.base), *super().entries)


class SearchJob(SearchKeys, Job):
    """Chooses a setting on the validation pairs of one fold, and scores it once on its test pairs.

    `models` are others that stand beside the chosen one in the tables, a baseline perhaps.
    """

    models: list[ModelEntry] = Field(default=[])
    dataset: Name
    split: Name
    folds: Annotated[list[Natural], Field(min_length=1)] = Field(default=[0])

    @model_validator(mode="after")
    def _can_choose(self) -> SearchJob:
        if len(self.folds) > 1:
            raise ValueError(
                f"folds: found {self.folds}, expected one: the test pairs of a fold are trained "
                "on in others, so what is chosen over several has seen them all."
            )
        if self.scheduler.kind == "asha" and (len(self.seeds) > 1 or self.repeat > 1):
            raise ValueError(
                "scheduler: asha compares fits step by step, so it takes one seed. Leave out "
                "repeat and all seeds but one, or the scheduler."
            )
        return self


class ScoringJob(Job):
    """Scores predictions that were made elsewhere: nothing is fitted, so there are no models.

    `predictions` are folders, globs or files. Which model, seed and setting each is of is said by
    its name and a `pattern`, or by a row of a `manifest`; with one, `predictions` may be left out.
    """

    dataset: list[str] = Field(default=[])
    split: list[str] = Field(default=[])
    models: list[ModelEntry] = Field(default=[])
    truth: Name | TruthSide
    predictions: Name | Names | None = None
    pattern: Name | None = None
    manifest: Name | None = None
    reading: ReadingOptions = ReadingOptions()

    @model_validator(mode="after")
    def _names_predictions(self) -> ScoringJob:
        if self.predictions is None and self.manifest is None:
            raise ValueError("predictions: is missing: neither files nor a manifest is named.")
        if self.pattern is not None and self.manifest is not None:
            raise ValueError("manifest: stands beside pattern, and both name models. Remove one.")
        return self

    @model_validator(mode="after")
    def _fits_nothing(self) -> ScoringJob:
        idle = {"dataset", "split", "models", "seeds", "repeat", "folds", "data"}
        if found := sorted(idle & self.model_fields_set):
            raise ValueError(f"{found[0]}: kind 'score' fits no model, so it has none. Remove it.")
        return self

    @property
    def datasets(self) -> tuple[str, ...]:
        """The dataset whose held-out cells are the truth; none for a truth in a file."""
        return () if isinstance(self.truth, str) else (self.truth.dataset,)

    @property
    def files(self) -> tuple[str, ...]:
        """The folders, globs and files, also when only one is named; none for a manifest alone."""
        return () if self.predictions is None else _several(self.predictions)


def job_model(data: Any) -> type[Job]:
    """Choose the class that a job's file is read as, by its `kind`."""
    kind = data.get("kind") if isinstance(data, dict) else None
    kinds: dict[str, type[Job]] = {
        "ablation": AblationJob,
        "score": ScoringJob,
        "search": SearchJob,
    }
    return kinds.get(kind, Job) if isinstance(kind, str) else Job


def _several(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def read_job(name_or_path: str) -> Job:
    """Read a job by name or path; all that is wrong with the file itself is one `JobError`."""
    path = find_declaration("jobs", name_or_path)
    data = read_yaml(path)
    job, problems = check_model(job_model(data), data, str(path))
    if job is None:
        raise JobError(*problems)
    return job
