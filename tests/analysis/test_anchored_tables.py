"""The score of 2026 in the tables of jobs: where a model lies between the anchors of its truths."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import harness
from harness.analysis.results import Results
from harness.analysis.statistics import Bootstrap
from harness.analysis.tables import ablation, compare, write_batch_tables, write_tables
from harness.analysis.tables.selection import Scope, standing
from harness.data.predictions import open_predictions
from harness.data.store import open_store
from harness.metrics.anchored_score import SCALES, scaled, scaled_members
from harness.metrics.suites import suite_named
from harness.runs.runner import run_job
from harness.scoring.batch import Request, score_files
from harness.scoring.scorer import prepare, score
from harness.scoring.to_counts import CountedCells
from harness.tasks import parse_split
from harness.tasks.task import Task

if TYPE_CHECKING:
    from pathlib import Path

    from harness.analysis.tables import Table
    from harness.data.store import Store
    from harness.scoring.truth import PreparedTruth

SUITE = "vcc2026"
FEW = Bootstrap(draws=50)
BOTH = ["control-mean", "perturbation-mean"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated(tmp_path_factory.mktemp("anchored") / "screen.zarr")


@pytest.fixture(scope="module")
def results(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two folds of perturbations, each tested in both contexts, and two seeds."""
    return ran(store, tmp_path_factory.mktemp("ran"), "folds: [0, 1]\nseeds: [0, 1]\n")


def simulated(path: Path, **changed: int) -> Store:
    """Draw a screen with enough cells for halves of it to find ten significant genes."""
    drawn = {"contexts": 2, "cells": 100, "controls": 600, "genes": 120} | changed
    return harness.simulate("tiny", path, **drawn)


def held_out(store: Store, fold: int) -> PreparedTruth:
    split = parse_split({"kind": "unseen-perturbation", "folds": 5}, "split")
    return prepare(Task(open_store(store.path), split, fold).truth(scale="counts"), suite=SUITE)


def ran(store: Store, folder: Path, keys: str = "", models: str = "") -> Results:
    job = folder / "job.yaml"
    job.write_text(
        f"dataset: {store.path}\nsplit: unseen-perturbation\n{keys}"
        f"score: {{suite: {SUITE}}}\nkeep: [scores, predictions]\n"
        + (models or f"models: [{', '.join(f'{{model: {m}}}' for m in [*BOTH, 'replicate'])}]\n"),
        encoding="utf-8",
    )
    report = run_job(str(job), str(folder / "run"), "inline")
    assert not report.failures, report.failures[0][1].traceback
    return Results(str(folder / "run"))


def ends_of(results: Results) -> dict[int, dict[str, dict[str, list[float]]]]:
    trials = results.trials[results.trials["model"] == "control-mean"]
    return {fold: json.loads(e)[SUITE] for fold, e in zip(trials.fold, trials.ends, strict=True)}


def combined(table: Table) -> pd.Series[float]:
    return table.frame.set_index("model")["combined"]


def without(results: Results, ends: list[Any]) -> Results:
    trials = results.trials.assign(ends=pd.Series(ends, dtype=object))
    return Results.of(results.rows, trials)


# --- what is kept -------------------------------------------------------------------------------


def test_a_trial_keeps_the_anchors_of_its_truth(store: Store, results: Results) -> None:
    made = held_out(store, 1).anchors(suite_named(SUITE).metrics)
    for context, members in ends_of(results)[1].items():
        assert {*members} == {*SCALES}
        for name, ends in members.items():
            assert tuple(ends) == made.ends[context][name]


def test_a_ceiling_keeps_none_for_its_truth_is_half_of_it(results: Results) -> None:
    replicate = results.trials[results.trials["model"] == "replicate"]
    assert replicate["ends"].isna().all()
    assert len(ends_of(results)) == 2


# --- what is made of it -------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [0, 1])
def test_one_truth_gives_the_challenges_own_score(
    store: Store, results: Results, fold: int
) -> None:
    trials = results.trials[(results.trials["fold"] == fold) & (results.trials["seed"] == 0)]
    one = Results.of(results.rows[results.rows["trial"].isin(trials["trial"])], trials)
    found = combined(compare(one, bootstrap=FEW))
    truth = held_out(store, fold)
    for model in BOTH:
        trial = trials.loc[trials["model"] == model, "trial"].iloc[0]
        path = f"{results.runs[0]}/trials/{trial}/predictions.zarr"
        user = score(truth, CountedCells(open_predictions(path), 0), suite=SUITE)
        official = truth.anchors(suite_named(SUITE).metrics).score(user.by_context(SUITE))
        assert found[model] == pytest.approx(official.score, rel=1e-9)


def by_hand(results: Results, model: str) -> float:
    """Average seeds, then pairs; scale by the mean of the same pairs' anchors; average the rest."""
    scores, ends, of_contexts = results.scores, ends_of(results), []
    rows = scores[scores["model"] == model].astype({"context": str, "metric": str})
    for context, part in rows.groupby("context"):
        members = []
        for name in SCALES:
            mine = part[part["metric"] == name]
            u = mine.groupby("perturbation", observed=True)["value"].mean().mean()
            b, r = (
                np.mean([ends[fold][str(context)][name][end] for fold in mine["fold"]])
                for end in (0, 1)
            )
            members.append(scaled(name, u, float(b), float(r)))
        of_contexts.append(np.mean(members))
    return float(np.mean(of_contexts))


@pytest.mark.parametrize("model", BOTH)
def test_folds_are_pooled_pair_by_pair_with_their_anchors(results: Results, model: str) -> None:
    found = combined(compare(results, bootstrap=FEW))
    assert found[model] == pytest.approx(by_hand(results, model), rel=1e-9)


def test_a_context_with_one_pair_counts_as_much_as_any(results: Results) -> None:
    rows = results.rows
    first = rows["perturbation"].cat.categories[0]
    kept = (rows["context"] == "line1") | (rows["perturbation"] == first)
    fewer = Results.of(rows[kept], results.trials)
    row = compare(fewer, bootstrap=FEW).frame.set_index("model").loc["perturbation-mean"]
    assert row["combined"] == pytest.approx(by_hand(fewer, "perturbation-mean"), rel=1e-9)
    assert row["combined_low"] < row["combined"] < row["combined_high"]


def test_a_replicate_is_near_one_and_marks_no_rank(results: Results) -> None:
    table = compare(results, bootstrap=FEW)
    found = combined(table)
    assert found["replicate"] == pytest.approx(1, abs=0.35)
    assert found["replicate"] > found[BOTH].max()
    row = table.frame.set_index("model").loc["perturbation-mean"]
    assert row["combined_low"] < row["combined"] < row["combined_high"]


def test_ranks_and_changes_use_the_same_score(store: Store, tmp_path: Path) -> None:
    results = ran(
        store,
        tmp_path,
        "kind: ablation\nfolds: [0]\n",
        "base: {model: linear, rank: 4}\nvary: {rank: [1]}\nmodels: [{model: control-mean}]\n",
    )
    found = compare(results, bootstrap=FEW).frame
    linear = found[found["model"] == "linear"].set_index("param.rank")["combined"]
    changed = ablation(results, suite=SUITE, bootstrap=FEW)
    assert changed is not None
    change = changed.frame.set_index("change").loc["rank: 4 → 1"]
    assert change["combined_change"] == pytest.approx(linear[1] - linear[4], rel=1e-9)
    assert change["combined_change_low"] <= change["combined_change"]
    scope = Scope.of(results, bootstrap=FEW)
    [block] = scope.blocks
    stand = standing(block, scope.scales, None)
    by_title = {s.title: c for s, c in zip(block.settings, stand.combined, strict=True)}
    assert by_title["linear rank=1"] == pytest.approx(linear[1], rel=1e-9)
    best = max(by_title, key=lambda title: by_title[title])
    assert block.settings[stand.order[0]].title == best


def test_floors_are_the_mean_response(results: Results) -> None:
    frame = compare(results, bootstrap=FEW).frame.set_index("model")
    assert "de_wilcoxon_direction_fidelity_yield_raw" in frame.loc["control-mean", "floors_missed"]
    assert "expr_mse_unbiased_capped " not in frame.loc["control-mean", "floors_missed"]


def test_files_are_scored_as_jobs_are(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "truth.zarr").path
    other = simulated(tmp_path / "other.zarr", cells=20).path
    request = Request(suites=[SUITE])
    out = str(tmp_path / "out")
    batch = score_files(truth, [truth, other], out, request)
    [table] = write_batch_tables(batch, out, request)
    alone = batch.anchored.set_index("prediction")["score"]
    pd.testing.assert_series_equal(
        combined(table)[alone.index], alone, check_names=False, rtol=1e-9
    )


# --- where there is none ------------------------------------------------------------------------


def test_a_truth_too_small_for_anchors_costs_the_combined_score_alone(tmp_path: Path) -> None:
    store = simulated(tmp_path / "screen.zarr", cells=12, controls=100)
    results = ran(store, tmp_path, "folds: [0]\n", "models: [{model: control-mean}]\n")
    table = compare(results, bootstrap=FEW)
    assert combined(table).isna().all()
    [note] = [note for note in table.notes if note.startswith("No combined score")]
    assert "cannot be told from noise" in note
    assert table.frame["pds_cosine"].notna().all()


def test_a_truth_without_measurable_effect_costs_one_metric_not_the_trial(tmp_path: Path) -> None:
    store = simulated(tmp_path / "screen.zarr", cells=4, controls=60)
    results = ran(store, tmp_path, "folds: [0]\n", "models: [{model: control-mean}]\n")
    rows = results.rows[results.rows["context"] == "line1"]
    lost = rows[rows["metric"] == "expr_mse_unbiased_capped_norm"]
    assert lost["value"].isna().all()
    assert {*lost["reason"]} == {"no measurable effect in truth"}
    assert rows.loc[rows["metric"] == "pds_cosine", "value"].notna().all()


def test_scores_without_anchors_say_so(results: Results) -> None:
    table = compare(without(results, [None] * len(results.trials)), bootstrap=FEW)
    assert combined(table).isna().all()
    assert any("no anchors of the truth are kept" in note for note in table.notes)


def test_one_fold_without_anchors_leaves_no_score_of_the_whole(results: Results) -> None:
    why = json.dumps({SUITE: "halves give no value."})
    ends = [
        why if fold else e for fold, e in zip(results.trials.fold, results.trials.ends, strict=True)
    ]
    table = compare(without(results, ends), bootstrap=FEW)
    assert combined(table).isna().all()
    assert any("No combined score: fold 1: halves give no value." in note for note in table.notes)


def test_a_part_of_the_suite_has_no_combined_score(results: Results) -> None:
    rows = results.rows[results.rows["metric"] != "pds_cosine"]
    table = compare(Results.of(rows, results.trials), bootstrap=FEW)
    assert combined(table).isna().all()
    assert any("not all of its members were scored" in note for note in table.notes)


def test_tables_are_written_with_it(results: Results, tmp_path: Path) -> None:
    write_tables(results, str(tmp_path))
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "combined ↑" in text
    assert "mean response of the truth" in text


# --- the scale itself ---------------------------------------------------------------------------


@given(
    hnp.arrays("f8", (3, len(SCALES)), elements=st.floats(-10, 10) | st.just(np.nan)),
    hnp.arrays("f8", (len(SCALES),), elements=st.floats(0.1, 0.4)),
)
def test_members_are_scaled_as_each_alone(users: np.ndarray, gap: np.ndarray) -> None:
    names = [*SCALES]
    higher = np.array([SCALES[name].worst is not None for name in names])
    base = np.where(higher, 0.2, 0.9)
    top = base + np.where(higher, gap, -gap)
    found = scaled_members(names, users, base, top)
    for row, values in zip(found, users, strict=True):
        for at, name in enumerate(names):
            assert row[at] == scaled(name, values[at], base[at], top[at])
            worst, scale = SCALES[name].worst, SCALES[name]
            if np.isnan(values[at]) and worst is None:
                assert row[at] == scale.low
            elif np.isnan(values[at]):
                assert row[at] == pytest.approx((worst - base[at]) / (top[at] - base[at]))
            else:
                plain = (values[at] - base[at]) / (top[at] - base[at])
                assert row[at] == pytest.approx(min(max(plain, scale.low), scale.high))
