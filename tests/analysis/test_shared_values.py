"""Metrics of which all pairs of a context share one value: a mean, and nothing to resample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.analysis.results import Results
from harness.analysis.tables import Bootstrap, tables_of
from harness.metrics import registered
from harness.scoring.scorer import score
from tests.golden import cases, compare
from tests.toy_run import PAIRS, add_trial

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from harness.analysis.tables import Kind, Table

SHARED = "pearson_edistance"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("shared") / "run"
    rng = np.random.default_rng(0)
    for place, model in enumerate(("best", "middle", "worst")):
        for rank in (2, 4):
            for seed in (0, 1, 2):
                value = 0.9 - 0.2 * place + 0.01 * seed + 0.001 * rank
                scores = {
                    f"cell-eval:{SHARED}": np.full(len(PAIRS), value),
                    "cell-eval:mae": place + rng.random(len(PAIRS)),
                }
                add_trial(run, model, scores, seed=seed, parameters=(("rank", rank),))
    return run


def table(run: Path, kind: Kind) -> Table:
    options = {"suites": ["cell-eval"], "bootstrap": Bootstrap(draws=100)}
    (found,) = tables_of(Results(str(run)), kind, **options)
    return found


def test_every_metric_says_whether_pairs_share_its_value() -> None:
    case = cases.SIMULATED["plain"]()
    sides = compare.annotated(case.truth), compare.annotated(case.prediction)
    centre = np.zeros(case.truth.X.shape[1])
    frame = score(*sides, suite=["cell-eval", "calibrated"], centre=lambda _: centre).frame
    assert {name for name in frame["metric"] if registered()[name].per_context} == {
        "de_spearman_sig",
        "pearson_edistance",
        "clustering_agreement",
    }
    for name, values in frame.groupby("metric")["value"]:
        metric = registered()[str(name)]
        perfect = (values == metric.best).all()
        assert perfect or (values.nunique(dropna=False) == 1) == metric.per_context, name


def test_a_comparison_has_its_mean_and_no_interval(run: Path) -> None:
    found = table(run, "comparison")
    best = found.frame.set_index(["model", "setting"]).loc[("best", "rank=2")]
    assert best[SHARED] == pytest.approx(0.912)
    assert np.isnan([best[f"{SHARED}_low"], best[f"{SHARED}_high"]]).all()
    assert not np.isnan([best["mae_low"], best["mae_high"]]).any()
    assert f"No interval and no test of {SHARED}: one value for all pairs of a context" in str(
        found.notes
    )


def rows_of(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame[frame["metric"] == metric]


def test_paired_differences_are_not_tested(run: Path) -> None:
    frame = table(run, "pairs").frame
    shared, own = rows_of(frame, SHARED), rows_of(frame, "mae")
    assert shared["difference"].notna().all()
    columns = ["difference_low", "difference_high", "p_permutation", "p_wilcoxon_holm"]
    assert shared[columns].isna().all(axis=None)
    assert own[columns].notna().all(axis=None)
    assert set(shared["reason"]) == {"one value for all pairs of a context"}


def test_ranks_are_places_without_intervals(run: Path) -> None:
    found = table(run, "ranks")
    frame = found.frame
    assert sorted(frame[f"{SHARED}_rank"]) == [1, 2, 3, 4, 5, 6]
    columns = [f"{SHARED}_{end}" for end in ("rank_low", "rank_first", "friedman_p", "tau")]
    assert frame[columns].isna().all(axis=None)
    assert frame[[name.replace(SHARED, "mae") for name in columns]].notna().all(axis=None)
    assert "nan" not in found.to_markdown()


def test_effects_of_parameters_have_no_intervals(run: Path) -> None:
    rows = rows_of(table(run, "sweep").frame, SHARED)
    assert rows[["change_low", "mean_low"]].isna().all(axis=None)
    assert rows["mean"].notna().all()
