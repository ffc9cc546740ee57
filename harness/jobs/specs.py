"""What to run and where: read jobs/*.yaml and cluster/*.yaml, and say what a trial is.

A job says what, never how: no class paths, no templates, no arithmetic. It expands (`expansion`)
into trials. A `TrialSpec` is a frozen value that can be hashed, pickled and stored; its `id` is a
hash of what the trial computes, not of when, where or under which job.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.declarations import Declared, Problem, check_model, read_yaml
from harness.errors import ClusterError, DeclarationError, JobError
from harness.executors.resources import StageResources, right_size
from harness.jobs.entries import CellStep, ModelEntry, Name, OwnCellStep, Positive, right_factors
from harness.jobs.scoring_keys import ScoringKeys
from harness.jobs.search_space import SearchKeys
from harness.storage.paths import find_declaration, parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.tasks.factors import JSON

Controls = Literal["divided", "shared"]
Kept = Literal["scores", "profiles", "predictions", "checkpoints"]
Names = Annotated[list[Name], Field(min_length=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What every random number generator takes that a model may be written with."""

CELLS = Parameter("cells", Parameter.KEYWORD_ONLY, default="shift-controls", annotation=CellStep)
"""What a model that predicts profiles accepts beside its own parameters: how it gets cells."""


# --- jobs ---------------------------------------------------------------------------------------


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

    _check_data = field_validator("data")(right_factors)

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


class ScoringJob(ScoringKeys, Job):
    """Scores predictions that were made elsewhere: nothing is fitted, so there are no models."""

    dataset: list[str] = Field(default=[])
    split: list[str] = Field(default=[])
    models: list[ModelEntry] = Field(default=[])

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


def job_model(data: Any) -> type[Job]:
    """Return what a job's file is to be read as, by its kind."""
    kind = data.get("kind") if isinstance(data, dict) else None
    kinds: dict[Any, type[Job]] = {
        "ablation": AblationJob,
        "score": ScoringJob,
        "search": SearchJob,
    }
    return kinds.get(kind, Job) if isinstance(kind, str) else Job


def _several(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def read_job(name_or_path: str) -> Job:
    """Return a job by name or path; all that is wrong with the file itself is one `JobError`."""
    path = find_declaration("jobs", name_or_path)
    data = read_yaml(path)
    job, problems = check_model(job_model(data), data, str(path))
    if job is None:
        raise JobError(*problems)
    return job


# --- trials -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialSpec:
    """The smallest thing scheduled and scored, as a value.

    `split_spec` is the split's declaration as canonical JSON, `fingerprint` that of the store's
    content, `parameters` are sorted and complete. `data` holds the data factors that differ from
    their defaults. `side` is ``validation`` for a trial to choose by. `prediction` says, for one
    that was made elsewhere, what is in the file and how it is read, as JSON. `inputs` has a digest
    of each file that a parameter names: the id is of the content, wherever it lies. `command` is,
    for a model that is a program, all of its declaration that decides what it predicts. What is
    left at its default is not in the trial's JSON, so that its id is that of a time before there
    were any.
    """

    dataset: str
    dataset_version: int
    fingerprint: str
    split: str
    split_spec: str
    fold: int
    model: str
    parameters: tuple[tuple[str, JSON], ...]
    cells: OwnCellStep | None
    seed: int
    controls: Controls
    data: tuple[tuple[str, JSON], ...] = ()
    side: Literal["validation", "test"] = "test"
    prediction: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    command: str = ""

    @cached_property  # asked for again and again
    def id(self) -> str:
        """The first 12 hexadecimal digits of a hash over everything that the trial computes."""
        named = self
        if self.inputs:  # the digest stands for the path
            parameters = {**dict(self.parameters), **dict(self.inputs)}
            named = replace(self, parameters=frozen_parameters(parameters))
        return hashlib.sha256(named.to_json().encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return (
            f"Trial {self.id} ({self.model}, {self.dataset}, {self.split}, "
            f"fold {self.fold}, seed {self.seed})"
        )

    def to_json(self) -> str:
        """Return the trial as canonical JSON: equal trials give equal text."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {name: dict(values[name]) for name in _MAPPINGS}
        for name, default in _LEFT_OUT.items():
            if values[name] == default:
                del values[name]
        return canonical(values)

    @classmethod
    def from_json(cls, text: str) -> TrialSpec:
        """Return what `to_json` wrote."""
        values = json.loads(text)
        for name in _MAPPINGS:
            values[name] = frozen_parameters(values.get(name, {}))
        values = {**_LEFT_OUT, **values}
        return cls(**{one.name: values[one.name] for one in fields(cls)})


_LEFT_OUT = {"data": {}, "side": "test", "prediction": "", "inputs": {}, "command": ""}
"""Fields that a trial's JSON has only where they differ from this."""

_MAPPINGS = ("parameters", "data", "inputs")
"""The fields of a trial that are mappings in its JSON."""


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; NaN and infinities are a ``ValueError``."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def frozen_parameters(parameters: Mapping[str, Any]) -> tuple[tuple[str, JSON], ...]:
    """Return parameters as a `TrialSpec` holds them: sorted by name, lists as tuples."""
    return tuple((name, _frozen(value)) for name, value in sorted(parameters.items()))


def _frozen(value: Any) -> JSON:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


# --- clusters -----------------------------------------------------------------------------------


class ClusterSpec(Declared):
    """Where trials run: Ray on this machine (``local``), or a Ray cluster that is already up.

    An `address` with ``http`` is that of its dashboard: the run is submitted there as a Ray job.
    `autoscaling` says that the cluster starts nodes as they are needed, so that what no node has
    now may still come; without it, what no living node has any more is waited for no longer than
    `wait_for_node_seconds`.
    """

    kind: Literal["local", "ray"]
    address: str | None = None
    num_cpus: Natural | None = None
    num_gpus: Natural | None = None
    object_store_memory: str | None = None
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    retries: Natural = 2
    autoscaling: bool = False
    wait_for_node_seconds: Annotated[float, Field(ge=0)] = 300
    env: dict[str, str] = Field(default={})

    _check_memory = field_validator("object_store_memory")(right_size)

    @field_validator("address")
    @classmethod
    def _is_no_client(cls, address: str | None) -> str | None:
        if (address or "").startswith("ray://"):
            raise ValueError(
                f"found {address!r}, which is Ray Client: a run would end with its connection. "
                "Expected 'auto' on a node of the cluster, or the dashboard's address, such as "
                "'http://head:8265', where the run is submitted as a Ray job."
            )
        return address

    @property
    def object_store_bytes(self) -> int | None:
        """The size of Ray's object store; None leaves it to Ray."""
        return None if self.object_store_memory is None else parse_size(self.object_store_memory)

    @property
    def submits(self) -> bool:
        """Whether the driver is to live on the cluster, where a run is submitted."""
        return (self.address or "").startswith(("http://", "https://"))

    @property
    def patience(self) -> float | None:
        """How long to wait for a node that is gone, in seconds; None for ever."""
        return None if self.autoscaling else self.wait_for_node_seconds

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClusterSpec:
        if self.kind == "ray" and self.address is None:
            raise ValueError("kind 'ray' needs an address, such as 'auto' or 'http://head:8265'.")
        if self.kind == "local" and self.address is not None:
            raise ValueError("kind 'local' starts its own Ray and takes no address. Use kind: ray.")
        sized = [name for name in _SIZES if getattr(self, name) is not None]
        if self.kind == "ray" and sized:
            raise ValueError(f"{sized[0]} is for kind 'local': a running cluster has its own size.")
        if self.kind == "local" and self.autoscaling:
            raise ValueError("autoscaling is for kind 'ray': this machine does not grow.")
        if self.kind == "local" and "wait_for_node_seconds" in self.model_fields_set:
            raise ValueError("wait_for_node_seconds is for kind 'ray': here is one node, no other.")
        return self


_SIZES = ("num_cpus", "num_gpus", "object_store_memory")

_FOREIGN = {"apiVersion", "cluster_name"}
"""Keys of files in cluster/ that other tools read."""


def read_cluster(name_or_path: str) -> ClusterSpec:
    """Return a cluster file by name or path; all that is wrong with it is one `ClusterError`."""
    path = find_declaration("cluster", name_or_path)
    data = read_yaml(path)
    if isinstance(data, dict) and data.keys() & _FOREIGN:
        raise ClusterError(
            Problem(
                str(path),
                "",
                "is for `kubectl` or `ray up`, which start a cluster; a run needs a file with "
                "kind: local or kind: ray. Inside a cluster that is slurm/inside, kuberay/inside "
                "or ray/inside.",
            )
        )
    cluster, problems = check_model(ClusterSpec, data, str(path))
    if cluster is None:
        raise ClusterError(*problems)
    return cluster


def check_cluster(path: Path) -> list[Problem]:
    """Return all that is wrong with a cluster file."""
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return list(error.args)
    return check_model(ClusterSpec, data, str(path))[1]
