"""What a search declares: what cannot be meant starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from harness.errors import JobError
from harness.jobs.search_space import Objective
from harness.runs.runner import run_job
from tests.searched import JOB

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": "liner"}, "model: unknown model 'liner'. Did", id="model"),
        pytest.param({"space": {"rnk": {"choice": [1]}}}, "space.rnk: is not a par", id="name"),
        pytest.param({"space": {"rank": {}}}, "space.rank: found nothing, exp", id="no_kind"),
        pytest.param({"space": {"rank": {"lgo": [1, 2]}}}, "Did you mean 'log'", id="kind"),
        pytest.param({"space": {"rank": {"log": [1, 9]}}}, "draws numbers with fr", id="type"),
        pytest.param(
            {"space": {"rank": {"choice": [2, "4"]}}}, r"choice\[1\]: found '4'", id="choice"
        ),
        pytest.param({"space": {"ridge": {"log": [0, 1]}}}, "low < high above 0", id="ends"),
        pytest.param({"space": {"seed": {"int": [0, 9]}}}, "seed is not searched", id="seed"),
        pytest.param({"sampler": {"kind": "grid"}}, r"space.ridge: found log \[0.001", id="grid"),
        pytest.param(
            {"sampler": {"kind": "grid"}, "space": {"rank": {"int": [1, 2_000_000]}}},
            "a grid of 2,000,000 settings, expected at most",
            id="large_grid",
        ),
        pytest.param({"sampler": {"kind": "tp"}}, "sampler.kind: .* Did you mean 'tpe'", id="tpe"),
        pytest.param(
            {"metric": {"name": "mea"}}, "metric.name: .* Did you mean 'mae'", id="metric"
        ),
        pytest.param(
            {"metric": {"suite": "cell-eval", "name": "de_nsig_counts_pred"}},
            "is a mere count",
            id="no_direction",
        ),
        pytest.param({"folds": [0, 1]}, "expected one: the test pairs of a fold", id="folds"),
        pytest.param(
            {"seeds": [0, 1], "scheduler": {"kind": "asha"}}, "takes one seed", id="asha_seeds"
        ),
        pytest.param({"data": {"umi_depth": [0.5, 0.1]}}, "data.umi_depth: is a li", id="data"),
        pytest.param(
            {"split": "unseen-perturbation"}, "no validation pairs, and a search", id="split"
        ),
    ],
)
def test_a_search_that_cannot_be_meant_starts_nothing(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "find.yaml"
    path.write_text(yaml.safe_dump({**JOB, **changes}), encoding="utf-8")
    with pytest.raises(JobError, match=message):
        run_job(str(path), str(tmp_path / "run"), "inline")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("vcc2025:mae", ("vcc2025", "mae")),
        ("cell-eval:minimal:mse", ("cell-eval:minimal", "mse")),
        ("overlap_at_N", ("vcc2025", "overlap_at_N")),
        ({"suite": "vcc2026", "name": "pds_cosine"}, ("vcc2026", "pds_cosine")),
    ],
)
def test_what_is_chosen_by_may_be_one_text(given: Any, found: tuple[str, str]) -> None:
    objective = Objective.model_validate(given)
    assert (objective.suite, objective.name) == found
