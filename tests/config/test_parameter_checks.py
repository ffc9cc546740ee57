"""Values of parameters: types and bounds are checked before a job begins, wherever they stand."""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt

from harness.config.input_file import InputFile
from harness.config.parameter_checks import accepts, kinds, value_problems, words
from harness.errors import JobError
from harness.jobs.settings import complete
from harness.models import parameters_of, registered_classes
from harness.models.base import Count, NonNegative, Positive, Share
from harness.runs.plan import plan_job

if TYPE_CHECKING:
    from pathlib import Path

JOB = {
    "dataset": "sim:tiny?contexts=1&genes=60",
    "split": "unseen-perturbation",
    "folds": [0],
    "models": [{"model": "control-mean"}],
}


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "said"),
    [
        (Count, [1, 9], [0, -3, 1.5, True, "1", None], "int, at least 1"),
        (Count | None, [1, None], [0], "int, at least 1 or null"),
        (Positive, [0.1, 3], [0, -1.0], "a number, above 0"),
        (NonNegative, [0, 0.0, 7], [-1e-9], "a number, at least 0"),
        (Share, [0, 0.5, 1], [1.01, -0.1], "a number, at least 0 and at most 1"),
        (Annotated[float, Gt(1), Lt(2)], [1.5], [1, 2], "a number, above 1 and below 2"),
        (Annotated[int, Ge(0), Le(3), "a note"], [0, 3], [4], "int, at least 0 and at most 3"),
        (Annotated[float, "a note"], [-4.0], ["x"], "a number"),
        (Literal["a"] | InputFile, ["a", "x.csv"], [1], "'a' or the path of a file"),
    ],
)
def test_bounds_are_a_part_of_a_type(annotation, right, wrong, said) -> None:
    assert [value for value in right if not accepts(annotation, value)] == []
    assert [value for value in wrong if accepts(annotation, value)] == []
    assert words(annotation) == said


def test_the_kinds_of_an_annotation_are_its_plain_types() -> None:
    assert kinds(Count) == (int,)
    assert kinds(NonNegative | None) == (float, type(None))
    assert kinds(int | Annotated[str, "x"]) == (int, str)


def test_a_whole_number_of_a_bounded_float_is_that_float() -> None:
    known = {
        "penalty": Parameter(
            "penalty", Parameter.KEYWORD_ONLY, default=None, annotation=NonNegative | None
        )
    }
    assert repr(complete("ridge", {"penalty": 1}, known)) == "{'penalty': 1.0}"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{model: linear, rank: [4, -3]}", "models[0].rank[1]: found -3 (int), expected int, at"),
        ("{model: linear, ridge: -1}", "models[0].ridge: found -1 (int), expected a number, at"),
        ("{model: ridge, penalty: -0.1}", "models[0].penalty: found -0.1 (float), expected"),
        ("{model: nearest-neighbours, k: 0}", "models[0].k: found 0 (int), expected int, at"),
        ("{model: decoder-only, dropout: 1.5}", "models[0].dropout: found 1.5 (float), expected"),
        ("{model: decoder-only, learning_rate: 0}", "models[0].learning_rate: found 0 (int)"),
        ("{model: linear, zip: {rank: [2, 0], ridge: [1, 2]}}", "models[0].zip.rank[1]: found 0"),
    ],
)
def test_a_job_with_a_value_out_of_bounds_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, "models": [yaml.safe_load(entry)]}), encoding="utf-8")
    with pytest.raises(JobError) as raised:
        plan_job(str(path), str(tmp_path / "run"))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"int": [0, 8]}, "space.rank.int: draws whole numbers from 0 to 8, expected int, at"),
        ({"choice": [2, 0]}, "space.rank.choice[1]: found 0 (int), expected int, at least 1."),
        ({"uniform": [1, 8]}, "space.rank.uniform: draws numbers with fractions from 1 to 8"),
    ],
)
def test_a_search_draws_within_bounds(tmp_path: Path, dimension: dict, said: str) -> None:
    job = {k: v for k, v in JOB.items() if k != "folds"} | {
        "kind": "search",
        "model": "linear",
        "space": {"rank": dimension},
        "metric": "vcc2025:mae",
        "budget": {"trials": 2},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    with pytest.raises(JobError) as raised:
        plan_job(str(path), str(tmp_path / "run"))
    assert said in str(raised.value)


def test_every_default_keeps_its_own_bounds() -> None:
    for name in registered_classes():
        for key, parameter in parameters_of(name).items():
            if parameter.default is not Parameter.empty:
                assert [*value_problems(key, parameter.default, parameter.annotation)] == [], name


def test_every_number_of_a_shipped_model_but_its_seed_has_bounds() -> None:
    for name, info in registered_classes().items():
        if not info.model.__module__.startswith("harness.models."):
            continue
        for key, parameter in parameters_of(name).items():
            if {int, float} & {*kinds(parameter.annotation)} and key != "seed":
                assert not accepts(parameter.annotation, -1e9), f"{key} of {name}"
                assert not accepts(parameter.annotation, -(10**9)), f"{key} of {name}"
