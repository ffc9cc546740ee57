"""Check a job against what is registered: datasets, splits, models, their parameters, and suites.

It works on the file as it was read, not on the parsed job: a wrong type in one line must not hide
an unknown model in the next. Hence the care with which each value is looked at before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.config import (
    DATA_FACTORS,
    ENTRY_KEYS,
    Problem,
    check_model,
    missing,
    parameter_problems,
    read_yaml,
    value_problems,
    words,
)
from harness.data.dataset_names import is_store_path, parse_simulated
from harness.errors import DeclarationError, HarnessError, near_match
from harness.jobs.job import job_model
from harness.jobs.search_space import Dimension, objective_keys
from harness.jobs.settings import settings
from harness.storage import exists
from harness.tasks import data_factor_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from inspect import Parameter
    from pathlib import Path

Found = tuple[str, str]
"""A dotted key and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is registered, as far as a job can name it.

    Attributes
    ----------
    splits_of
        The splits of a dataset, by its name; called for known datasets only.
    parameters_of
        A model's parameters as `inspect.signature` gives them, with `specs.CELLS` among them for
        a model that predicts profiles; called for known models only.
    simulation_options
        What may follow the question mark of ``sim:small?seed=3``.
    metrics
        By suite, its metrics with whether higher is better; None for a mere count.
    broken
        Declared models that cannot be used, each with what is wrong with it first.
    """

    models: Sequence[str]
    suites: Sequence[str]
    datasets: Sequence[str]
    splits_of: Callable[[str], Sequence[str]]
    parameters_of: Callable[[str], Mapping[str, Parameter]]
    simulation_options: Mapping[str, Parameter] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, bool | None]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def check_job(path: Path, known: Known) -> list[Problem]:
    """Check a job file, and list its problems in the order of its keys."""
    file = str(path)
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return list(error.args)
    _, problems = check_model(job_model(data), data, file)
    if not isinstance(data, dict):
        return problems
    seen = {problem.key for problem in problems}
    for check in (_datasets, _splits, _search, _models, _score, _repeats):
        problems += [
            Problem(file, key, text) for key, text in check(data, known) if key not in seen
        ]
    return problems


def _named(data: Any, key: str) -> Iterator[Found]:
    """List the names under `key`, one or several, each with its own key."""
    value = data.get(key) if isinstance(data, dict) else None
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        yield from ((f"{key}[{i}]", v) for i, v in enumerate(value) if isinstance(v, str))


def _unknown(key: str, kind: str, name: str, names: Sequence[str]) -> Found:
    return key, f"unknown {kind} {name!r}. {near_match(name, names)}"


def _screens(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the mappings that name datasets and splits: the job, and the truth that it scores by.

    Each comes with the prefix of its keys.
    """
    yield "", data
    if data.get("kind") == "score" and isinstance(data.get("truth"), dict):
        yield "truth.", data["truth"]


def _datasets(data: dict[str, Any], known: Known) -> Iterator[Found]:
    for prefix, screens in _screens(data):
        for key, name in _named(screens, "dataset"):
            yield from _dataset(f"{prefix}{key}", name, known)


def _dataset(key: str, name: str, known: Known) -> Iterator[Found]:
    """Check the name of a dataset; one without problems can be asked for its splits."""
    if is_store_path(name):
        if not exists(name):
            yield key, f"there is no store {name}. Make it with: harness convert"
        return
    try:
        simulated = parse_simulated(name)
    except ValueError as error:
        yield key, str(error)
        return
    base = f"sim:{simulated.preset}" if simulated else name
    if base not in known.datasets and exists(name):
        yield key, f"{name} is no store. Make one of it with: harness convert {name} -o NAME.zarr"
    elif base not in known.datasets:
        yield _unknown(key, "dataset", base, known.datasets)
    if not simulated:
        return
    options = dict(simulated.options)
    wrong = list(parameter_problems(key, "a simulation", options, known.simulation_options))
    yield from wrong
    if base in known.datasets and not wrong:
        try:  # a number that no screen can have: none of cells, more combinations than there are
            known.splits_of(name)
        except HarnessError as error:
            yield key, str(error)


def _splits(data: dict[str, Any], known: Known) -> Iterator[Found]:
    for prefix, screens in _screens(data):
        for key, dataset in _named(screens, "dataset"):
            if any(_dataset(key, dataset, known)):
                continue
            names = known.splits_of(dataset)
            for place, name in _named(screens, "split"):
                if name not in names:
                    yield _unknown(f"{prefix}{place}", f"split of {dataset}", name, names)


def _entries(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    base, models = data.get("base"), data.get("models")
    if isinstance(base, dict) and isinstance(base.get("model"), str):
        yield "base", base
    for i, entry in enumerate(models if isinstance(models, list) else []):
        if isinstance(entry, dict) and isinstance(entry.get("model"), str):
            yield f"models[{i}]", entry


def _models(data: dict[str, Any], known: Known) -> Iterator[Found]:
    for key, entry in _entries(data):
        model = entry["model"]
        if model in known.broken:
            yield f"{key}.model", f"{model!r} cannot be used: {known.broken[model]}"
            continue
        if model not in known.models:
            yield _unknown(f"{key}.model", "model", model, known.models)
            continue
        given, zipped = _settable(entry), _mapping(entry.get("zip"))
        if "seed" in given:
            yield f"{key}.seed", "is set for all models at once. Use the job's seeds."
            del given["seed"]
        parameters = {n: p for n, p in known.parameters_of(model).items() if n != "seed"}
        if "cells" in given and "cells" not in parameters:
            yield f"{key}.cells", f"does not apply: {model} predicts cells itself. Remove it."
            del given["cells"]
        yield from parameter_problems(key, model, given, parameters)
        yield from parameter_problems(f"{key}.zip", model, zipped, parameters)
        yield from missing(key, model, {**given, **zipped}, parameters)
        if key == "base":
            yield from _varied(model, given, _mapping(data.get("vary")), parameters)


def _settable(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("model", *ENTRY_KEYS)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _varied(
    model: str, given: dict[str, Any], vary: dict[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Check the factors of an ablation and the values that they take."""
    for name, value in given.items():
        if isinstance(value, list) and name in known:
            yield f"base.{name}", "is a list: the base is one setting. Put the list under vary."
    factors = {name: levels for name, levels in vary.items() if name in DATA_FACTORS}
    yield from ((f"vary.{key}", text) for key, text in data_factor_problems(factors))
    others = {name: levels for name, levels in vary.items() if name not in DATA_FACTORS}
    for name in (name for name in others if name not in known):
        hint = near_match(name, (*known, *DATA_FACTORS))
        yield f"vary.{name}", f"is no factor: neither a parameter of {model} nor of data. {hint}"
    right = {name: levels for name, levels in others.items() if name in known and levels != []}
    yield from parameter_problems("vary", model, right, known)


def _score(data: dict[str, Any], known: Known) -> Iterator[Found]:
    score = data.get("score")
    scored = data.get("kind") == "score"  # the models are those that the files are named after
    for key, name in _named(score, "suite"):
        if name not in known.suites:
            yield _unknown(f"score.{key}", "suite", name, known.suites)
    for key, name in () if scored else _named(score, "baseline"):
        yield from _baseline(f"score.{key}", name, data, known)


def _baseline(place: str, name: str, data: dict[str, Any], known: Known) -> Iterator[Found]:
    """Check that a baseline is a model of the job, and has one setting there."""
    places = {key: entry for key, entry in _entries(data) if entry["model"] == name}
    meant = sum(_n_settings(entry, data) for entry in places.values())
    if not places:
        right = [e["model"] for _, e in _entries(data) if e["model"] in known.models]
        if name in known.models:
            hint = "Add it to models, or name one of them."
        else:
            hint = near_match(name, right or known.models)
        yield place, f"{name!r} is not among the job's models. {hint}"
    elif meant > 1:
        yield (
            place,
            f"{name!r} is in the job with {meant} settings ({', '.join(places)}), expected one: "
            "without lists, data factors or a second entry.",
        )


def _n_settings(entry: dict[str, Any], data: dict[str, Any]) -> int:
    """Count the settings of an entry; with filters as one, since these may leave one."""
    if entry is data.get("base"):
        return 1 + sum(len(v) for v in _mapping(data.get("vary")).values() if isinstance(v, list))
    if "only" in entry or "except" in entry:
        return 1
    zipped = [v for v in _mapping(entry.get("zip")).values() if isinstance(v, list)]
    factors = _mapping(entry.get("data", data.get("data")))
    paired = max((len(values) for values in zipped), default=1)
    return paired * len(settings(_settable(entry))) * len(settings(factors))


def _repeats(data: dict[str, Any], known: Known) -> Iterator[Found]:
    lists = {name: data.get(name) for name in ("dataset", "split", "seeds", "folds", "keep")}
    lists["score.suite"] = _mapping(data.get("score")).get("suite")
    if data.get("kind") == "search":
        space = _mapping(data.get("space"))
        lists |= {f"space.{n}.choice": _mapping(one).get("choice") for n, one in space.items()}
    for key, owner in (("data", data), *((f"{key}.data", one) for key, one in _entries(data))):
        factors = _mapping(owner.get("data"))
        lists |= {f"{key}.{name}": values for name, values in factors.items()}
    for key, values in lists.items():
        # Compared as they are written: true is no 1, which Python holds for equal.
        shown = [repr(value) for value in values] if isinstance(values, list) else []
        if repeated := [text for i, text in enumerate(shown) if text in shown[:i]]:
            yield key, f"{repeated[0]} is given twice."


def _search(data: dict[str, Any], known: Known) -> Iterator[Found]:
    """Check the model, space, metric and data of a search; another kind of job has no problems."""
    if data.get("kind") != "search":
        return
    model, space = data.get("model"), data.get("space")
    if isinstance(model, str):
        if model not in known.models:
            yield _unknown("model", "model", model, known.models)
        elif isinstance(space, dict):
            yield from _space(model, space, known.parameters_of(model))
    yield from _metric(objective_keys(data.get("metric", {})), known)
    for name, value in _mapping(data.get("data")).items():
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
            yield from value_problems(f"{key}.choice", dimension.values, annotation)
            continue
        whole = dimension.kind == "int"
        ends = [value if whole else float(value) for value in dimension.values]
        if any(value_problems(key, ends, annotation)):
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
            yield _unknown("metric.suite", "suite", suite, known.suites)
        return
    metrics = known.metrics.get(suite, {})
    if not isinstance(name, str):
        return
    if name not in metrics:
        hint = near_match(name, tuple(metrics))
        yield "metric.name", f"unknown metric {name!r} of {suite}. {hint}"
    elif metrics[name] is None:
        better = tuple(other for other, direction in metrics.items() if direction is not None)
        yield "metric.name", f"{name} is a mere count: none is better. {near_match('', better)}"
