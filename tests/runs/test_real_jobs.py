"""The shipped jobs on real screens: finished, equal inline and on Ray, and plausible.

They run with one seed instead of three, and without the models that have nothing to learn from on
these screens, whose rows are the mean's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.analysis.results import Results
from harness.analysis.tables import compare
from harness.config.lookup import find_declaration
from harness.config.yaml import read_yaml
from harness.runs.runner import run_job

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

JOBS = {
    "papalexi21": "papalexi21.h5ad",
    "perturbench-contexts": "perturbench_devel.h5ad",
    "perturbench-combinations": "perturbench_devel.h5ad",
}


IDLE = {"kernel-ridge", "nearest-neighbours", "bilinear"}
"""They know a perturbation by its target, which is no gene of these screens, as linear does."""

PATHWAYS = Path(__file__).parents[2] / "docs/papalexi21-pathways.csv"


def smaller(job: str, folder: Path, *more: dict[str, Any]) -> str:
    """Write a shipped job with one seed and fewer models, or with others; return its path."""
    declared = read_yaml(find_declaration("jobs", job))
    declared["seeds"] = [0]
    kept = [entry for entry in declared["models"] if entry["model"] not in IDLE]
    for entry in kept:
        if entry["model"] == "ridge":
            entry["features"] = "identity"
    declared["models"] = [*kept, *more]
    path = folder / f"{job}.yaml"
    path.write_text(json.dumps(declared), encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def inline(
    data_file: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Results]:
    """The results of a job that was run in this process, once for all tests."""
    folder, done = tmp_path_factory.mktemp("inline"), {}

    def run(job: str) -> Results:
        data_file(JOBS[job])
        if job not in done:
            more = [{"model": "ridge", "features": str(PATHWAYS)}] if job == "papalexi21" else []
            path = smaller(job, tmp_path_factory.mktemp(job), *more)
            report = run_job(path, str(folder / job), "inline")
            assert not report.failures, report.failures[0][1].traceback
            done[job] = Results(report.plan.run.path)
        return done[job]

    return run


def by_pair(results: Results) -> pd.DataFrame:
    keys = ["trial", "metric", "context", "perturbation"]
    rows = results.scores.astype(dict.fromkeys(keys, str))
    return rows.set_index(keys)[["value", "reason"]].sort_index()


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_same_numbers_as_this_process(
    inline: Callable[[str], Results], tmp_path: Path
) -> None:
    cluster = tmp_path / "two.yaml"
    cluster.write_text("kind: local\nnum_cpus: 2\nobject_store_memory: 80MiB\n", encoding="utf-8")
    here = by_pair(inline("papalexi21"))
    more = {"model": "ridge", "features": str(PATHWAYS)}
    job = smaller("papalexi21", tmp_path, more)
    report = run_job(job, str(tmp_path / "run"), str(cluster))
    assert not report.failures
    assert by_pair(Results(str(tmp_path / "run"))).equals(here)


@pytest.mark.parametrize("job", JOBS)
def test_the_ceiling_leads_where_real_cells_matter(
    inline: Callable[[str], Results], job: str
) -> None:
    frame = compare(inline(job)).frame.set_index("model")
    assert frame["combined"].idxmax() == "replicate"
    others = frame[frame.index != "replicate"]
    # By the mean: one half of the cells predicts the other, while models have all as their truth.
    for metric in ("overlap_at_N", "discrimination_score_l1"):
        assert frame.loc["replicate", metric] > others[metric].max()


@pytest.mark.parametrize("job", JOBS)
def test_no_effect_is_no_skill(inline: Callable[[str], Results], job: str) -> None:
    frame = compare(inline(job)).frame.set_index("model")
    assert frame.loc["control-mean", "overlap_at_N"] == 0
    assert frame.loc["control-mean", "combined"] < 0.05
    assert frame.loc["random-pair", "mae"] > frame.loc["perturbation-mean", "mae"]


def test_singles_tell_more_of_a_combination_than_the_mean(
    inline: Callable[[str], Results],
) -> None:
    frame = compare(inline("perturbench-combinations")).frame.set_index("model")
    assert frame.loc["additive", "mae"] < frame.loc["perturbation-mean", "mae"]
    metric = "discrimination_score_l1"
    assert frame.loc["additive", metric] > frame.loc["perturbation-mean", metric]


def test_a_share_of_the_sum_is_no_worse_than_the_sum(inline: Callable[[str], Results]) -> None:
    frame = compare(inline("perturbench-combinations")).frame.set_index("model")
    assert frame.loc["shrunken-additive", "mae"] < frame.loc["additive", "mae"]
    metric = "discrimination_score_l1"
    assert frame.loc["shrunken-additive", metric] > frame.loc["perturbation-mean", metric]


def test_a_regression_finds_out_that_other_lines_tell_nothing_here(
    inline: Callable[[str], Results],
) -> None:
    frame = compare(inline("perturbench-contexts")).frame.set_index("model")
    transfer, regression, mean = (
        frame.loc[name, "mae"]
        for name in ("context-transfer", "context-regression", "perturbation-mean")
    )
    assert regression < (transfer + 3 * mean) / 4
    assert regression == pytest.approx(mean, rel=0.02)


def test_what_is_known_of_pathways_tells_unseen_perturbations_apart(
    inline: Callable[[str], Results],
) -> None:
    frame = compare(inline("papalexi21")).frame
    [place] = frame.index[frame["param.features"].str.startswith("papalexi21-pathways", na=False)]
    known = frame.loc[place]
    mean = frame.set_index("model").loc["perturbation-mean"]
    assert known["discrimination_score_l1"] > mean["discrimination_score_l1"] + 0.1
    assert known["combined"] > mean["combined"] + 0.05


def test_targets_that_are_no_genes_make_linear_the_mean(
    inline: Callable[[str], Results],
) -> None:
    frame = compare(inline("papalexi21")).frame.set_index("model")
    metrics = ["overlap_at_N", "mae", "discrimination_score_l1"]
    same = frame.loc["linear", metrics] == frame.loc["perturbation-mean", metrics]
    assert same.all()
