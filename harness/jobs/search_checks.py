"""Check what a search declares against what is registered: model, parameters, metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.config.parameter_checks import missing, words, wrong_values
from harness.errors import near_match
from harness.jobs.search_space import Dimension, objective_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from inspect import Parameter

    from harness.jobs.checks import Known

Found = tuple[str, str]


def search_problems(data: dict[str, Any], known: Known) -> Iterator[Found]:
    """Yield what is wrong with a search, as keys and texts; nothing for another kind of job."""
    if data.get("kind") != "search":
        return
    model, space = data.get("model"), data.get("space")
    if isinstance(model, str):
        if model not in known.models:
            yield "model", f"unknown model {model!r}. {near_match(model, known.models)}"
        elif isinstance(space, dict):
            yield from _space(model, space, known.parameters_of(model))
    yield from _metric(objective_keys(data.get("metric", {})), known)
    factors = data.get("data")
    for name, value in (factors if isinstance(factors, dict) else {}).items():
        if isinstance(value, list):
            yield f"data.{name}", "is a list: a search is made on one state of the data."


def _space(
    model: str, space: dict[str, Any], parameters: Mapping[str, Parameter]
) -> Iterator[Found]:
    parameters = {name: one for name, one in parameters.items() if name != "seed"}
    for name, declared in space.items():
        key = f"space.{name}"
        if name not in parameters:
            yield key, f"is not a parameter of {model}. {near_match(name, tuple(parameters))}"
            continue
        try:
            dimension = Dimension.model_validate(declared)
        except ValueError:
            continue  # the declaration's own check says so
        annotation = parameters[name].annotation
        if dimension.kind == "choice":
            yield from wrong_values(f"{key}.choice", dimension.values, annotation)
            continue
        whole = dimension.kind == "int"
        ends = [value if whole else float(value) for value in dimension.values]
        if any(wrong_values(key, ends, annotation)):
            found = "whole numbers" if whole else "numbers with fractions"
            yield (
                f"{key}.{dimension.kind}",
                f"draws {found} from {ends[0]:g} to {ends[1]:g}, expected {words(annotation)}.",
            )
    yield from missing("space", model, space, parameters)


def _metric(declared: Any, known: Known) -> Iterator[Found]:
    if not isinstance(declared, dict):
        return
    suite, name = declared.get("suite", "vcc2025"), declared.get("name", "mae")
    if suite not in known.suites:
        if isinstance(suite, str):
            yield "metric.suite", f"unknown suite {suite!r}. {near_match(suite, known.suites)}"
        return
    metrics = known.metrics.get(suite, {})
    if not isinstance(name, str):
        return
    if name not in metrics:
        yield (
            "metric.name",
            f"unknown metric {name!r} of {suite}. {near_match(name, tuple(metrics))}",
        )
    elif metrics[name] is None:
        better = tuple(other for other, direction in metrics.items() if direction is not None)
        yield "metric.name", f"{name} is a mere count: none is better. {near_match('', better)}"
