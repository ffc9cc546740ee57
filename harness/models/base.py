"""What a model is, and how it is found by its name.

A model is any class with `fit` and `predict`. It keeps its parameters in `__init__` and does
nothing else there; `fit` forgets an earlier fit; the same seed gives the same predictions. What it
learned ends in an underscore. `harness.testing.check_model` tests all of it.

::

    @register("my-model")
    class MyModel:
        def __init__(self, *, strength: float = 1.0) -> None:
            self.strength = strength

        def fit(self, train: TrainView) -> Self:
            self.train_ = train
            return self

        def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
            for query in queries:
                yield Prediction(query, profile=self.train_.control_pseudobulk(query.context))
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from annotated_types import Ge, Gt, Le

from harness.config import CELL_STEP, CellStep, OwnCellStep
from harness.errors import ModelError, UnknownNameError
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from harness.tasks import Query, TrainView

# What a parameter can be, so that a job with another value is refused before it begins.
Count = Annotated[int, Ge(1)]
NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]

GROUP = "harness.models"
"""The entry point group by which other packages offer models."""


@runtime_checkable
class Model(Protocol):
    """Learns from training pairs, then predicts cells or a profile for each query.

    A model that answers a query by something weaker than what it stands for, since it cannot do
    better, says so in `notes_`, a list of sentences that `predict` begins anew.

    Where fit and predict are calls of their own, a fitted model is pickled in between. One that
    cannot be, or should not, has two more methods: ``save(folder)`` writes what it learned into an
    empty folder, and ``restore(folder, train)`` reads it into a model with the same parameters.
    """

    def fit(self, train: TrainView) -> Self:
        """Learn from what the view shows, and forget an earlier fit."""

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield one prediction for each query, in the order of the queries."""


M = TypeVar("M", bound=type[Model])


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the registry knows of a model.

    `ceiling` marks a model that is fitted to one half of the truth. `cells` is the step that its
    profiles take where a job does not say; None for a model that predicts cells alone, ``own`` for
    one that also gives a profile, which a job may have made into cells instead.
    """

    name: str
    model: type[Model]
    ceiling: bool
    cells: OwnCellStep | None

    @property
    def description(self) -> str:
        """The model's docstring."""
        return (self.model.__doc__ or "").strip()

    @property
    def summary(self) -> str:
        """The first line of the model's docstring."""
        return self.description.partition("\n")[0]


_MODELS: dict[str, ModelInfo] = {}


def register(
    name: str, *, ceiling: bool = False, cells: OwnCellStep | None = CELL_STEP
) -> Callable[[M], M]:
    """Return a decorator that makes a class known under a name."""

    def add(model: M) -> M:
        known = _MODELS.get(name)
        if known and known.model.__qualname__ != model.__qualname__:
            msg = f"model {name!r} is registered already, by {known.model.__qualname__}"
            raise ValueError(msg)
        _MODELS[name] = ModelInfo(name, model, ceiling, cells)
        return model

    return add


@cache
def _shipped() -> None:
    """Import every module of models, so that all are registered."""
    for package in ("harness.models", "harness.models.networks"):
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            if not module.ispkg:
                import_module(module.name)


@cache
def _offered() -> tuple[EntryPoint, ...]:
    """List the models that other packages offer; once, since that reads a file of each package."""
    return tuple(entry_points(group=GROUP))


def registered_classes() -> dict[str, ModelInfo]:
    """Return every model by its name: those of this package, then those of entry points."""
    _shipped()
    for entry in _offered():
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise ModelError(
                f"Model {entry.name!r} cannot be loaded from {entry.value!r}: {error}. Repair or "
                "uninstall the package that offers it."
            ) from error
        if entry.name not in _MODELS:
            register(entry.name)(loaded)
    return dict(sorted(_MODELS.items()))


def model_info(name: str) -> ModelInfo:
    """Look up a model; `UnknownNameError` with a near match for an unknown name."""
    models = registered_classes()
    if name not in models:
        raise UnknownNameError("model", name, tuple(models))
    return models[name]


def model_class(name: str) -> type[Model]:
    """Return the class that is registered under a name."""
    return model_info(name).model


def class_parameters(name: str) -> dict[str, Parameter]:
    """Return the parameters that a job may set for a model, with types and defaults.

    Among them `cells` for a model that predicts profiles, and `seed`, which jobs set by `seeds`,
    for one that draws.
    """
    info = model_info(name)
    parameters = dict(signature(info.model, eval_str=True).parameters)
    if info.cells is not None:
        kind = Parameter.KEYWORD_ONLY
        steps = OwnCellStep if info.cells == "own" else CellStep
        parameters["cells"] = Parameter("cells", kind, default=info.cells, annotation=steps)
    return parameters


def make_model(name: str, parameters: Mapping[str, Any] | None = None, seed: int = 0) -> Model:
    """Return a model with its parameters set; it gets the seed if it takes one."""
    known = signature(model_class(name)).parameters
    given = dict(parameters or {})
    for key in given:
        if key not in known:
            raise UnknownNameError(f"parameter of {name}", key, tuple(known))
    if "seed" in known:
        given.setdefault("seed", seed)
    return model_class(name)(**given)


def answers(model: Model, queries: Sequence[Query]) -> Iterator[Prediction]:
    """Yield a model's predictions; `ModelError` for another object or a query not asked for."""
    name, asked = type(model).__name__, set(queries)
    predicted = model.predict(queries)
    if not isinstance(predicted, Iterable):
        raise ModelError(
            f"{name}.predict returned {type(predicted).__name__}, expected predictions: let it "
            "yield one for each query."
        )
    for one in predicted:
        if not isinstance(one, Prediction):
            raise ModelError(
                f"{name}.predict yielded {type(one).__name__}, expected a harness.tasks.Prediction "
                "with the query that it answers."
            )
        if one.query not in asked:
            raise ModelError(
                f"{name}, prediction for {one.query.perturbation!r} in {one.query.context!r}: "
                "nobody asked for it. Answer the queries that `predict` is given, as they are."
            )
        yield one


def at_least(least: float, **values: float | None) -> None:
    """Raise for a parameter that is below what it can be; None is left to the model."""
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{name} is {value!r}, expected at least {least!r}.")


def notes(model: Model) -> tuple[str, ...]:
    """List the notes of a model on its last predictions."""
    return tuple(getattr(model, "notes_", ()))


def query_rng(seed: int, query: Query, purpose: str = "") -> np.random.Generator:
    """Return the generator of one query, so that predictions do not depend on their order."""
    names = "\0".join([purpose, str(seed), query.perturbation, query.context])
    digest = blake2b(names.encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest))


class Supervision(Protocol):
    """Validation scores, a checkpoint that outlives the process, and the learning curve."""

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric, as ``suite:name``, is better; an error for an unknown one."""

    def validate(self, model: Model, step: int, metric: str) -> float | None:
        """Score what the model now predicts for the validation pairs; None without any.

        What a step is, settings of one search must agree on: networks count epochs, for settings
        with other batches have other numbers of them.
        """

    def load(self) -> bytes | None:
        """Load the last checkpoint of an interrupted attempt at the same trial."""

    def save(self, state: bytes) -> None:
        """Keep a checkpoint in place of the one before, whole or not at all."""

    def record(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Store the learning curve so far, one row an epoch."""
