"""What every model must satisfy, one function per clause."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HeldOutError, ModelError, listed
from harness.models import Model, answers, model_info, registered_classes, with_cells
from harness.tasks import Prediction, Task, parse_split
from harness.testing.screen import tiny_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.tasks import Query, SplitSpec, TrainView


def check_model(model: type[Model] | str, **parameters: Any) -> None:
    """Run every clause of the contract on a model; `ModelError` says which one it breaks.

    Parameters
    ----------
    model
        A class, or the name of a registered one.
    parameters
        What the model is made with; a `seed` is given besides if it takes one.
    """
    case = Case(model, parameters)
    for clause in CONTRACT:
        clause(case)


@dataclass
class Case:
    """A model, its parameters, and the tiny screen that it is tried on."""

    model: type[Model] | str
    parameters: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def made_by(self) -> type[Model]:
        """The class."""
        return model_info(self.model).model if isinstance(self.model, str) else self.model

    @cached_property
    def ceiling(self) -> bool:
        """Whether the model is fitted to one half of the truth."""
        return any(i.ceiling for i in registered_classes().values() if i.model is self.made_by)

    @cached_property
    def task(self) -> Task:
        """Half of a context's perturbations are to be predicted; the other context is known."""
        return self.task_of(parse_split({"kind": "few-shot-context"}))

    def task_of(self, split: SplitSpec, seed: int = 0) -> Task:
        """Return a task on a tiny screen."""
        return Task(tiny_screen(n_cells=8, seed=seed), split)

    def make(self, seed: int = 0) -> Model:
        """Return a fresh model."""
        takes = "seed" in signature(self.made_by).parameters
        return self.made_by(**({"seed": seed} if takes else {}) | self.parameters)

    def view(self, task: Task) -> TrainView:
        """Return what the model is fitted to."""
        return task.replicate_view() if self.ceiling else task.train_view()

    def queries(self, task: Task) -> tuple[Query, ...]:
        """Return what the model is asked."""
        return task.queries(half=self.ceiling)

    def answers(self, task: Task, seed: int = 0) -> list[Prediction]:
        """Fit a fresh model and return its predictions."""
        fitted = self.make(seed).fit(self.view(task))
        return list(answers(fitted, self.queries(task)))

    def require(self, holds: object, message: str) -> None:
        """Raise `ModelError` with the message unless the condition holds."""
        if not holds:
            raise ModelError(f"{self.made_by.__name__}: {message}")


def stores_its_parameters_and_nothing_else(case: Case) -> None:
    """`__init__` takes keywords with defaults, and keeps them under their own names."""
    for name, parameter in signature(case.made_by).parameters.items():
        case.require(
            parameter.kind is Parameter.KEYWORD_ONLY,
            f"parameter {name!r} is {parameter.kind.description}, expected keyword-only.",
        )
    defaults = {
        name: parameter.default
        for name, parameter in signature(case.made_by).parameters.items()
        if parameter.default is not Parameter.empty and name != "seed"
    }
    model = case.make()
    for name, value in (defaults | case.parameters).items():
        case.require(
            hasattr(model, name) and getattr(model, name) == value,
            f"__init__ was given {name}={value!r}, and the model does not have it as {name!r}.",
        )
    learned = [name for name in vars(model) if name.endswith("_")]
    case.require(not learned, f"{learned} are set before fit, expected parameters only.")


def fit_returns_the_model(case: Case) -> None:
    """`fit` returns the model itself, so that calls can be chained."""
    model = case.make()
    fitted = model.fit(case.view(case.task))
    case.require(fitted is model, f"fit returned {type(fitted).__name__}, expected the model.")


def answers_every_query_once_in_order(case: Case) -> None:
    """One prediction for each query, in the order of the queries."""
    queries = case.queries(case.task)
    found = [answer.query for answer in case.answers(case.task)]
    missing = [query for query in queries if query not in found]
    case.require(
        not missing,
        f"{len(missing)} of {len(queries)} queries got no answer: {_named(missing)}.",
    )
    twice = [query for query in queries if found.count(query) > 1]
    case.require(not twice, f"{len(twice)} queries were answered more than once: {_named(twice)}.")
    case.require(
        found == list(queries), "queries were answered in another order than they were asked in."
    )


def predicts_finite_log1p_values_of_the_right_shape(case: Case) -> None:
    """Cells are (n_cells, n_genes) float32, a profile (n_genes,); log1p, finite."""
    genes = len(case.task.store.genes)
    # No gene can have more than all of a cell's counts; a profile may err a little beyond.
    highest = float(np.log1p(case.task.store.library_size or np.inf)) + 1
    for answer in case.answers(case.task):
        for name, shape in (("cells", (answer.query.n_cells, genes)), ("profile", (genes,))):
            values = getattr(answer, name)
            if values is None:
                continue
            kind = getattr(values, "dtype", None)
            case.require(
                isinstance(values, np.ndarray) and values.dtype.kind in "iuf",
                f"{name} of type {kind or type(values).__name__}, expected an array of floats.",
            )
            case.require(
                np.shape(values) == shape,
                f"{name} of shape {np.shape(values)}, expected {shape}.",
            )
            case.require(np.isfinite(values).all(), f"{name} with NaN or infinite values.")
            case.require(
                values.max() <= highest, f"{name} up to {values.max():.1f}: counts, not log1p?"
            )
        if answer.cells is None:
            case.require(answer.profile is not None, "a prediction with neither cells nor profile.")
        else:
            found = answer.cells.dtype
            case.require(found == np.float32, f"cells of type {found}, expected float32.")
            case.require(answer.cells.min() >= 0, "cells with negative values.")


def gives_the_same_predictions_for_the_same_seed(case: Case) -> None:
    """Two models made and fitted alike predict alike, to the last bit."""
    _require_equal(case, case.answers(case.task, 1), case.answers(case.task, 1), "another time")


def forgets_an_earlier_fit(case: Case) -> None:
    """Fitted to one screen and then to another, it predicts as if it knew the second only."""
    split = parse_split({"kind": "few-shot-context"})
    other = case.task_of(split, seed=7)
    model = case.make()
    list(model.fit(case.view(other)).predict(case.queries(other)))
    again = list(model.fit(case.view(case.task)).predict(case.queries(case.task)))
    _require_equal(case, case.answers(case.task), again, "after another fit")


def predicts_the_same_whatever_else_is_asked(case: Case) -> None:
    """Answers depend on their query alone: not on the others, nor on their order."""
    queries = case.queries(case.task)
    model = case.make().fit(case.view(case.task))
    first = {answer.query: answer for answer in model.predict(queries)}
    asked = queries[::-2]
    again = list(model.predict(asked))
    _require_equal(case, [first[query] for query in asked], again, "among other queries", 1e-5)


def never_asks_for_held_out_cells(case: Case) -> None:
    """Nothing but training pairs is asked of the view, not even to catch the error."""
    view = case.view(case.task)
    try:
        list(case.make().fit(view).predict(case.queries(case.task)))
    except HeldOutError as error:
        raise ModelError(f"{case.made_by.__name__} asked for held-out cells. {error}") from error
    refused = view._shown.refused
    case.require(not refused, f"asked for {refused[:8]}, which it must not see.")


def survives_pickling(case: Case) -> None:
    """Once fitted, it can be sent to another process."""
    fitted = case.make().fit(case.view(case.task))
    try:
        model = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - what was just written
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        message = f"{case.made_by.__name__} cannot be pickled once fitted: {error}."
        raise ModelError(message) from error
    again = list(model.predict(case.queries(case.task)))
    _require_equal(case, case.answers(case.task), again, "after pickling")


def answers_in_a_context_of_controls_only_or_says_why_not(case: Case) -> None:
    """Zero-shot queries are answered, or refused by an error that names the perturbation."""
    task = case.task_of(parse_split({"kind": "zero-shot-context"}))
    queries = case.queries(task)
    try:
        found = len(case.answers(task))
    except ModelError as error:
        said = any(query.perturbation in str(error) for query in queries)
        case.require(said, f"says {str(error)!r}, without naming the query.")
    else:
        case.require(found == len(queries), f"{len(queries)} queries got {found} answers.")


def its_profiles_can_be_given_cells(case: Case) -> None:
    """Whatever the model predicts, the shared step makes cells of it."""
    view = case.view(case.task)
    answers = case.answers(case.task)
    for answer in with_cells(answers, view, "match-controls"):
        shape = (answer.query.n_cells, len(view.genes))
        found = None if answer.cells is None else answer.cells.shape
        case.require(found == shape, f"no cells for {answer.query}.")


CONTRACT: tuple[Callable[[Case], None], ...] = (
    stores_its_parameters_and_nothing_else,
    fit_returns_the_model,
    answers_every_query_once_in_order,
    predicts_finite_log1p_values_of_the_right_shape,
    gives_the_same_predictions_for_the_same_seed,
    forgets_an_earlier_fit,
    predicts_the_same_whatever_else_is_asked,
    never_asks_for_held_out_cells,
    survives_pickling,
    answers_in_a_context_of_controls_only_or_says_why_not,
    its_profiles_can_be_given_cells,
)
"""The clauses, in the order in which `check_model` tries them."""


def _named(queries: Sequence[Query]) -> str:
    return listed(f"{query.perturbation} in {query.context}" for query in queries)


def _require_equal(
    case: Case,
    expected: Sequence[Prediction],
    found: Sequence[Prediction],
    when: str,
    tolerance: float = 0.0,
) -> None:
    for one, other in zip(expected, found, strict=True):
        for name in ("cells", "profile"):
            pair = getattr(one, name), getattr(other, name)
            given = [values is not None for values in pair]
            same = not any(given) or (
                all(given) and np.allclose(*pair, rtol=tolerance, atol=tolerance)
            )
            case.require(same, f"{name} for {one.query.perturbation!r} differ {when}.")
