"""Which trials a job means: zip, filters, repetitions, data factors, ablations."""

from __future__ import annotations

import json
from inspect import Parameter

import pytest

from harness.config.types import CELLS
from harness.errors import JobError
from harness.jobs.ablation import variations
from harness.jobs.checks import Known, check_job
from harness.jobs.expansion import Screen, SplitChoice, expand
from harness.jobs.job import Job, job_model
from harness.jobs.settings import repeated
from harness.jobs.trial_spec import TrialSpec
from harness.tasks.data_factors import factor_value


def option(name, annotation, default):
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


MODELS = {
    "control-mean": {"cells": CELLS},
    "linear": {
        "rank": option("rank", int | None, 10),
        "ridge": option("ridge", float, 0.1),
        "seed": option("seed", int, 0),
        "cells": CELLS,
    },
    "replicate": {},
}
SPLITS = {"unseen": SplitChoice("{}", 2), "zero-shot": SplitChoice("{}", 2)}
SCREENS = {name: Screen(1, name, SPLITS) for name in ("screen", "other")}


def trials_of(entry, **changes):
    """Return the trials of a sweep of one entry."""
    values = {"dataset": "screen", "split": "unseen", "folds": [0], "models": [entry]}
    return expand(Job.model_validate(values | changes), SCREENS, MODELS.__getitem__)


def ablation_of(**changes):
    """Return an ablation and its trials."""
    values = {
        "kind": "ablation",
        "dataset": "screen",
        "split": "unseen",
        "folds": [0],
        "base": {"model": "linear", "rank": 4},
        "vary": {"rank": [1, 4, 16], "cells_per_perturbation": [10, None]},
    }
    job = job_model(values).model_validate(values | changes)
    return job, expand(job, SCREENS, MODELS.__getitem__)


def linear(**values):
    return {"model": "linear", **values}


def ranks_and_ridges(trials):
    return [tuple(dict(trial.parameters).values()) for trial in trials]


# --- zip, filters, repetitions ------------------------------------------------------------------


def test_zipped_parameters_are_paired_and_cross_with_the_others():
    entry = linear(
        zip={"rank": [4, 16], "ridge": [1, 2.0]}, cells=["shift-controls", "tile-profile"]
    )
    trials = trials_of(entry)
    assert ranks_and_ridges(trials) == [(4, 1.0), (16, 2.0)] * 2
    assert {trial.cells for trial in trials} == {"shift-controls", "tile-profile"}


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        pytest.param(
            {"except": [{"rank": 4, "ridge": 1}]}, [(4, 2.0), (16, 1.0), (16, 2.0)], id="except"
        ),
        pytest.param({"only": [{"rank": 4}]}, [(4, 1.0), (4, 2.0)], id="only"),
        pytest.param({"only": [{"rank": [4, 16], "ridge": 2}]}, [(4, 2.0), (16, 2.0)], id="any_of"),
        pytest.param({"only": [{"rank": 4}], "except": [{"ridge": 2}]}, [(4, 1.0)], id="both"),
    ],
)
def test_filters_choose_among_settings(filters, left):
    entry = linear(rank=[4, 16], ridge=[1, 2], **filters)
    assert ranks_and_ridges(trials_of(entry)) == left


def test_a_filter_may_name_a_split_or_dataset():
    entry = linear(only=[{"split": "zero-shot"}], **{"except": [{"dataset": "other"}]})
    trials = trials_of(entry, dataset=["screen", "other"], split=["unseen", "zero-shot"])
    assert [(trial.dataset, trial.split) for trial in trials] == [("screen", "zero-shot")]


def test_repetitions_keep_the_seed_and_add_others():
    once, thrice = trials_of(linear(), seeds=[0, 1]), trials_of(linear(), seeds=[0, 1], repeat=3)
    assert {trial.id for trial in once} < {trial.id for trial in thrice}
    assert len({trial.seed for trial in thrice}) == 6
    assert [trial.seed for trial in thrice] == repeated([0, 1], 3)
    assert repeated([0], 2) == [0, 1419524863]  # written down: it must never change


def test_an_entry_may_be_repeated_more_often_than_the_others():
    assert len(trials_of(linear(repeat=3), repeat=2)) == 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param(
            linear(zip={"rank": [1, 2], "ridge": [1.0]}),
            r"models\[0\]: zip: found 2 of rank, 1 of ridge, expected as many",
            id="lengths",
        ),
        pytest.param(linear(zip={"rank": []}), "zip: found an empty list", id="nothing_to_zip"),
        pytest.param(linear(rank=1, zip={"rank": [1]}), r"zip\.rank: is given beside", id="both"),
        pytest.param(
            linear(**{"except": [{"rnak": 1}]}), r"except\[0\]\.rnak: .*mean 'rank'", id="key"
        ),
        pytest.param(
            linear(**{"except": [{"rank": 64}]}),
            r"except\[0\]: fits none of the entry's settings: rank=64",
            id="no_effect",
        ),
        pytest.param(linear(**{"except": [{"rank": 10}]}), "leave no trial", id="nothing_left"),
        pytest.param(
            linear(zip={"rank": [4, 4]}), r"models\[0\] gives the same trial twice", id="twice"
        ),
    ],
)
def test_what_cannot_be_meant_by_an_entry_is_refused(entry, message):
    with pytest.raises(JobError, match=message):
        trials_of(entry)


# --- data factors -------------------------------------------------------------------------------


def test_data_factors_cross_and_are_part_of_the_id():
    plain = trials_of(linear())
    factors = {"cells_per_perturbation": [10, None], "umi_depth": [0.5, 1]}
    trials = trials_of(linear(data=factors))
    assert [dict(trial.data) for trial in trials] == [
        {"cells_per_perturbation": 10, "umi_depth": 0.5},
        {"cells_per_perturbation": 10},
        {"umi_depth": 0.5},
        {},
    ]
    assert len({trial.id for trial in trials}) == 4
    assert trials[-1].id == plain[0].id


def test_a_trial_without_data_factors_says_nothing_of_them():
    (plain,) = trials_of(linear())
    (varied,) = trials_of(linear(data={"train_contexts": [["b", "a"]]}))
    assert "data" not in json.loads(plain.to_json())
    assert varied.data == (("train_contexts", ("a", "b")),)
    assert TrialSpec.from_json(varied.to_json()) == varied


def test_data_of_an_entry_replace_those_of_the_job():
    assert trials_of(linear(), data={"control_cells": 5})[0].data == (("control_cells", 5),)
    assert trials_of(linear(data={}), data={"control_cells": 5})[0].data == ()


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        pytest.param({"cell_per_perturbation": 3}, "mean 'cells_per_perturbation'", id="name"),
        pytest.param({"control_cells": 0}, r"found 0 \(int\), expected a whole", id="zero"),
        pytest.param({"umi_depth": -0.5}, "expected a share of the molecules", id="depth"),
        pytest.param(
            {"train_perturbations": 1.5}, "or a share of them|a share of them", id="share"
        ),
        pytest.param({"train_contexts": [["a", "a"]]}, "list of different contexts", id="contexts"),
        pytest.param({"control_cells": []}, "is an empty list", id="empty"),
    ],
)
def test_a_wrong_data_factor_is_refused_when_the_job_is_read(factors, message):
    with pytest.raises(ValueError, match=message):
        trials_of(linear(data=factors))


def test_the_default_of_a_factor_is_no_value():
    assert factor_value("umi_depth", 1) is None
    assert factor_value("train_perturbations", 1.0) is None
    assert factor_value("train_perturbations", 1) == 1


# --- ablations ----------------------------------------------------------------------------------


def test_one_factor_at_a_time_has_the_base_once():
    job, trials = ablation_of()
    varied = variations(job, trials, MODELS["linear"])
    assert [varied[trial.id] for trial in trials] == [
        {},
        {"rank": 1},
        {"rank": 16},
        {"cells_per_perturbation": 10},
    ]


def test_a_full_factorial_crosses_the_factors_and_has_the_base():
    job, trials = ablation_of(
        design="full-factorial", vary={"rank": [1, 16], "umi_depth": [0.5, None]}
    )
    varied = [variations(job, trials, MODELS["linear"])[trial.id] for trial in trials]
    assert len(trials) == 5
    assert varied[0] == {}
    assert {"rank": 1, "umi_depth": 0.5} in varied


def test_a_trial_of_an_ablation_is_that_of_a_sweep():
    _, trials = ablation_of()
    assert {t.id for t in trials_of(linear(rank=[1, 4, 16]))} < {t.id for t in trials}


def test_other_models_stand_beside_an_ablation_and_vary_nothing():
    job, trials = ablation_of(models=[{"model": "control-mean"}], seeds=[0, 1])
    varied = variations(job, trials, MODELS["linear"])
    assert len(trials) == 10
    assert {t.model for t in trials if t.id not in varied} == {"control-mean"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"vary": {"rnak": [1]}}, r"vary\.rnak: .*mean 'rank'", id="factor"),
        pytest.param({"vary": {"rank": [4]}}, "no value differs from the base's", id="no_change"),
        pytest.param({"base": linear(rank=[1, 2])}, "base: means 2 settings", id="list_in_base"),
        pytest.param(
            {"models": [linear(rank=16)]}, r"base and models\[0\] give the same trial", id="twice"
        ),
        pytest.param({"vary": {"umi_depth": [0]}}, "vary: found 0", id="factor_value"),
    ],
)
def test_an_ablation_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(JobError, match=message):
        ablation_of(**changes)


# --- checking files -----------------------------------------------------------------------------


@pytest.fixture
def check(tmp_path):
    """Check a text as a job; each problem as ``key: message``."""
    known = Known(
        models=tuple(MODELS),
        suites=("vcc2025",),
        datasets=("screen",),
        splits_of=lambda name: tuple(SPLITS),
        parameters_of=MODELS.__getitem__,
    )

    def check(text):
        path = tmp_path / "job.yaml"
        path.write_text(f"dataset: screen\nsplit: unseen\n{text}")
        return [str(problem).removeprefix(f"{path}: ") for problem in check_job(path, known)]

    return check


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "models: [{model: linear, zip: {rnak: [1]}}]",
            "models[0].zip.rnak: is not a parameter of linear. Did you mean 'rank'?",
            id="zip",
        ),
        pytest.param(
            "models: [{model: linear, repeat: 0}]",
            "models[0].repeat: found 0 (int), expected at least 1.",
            id="repeat",
        ),
        pytest.param(
            "models: [{model: linear, data: {umi_dept: 0.5}}]",
            "models[0].data: umi_dept: is not a data factor. Did you mean 'umi_depth'?",
            id="data",
        ),
        pytest.param(
            "kind: ablation\nbase: {model: linear}\nvary: {rnk: [1]}",
            "vary.rnk: is no factor: neither a parameter of linear nor of data. "
            "Did you mean 'rank'?",
            id="factor",
        ),
        pytest.param(
            "kind: ablation\nbase: {model: linear}\nvary: {rank: [1, two], umi_depth: [2, x]}",
            "vary.rank[1]: found 'two' (str), expected int or null.",
            id="level",
        ),
        pytest.param(
            "kind: ablation\nbase: {model: linear, rank: [1, 2]}\nvary: {ridge: [1]}",
            "base.rank: is a list: the base is one setting. Put the list under vary.",
            id="list_in_base",
        ),
        pytest.param("kind: ablation\nbase: {model: linear}", "vary: is missing.", id="no_vary"),
        pytest.param(
            "kind: ablation\nbase: {model: linear}\nvary: {rank: [1]}\nscore: {baseline: linear}",
            "score.baseline: 'linear' is in the job with 2 settings (base), expected one: without "
            "lists, data factors or a second entry.",
            id="baseline",
        ),
    ],
)
def test_the_check_names_the_key(check, text, message):
    assert message in check(text)


def test_a_right_ablation_has_no_problems(check):
    text = "kind: ablation\nbase: {model: linear}\nvary: {rank: [1], umi_depth: [0.5]}\n"
    assert check(text + "models: [{model: control-mean, data: {}}]\n") == []
