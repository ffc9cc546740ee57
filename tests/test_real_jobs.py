"""The shipped jobs on real screens: finished, equal inline and on Ray, and plausible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.results import Results
from harness.sweep import run_job
from harness.tables import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

JOBS = {
    "papalexi21": "papalexi21.h5ad",
    "perturbench-contexts": "perturbench_devel.h5ad",
    "perturbench-combinations": "perturbench_devel.h5ad",
}


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
            report = run_job(job, str(folder / job), "inline")
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
    report = run_job("papalexi21", str(tmp_path / "run"), str(cluster))
    assert not report.failures
    assert by_pair(Results(str(tmp_path / "run"))).equals(here)


@pytest.mark.parametrize("job", JOBS)
def test_the_ceiling_leads_where_real_cells_matter(
    inline: Callable[[str], Results], job: str
) -> None:
    frame = compare(inline(job)).frame.set_index("model")
    assert frame["combined"].idxmax() == "replicate"
    for metric in ("overlap_at_N", "discrimination_score_l1"):
        others = frame.loc[frame.index != "replicate", metric]
        assert frame.loc["replicate", f"{metric}_low"] > others.max()


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


def test_targets_that_are_no_genes_make_linear_the_mean(
    inline: Callable[[str], Results],
) -> None:
    frame = compare(inline("papalexi21")).frame.set_index("model")
    metrics = ["overlap_at_N", "mae", "discrimination_score_l1"]
    same = frame.loc["linear", metrics] == frame.loc["perturbation-mean", metrics]
    assert same.all()
