"""Networks in trials: beside means, killed and gone on with, stopped by validation."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.analysis.results import Results
from harness.data.store import open_store
from harness.errors import ModelError, UnknownNameError
from harness.runs.runner import run_job
from harness.runs.training_monitor import TrialSupervision
from harness.tasks import parse_split
from harness.tasks.task import Task

torch = pytest.importorskip("torch", reason="networks need the extra `torch`")

from harness.models.networks.torch.fitted import FittedNetwork  # noqa: E402

NETWORKS = ["conditional-autoencoder", "decoder-only", "latent-additive", "set-transformer"]
JOB = {
    "dataset": "sim:tiny?shared=1&genes=80&contexts=2",
    "split": "few-shot-context",
    "folds": [0],
    "score": {"suite": "cell-eval:anndata"},
    "models": [
        {"model": "perturbation-mean"},
        {"model": "conditional-autoencoder", "epochs": 20},
        {"model": "decoder-only", "epochs": 20},
        {"model": "latent-additive", "epochs": 20},
        {"model": "set-transformer", "epochs": 20, "cells": ["own", "tile-profile"]},
    ],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests of the session, so that the screen is drawn once."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))


def run(folder, **changes):
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump({**JOB, **changes}), encoding="utf-8")
    report = run_job(str(job), str(folder / "run"), "inline")
    assert not report.failures, report.failures[0][1].error
    return report


def trials(report, model):
    return [trial.id for trial in report.plan.trials if trial.model == model]


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """All networks and perturbation-mean on a screen whose effects are shared by its contexts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return run(tmp_path_factory.mktemp("raced"))


def mean_score(report, trial, metric):
    frame = Results(report.plan.run.path).rows
    return frame[(frame["trial"] == trial) & (frame["metric"] == metric)]["value"].mean()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("metric", ["pearson_delta", "discrimination_score_l1"])
def test_a_network_beats_the_mean_where_effects_are_shared(raced, name, metric):
    (baseline,) = trials(raced, "perturbation-mean")
    floor = mean_score(raced, baseline, metric)
    for trial in trials(raced, name):
        assert mean_score(raced, trial, metric) > floor + 0.02


def test_the_step_to_cells_replaces_a_model_s_own(raced):
    own, tiled = trials(raced, "set-transformer")
    scores = [mean_score(raced, trial, "pearson_edistance") for trial in (own, tiled)]
    assert scores[0] != scores[1]


def test_a_learning_curve_is_kept_and_a_checkpoint_is_not(raced):
    for name in NETWORKS:
        folder = Path(raced.plan.run.of_trial(trials(raced, name)[0]))
        curve = pd.read_parquet(folder / "curve.parquet")
        assert list(curve.columns) == [
            "epoch",
            "step",
            "cells",
            "learning_rate",
            "loss",
            "metric",
            "validation",
            "best",
            "seconds",
        ]
        assert curve["epoch"].tolist() == list(range(1, 21))
        assert curve["validation"].isna().all()  # this split has no validation pairs
        assert curve["loss"].iloc[-1] < curve["loss"].iloc[0]
        assert not (folder / "checkpoint").exists()


LISTED = {
    "dataset": "sim:tiny?genes=60&contexts=1",
    "split": "listed",
    "score": {"suite": "vcc2025"},
    "keep": ["scores", "checkpoints"],
}


def test_a_fit_looks_at_validation_pairs_and_at_no_test_pair(tmp_path, monkeypatch):
    asked, fitting = [], []
    original = FittedNetwork.profile
    fit = FittedNetwork.fit

    def profile(self, query):
        asked.extend([query] if fitting else [])
        return original(self, query)

    def spied(self, *args, **keys):
        fitting.append(True)
        fit(self, *args, **keys)
        fitting.clear()

    monkeypatch.setattr(FittedNetwork, "profile", profile)
    monkeypatch.setattr(FittedNetwork, "fit", spied)
    keys = {"epochs": 4, "validate_every": 2, "stop_on": "vcc2025:mae"}
    report = run(tmp_path, **LISTED, models=[{"model": "decoder-only", **keys}])
    (trial,) = report.plan.trials
    split = parse_split(json.loads(trial.split_spec), trial.split)
    validation = Task(open_store(report.plan.stores[trial.dataset]), split, trial.fold).pairs_of(
        "validation"
    )
    assert {(query.perturbation, query.context) for query in asked} == set(validation)
    assert len(asked) == 2 * len(validation) > 0
    curve = pd.read_parquet(report.plan.run.of_trial(trial.id, "curve.parquet"))
    assert curve["validation"].notna().tolist() == [False, True, False, True]
    assert (curve["metric"] == "vcc2025:mae").all()
    assert Path(report.plan.run.of_trial(trial.id, "checkpoint"), "training.bin").exists()


@pytest.mark.parametrize(
    ("stop_on", "error", "message"),
    [
        pytest.param("mae", ModelError, "expected SUITE:METRIC", id="no_suite"),
        pytest.param("vcc2025:maes", UnknownNameError, "Did you mean 'mae'", id="metric"),
        pytest.param("vcc25:mae", UnknownNameError, "Did you mean 'vcc2025'", id="suite"),
        pytest.param("cell-eval:de_nsig_counts_pred", ModelError, "a mere count", id="count"),
        pytest.param("vcc2026:pds_cosine", ModelError, "needs raw counts", id="raw_counts"),
    ],
)
def test_what_validation_cannot_be_judged_by_is_refused(stop_on, error, message):
    supervision = TrialSupervision.__new__(TrialSupervision)
    with pytest.raises(error, match=message):
        supervision.higher_is_better(stop_on)


KILLED = """
import os, signal, sys
from harness.models.networks.torch import training as loop
from harness.runs.training_monitor import TrialSupervision
from harness.runs.runner import run_job
loop.SAVE_SECONDS, loop.SAVE_SHARE = 0.0, float("inf")
save = TrialSupervision.save
def killed(self, state):
    save(self, state)
    saved = loop.torch.load(loop.io.BytesIO(state), weights_only=True)
    if (saved["epoch"], saved["position"]) == (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
TrialSupervision.save = killed
run_job(sys.argv[1], sys.argv[2], "inline")
"""


def test_a_trial_killed_in_its_fit_goes_on_with_the_same_curve(tmp_path):
    models = [{"model": "latent-additive", "epochs": 4, "batch_size": 40}]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, killed):
        folder.mkdir()
    whole = run(calm, **LISTED, models=models)
    command = [sys.executable, "-c", KILLED, str(calm / "job.yaml"), str(killed / "run")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    (trial,) = whole.plan.trials
    state = Path(killed, "run", "trials", trial.id, "checkpoint", "training.bin")
    assert torch.load(state, weights_only=True)["epoch"] == 2
    again = run(killed, **LISTED, models=models)
    curves = [
        pd.read_parquet(r.plan.run.of_trial(trial.id, "curve.parquet")) for r in (whole, again)
    ]
    pd.testing.assert_frame_equal(*(curve.drop(columns="seconds") for curve in curves))
    tables = [Results(r.plan.run.path).rows["value"] for r in (whole, again)]
    pd.testing.assert_series_equal(*tables)
