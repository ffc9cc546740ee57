"""What `harness check` says of a job, by all that is really registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.jobs.checks import check_job
from harness.runs.plan import known_names

if TYPE_CHECKING:
    from pathlib import Path

SWEEP = """
dataset: sim:tiny
split: unseen-perturbation
models: [{model: control-mean}, {model: perturbation-mean}]
score: {suite: vcc2025, baseline: perturbation-mean}
"""
SEARCH = """
kind: search
dataset: sim:tiny
split: unseen-perturbation
model: ridge
space: {penalty: {choice: [0.1, 1.0]}}
"""
SCORING = """
kind: score
predictions: predicted
truth: {dataset: sim:tiny, split: unseen-perturbation, fold: 0}
"""


def _problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    found = [str(problem) for problem in check_job(path, known_names())]
    assert all(problem.startswith(f"{path}: ") for problem in found)
    return [problem.removeprefix(f"{path}: ") for problem in found]


@pytest.mark.parametrize("job", [SWEEP, SEARCH, SCORING])
def test_a_right_job_has_no_problems(tmp_path: Path, job: str) -> None:
    assert _problems(tmp_path, job) == []


@pytest.mark.parametrize(
    ("job", "old", "new", "message"),
    [
        (SWEEP, "sim:tiny", "sim:tiny?contxts=2", "dataset.contxts: is not a parameter of a sim"),
        (SWEEP, "sim:tiny", "sim:tiny?contexts=0", "dataset: sim:tiny?contexts=0: contexts is 0"),
        (SWEEP, "sim:tiny", "sim:tiiny", "dataset: unknown dataset 'sim:tiiny'. Did you mean"),
        (SCORING, "sim:tiny", "sim:tiiny", "truth.dataset: unknown dataset 'sim:tiiny'."),
        (SCORING, "unseen-per", "unsen-per", "truth.split: unknown split of sim:tiny"),
        (SCORING, "fold", "fodl", "truth.fodl: is not a known key. Did you mean 'fold'?"),
        (SWEEP, "vcc2025", "[vcc2025, vcc2025]", "score.suite: 'vcc2025' is given twice."),
        (SEARCH, "[0.1, 1.0]", "[0.1, 0.1]", "space.penalty.choice: 0.1 is given twice."),
        (
            SEARCH,
            "{penalty: {choice: [0.1, 1.0]}}",
            "{}",
            "space: found {} (mapping), expected a m",
        ),
        (SEARCH, "[0.1, 1.0]", "[]", "space.penalty.choice: found [] (list), expected a list no s"),
        (
            SEARCH,
            "{choice: [0.1, 1.0]}}",
            "{log: [0.1, 1.0]}}\nsampler: {kind: grid}",
            "space.penalty: found log [0.1, 1.0], but a grid has no end of them. List those to "
            "try, penalty: {choice: [...]}",
        ),
        (
            SWEEP,
            "{model: control-mean}",
            "{model: perturbation-mean}",
            "score.baseline: 'perturbation-mean' is in the job with 2 settings (models[0], "
            "models[1]), expected one",
        ),
        (
            SWEEP,
            "dataset",
            "seeds: [4294967296]\ndataset",
            "seeds[0]: found 4294967296 (int), expected at most 4294967295.",
        ),
    ],
)
def test_one_mistake_is_one_problem_with_its_key(
    tmp_path: Path, job: str, old: str, new: str, message: str
) -> None:
    assert old in job
    found = _problems(tmp_path, job.replace(old, new, 1))
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_wrong_screen_hides_no_other_mistake(tmp_path: Path) -> None:
    wrong = SWEEP.replace("sim:tiny", "sim:tiny?contexts=0").replace("control-mean", "control-meen")
    keys = [problem.partition(":")[0] for problem in _problems(tmp_path, wrong)]
    assert keys == ["dataset", "models[0].model"]


def test_a_misspelt_model_is_not_proposed_for_the_baseline(tmp_path: Path) -> None:
    wrong = SWEEP.replace("model: perturbation-mean", "model: perturbation-maen")
    unknown, baseline = _problems(tmp_path, wrong)
    assert "Did you mean 'perturbation-mean'?" in unknown
    assert "Add it to models" in baseline
    assert "perturbation-maen" not in baseline


def test_a_factor_of_data_given_twice_is_named(tmp_path: Path) -> None:
    found = _problems(tmp_path, f"{SWEEP}data: {{umi_depth: [0.5, 0.5]}}\n")
    assert "data.umi_depth: 0.5 is given twice." in found
