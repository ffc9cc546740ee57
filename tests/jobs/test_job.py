from __future__ import annotations

import pickle
from inspect import Parameter

import pytest

from harness import errors
from harness.config.types import CELLS
from harness.executors.resources import Resources
from harness.jobs.checks import Known, check_job
from harness.jobs.expansion import Screen, SplitChoice, expand
from harness.jobs.job import Job, read_job
from harness.jobs.settings import settings
from harness.jobs.trial_spec import TrialSpec


def option(name, annotation, default=Parameter.empty):
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


LINEAR = {
    "rank": option("rank", int | None, 10),
    "ridge": option("ridge", float, 0.1),
    "seed": option("seed", int, 0),
    "cells": CELLS,
}
MODELS = {"control-mean": {"cells": CELLS}, "linear": LINEAR, "replicate": {}}
SCREEN = Screen(
    version=1,
    fingerprint="abc",
    splits={"unseen-perturbation": SplitChoice("{}", 5), "zero-shot-context": SplitChoice("{}", 2)},
)
KNOWN = Known(
    models=tuple(MODELS),
    suites=("vcc2025", "vcc2026"),
    datasets=("screen", "sim:tiny"),
    splits_of=lambda name: tuple(SCREEN.splits),
    parameters_of=MODELS.__getitem__,
    simulation_options={"seed": option("seed", int)},
)
RIGHT = """
dataset: screen
split: unseen-perturbation
folds: [0]
models:
  - {model: control-mean}
"""


def job_of(**changes):
    values = {
        "dataset": "screen",
        "split": "unseen-perturbation",
        "folds": [0],
        "models": [{"model": "linear"}],
    }
    return Job.model_validate(values | changes)


def trials_of(**changes):
    return expand(job_of(**changes), {"screen": SCREEN}, MODELS.__getitem__)


@pytest.fixture
def check(tmp_path):
    """Check a text as a job; each problem as ``key: message``."""

    def check(text):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return [str(problem).removeprefix(f"{path}: ") for problem in check_job(path, KNOWN)]

    return check


# --- checking -----------------------------------------------------------------------------------


def test_a_right_job_has_no_problems(check):
    assert check(RIGHT) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(
            "{model: liner}",
            "models[1].model: unknown model 'liner'. Did you mean 'linear'?",
            id="unknown_model",
        ),
        pytest.param(
            "{model: linear, rnak: 3}",
            "models[1].rnak: is not a parameter of linear. Did you mean 'rank'?",
            id="unknown_parameter",
        ),
        pytest.param(
            "{model: linear, rank: [4, two]}",
            "models[1].rank[1]: found 'two' (str), expected int or null.",
            id="wrong_type_in_list",
        ),
        pytest.param(
            "{model: linear, ridge: true}",
            "models[1].ridge: found true, expected a number.",
            id="truth_value_for_number",
        ),
        pytest.param(
            "{model: linear, rank: []}",
            "models[1].rank: is an empty list: it means no trial at all.",
            id="empty_list",
        ),
        pytest.param(
            "{model: linear, seed: 3}",
            "models[1].seed: is set for all models at once. Use the job's seeds.",
            id="seed",
        ),
        pytest.param(
            "{model: replicate, cells: tile-profile}",
            "models[1].cells: does not apply: replicate predicts cells itself. Remove it.",
            id="cells_of_a_model_with_cells",
        ),
        pytest.param(
            "{model: linear, cells: tile-profiles}",
            "models[1].cells: found 'tile-profiles' (str), expected 'own', 'match-controls', "
            "'shift-controls' or 'tile-profile' or a list. Did you mean 'tile-profile'?",
            id="cells",
        ),
        pytest.param(
            "{model: linear, cells: own}",
            "models[1].cells: found 'own' (str), expected 'match-controls' or "
            "'shift-controls' or 'tile-profile'.",
            id="own_cells_of_a_model_without",
        ),
    ],
)
def test_a_wrong_model_entry_is_one_problem(check, line, message):
    assert check(f"{RIGHT}  - {line}\n") == [message]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "dataset: screen",
            "dataset: scrn",
            "dataset: unknown dataset 'scrn'. Did you mean 'screen'?",
            id="dataset",
        ),
        pytest.param(
            "dataset: screen",
            "dataset: [screen, 'sim:tinny']",
            "dataset[1]: unknown dataset 'sim:tinny'. Did you mean 'sim:tiny'?",
            id="preset",
        ),
        pytest.param(
            "dataset: screen",
            "dataset: sim:tiny?sede=1",
            "dataset.sede: is not a parameter of a simulation. Did you mean 'seed'?",
            id="simulation_option",
        ),
        pytest.param(
            "dataset: screen",
            "dataset: sim:tiny?seed=one",
            "dataset.seed: found 'one' (str), expected int.",
            id="simulation_option_type",
        ),
        pytest.param(
            "split: unseen-perturbation",
            "split: unseen",
            "split: unknown split of screen 'unseen'. Known: 'unseen-perturbation', "
            "'zero-shot-context'.",
            id="split",
        ),
        pytest.param("folds: [0]", "folds: [0, 0]", "folds: 0 is given twice.", id="repeated_fold"),
        pytest.param(
            "folds: [0]",
            "score: {suite: [vcc2025, vcc26]}",
            "score.suite[1]: unknown suite 'vcc26'. Did you mean 'vcc2026'?",
            id="suite",
        ),
        pytest.param(
            "folds: [0]",
            "score: {baseline: linear}",
            "score.baseline: 'linear' is not among the job's models. Add it to models, or name "
            "one of them.",
            id="baseline",
        ),
        pytest.param(
            "folds: [0]",
            "resources: {fit: {memory: lots}}",
            "resources.fit.memory: 'lots' is not a size.",
            id="memory",
        ),
        pytest.param("folds: [0]", "seeds: []", "seeds: found [] (list), ", id="no_seeds"),
    ],
)
def test_a_wrong_key_is_one_problem(check, old, new, message):
    problems = check(RIGHT.replace(old, new))
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_a_swept_baseline_is_ambiguous(check):
    text = f"{RIGHT}  - {{model: linear, rank: [1, 2]}}\nscore: {{baseline: linear}}\n"
    assert check(text) == [
        "score.baseline: 'linear' is in the job with 2 settings (models[1]), expected one: without "
        "lists, data factors or a second entry."
    ]


def test_a_wrong_type_hides_no_unknown_name(check):
    text = """
    datasset: screen
    dataset: scrn
    split: 3
    seeds: zero
    models: [{model: liner}, {modl: linear}, 7]
    """
    keys = {problem.partition(":")[0] for problem in check(text)}
    assert keys == {
        "datasset",
        "dataset",
        "split",
        "seeds",
        "models[0].model",
        "models[1].model",
        "models[2]",
    }


@pytest.mark.parametrize("text", ["- 1\n", "", "a: [\n"])
def test_what_is_no_job_at_all_is_one_problem(check, text):
    assert len(check(text)) == 1


def test_reading_a_wrong_job_raises_with_all_its_problems(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("dataset: a\nseed: 1\n")
    with pytest.raises(errors.JobError, match=r"seed: is not a known key. Did you mean 'seeds'\?"):
        read_job(str(path))


def test_a_store_is_named_by_its_path(check, tmp_path):
    store = tmp_path / "mine.zarr"
    text = RIGHT.replace("dataset: screen", f"dataset: {store}")
    assert check(text) == [f"dataset: there is no store {store}. Make it with: harness convert"]
    store.mkdir()
    assert check(text) == []
    file = tmp_path / "counts.h5ad"
    file.write_bytes(b"")
    text = text.replace(str(store), str(file))
    assert check(text) == [
        f"dataset: {file} is no store. Make one of it with: harness convert {file} -o NAME.zarr"
    ]


def test_the_largest_resources_are_the_most_of_each():
    needs = (Resources(cpus=4, memory="900MiB"), Resources(gpus=0.5, memory="1GiB"), Resources())
    assert Resources.largest(*needs) == Resources(cpus=4, gpus=0.5, memory="1GiB")


# --- expansion ----------------------------------------------------------------------------------


def test_lists_of_an_entry_cross():
    assert settings({"a": [1, 2], "b": "x", "c": [3, 4]}) == [
        {"a": 1, "b": "x", "c": 3},
        {"a": 1, "b": "x", "c": 4},
        {"a": 2, "b": "x", "c": 3},
        {"a": 2, "b": "x", "c": 4},
    ]


def test_a_job_crosses_settings_with_splits_folds_and_seeds():
    models = [{"model": "control-mean"}, {"model": "linear", "rank": [1, 2], "ridge": [0.1, 1.0]}]
    splits = ["unseen-perturbation", "zero-shot-context"]
    trials = trials_of(models=models, split=splits, seeds=[0, 1], folds=None)
    assert len(trials) == 5 * (5 + 2) * 2
    assert len({trial.id for trial in trials}) == len(trials)


def test_a_trial_has_every_parameter_but_the_seed():
    (trial,) = trials_of(models=[{"model": "linear", "rank": 4}], seeds=[7])
    assert trial.parameters == (("rank", 4), ("ridge", 0.1))
    assert trial.cells == "match-controls"
    assert trial.seed == 7


def test_a_default_that_is_spelled_out_is_the_same_trial():
    (left_out,) = trials_of()
    spelled = {"model": "linear", "rank": 10, "ridge": 0.1, "cells": "match-controls"}
    (spelled_out,) = trials_of(models=[spelled])
    assert left_out.id == spelled_out.id


def test_a_whole_number_for_a_float_is_the_same_trial():
    (whole,) = trials_of(models=[{"model": "linear", "ridge": 1}])
    (fraction,) = trials_of(models=[{"model": "linear", "ridge": 1.0}])
    assert whole.id == fraction.id


def test_the_order_of_the_file_does_not_change_an_id():
    models = [{"model": "linear", "rank": 1, "ridge": 2.0}, {"model": "control-mean"}]
    turned = [models[1], {"ridge": 2.0, "rank": 1, "model": "linear"}]
    assert {t.id for t in trials_of(models=models)} == {t.id for t in trials_of(models=turned)}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seeds": [1]}, id="seed"),
        pytest.param({"folds": [1]}, id="fold"),
        pytest.param({"split": "zero-shot-context"}, id="split"),
        pytest.param({"models": [{"model": "control-mean"}]}, id="model"),
        pytest.param({"models": [{"model": "linear", "rank": None}]}, id="parameter"),
        pytest.param({"models": [{"model": "linear", "cells": "tile-profile"}]}, id="cells"),
        pytest.param({"score": {"controls": "shared"}}, id="controls"),
    ],
)
def test_what_changes_the_computation_changes_the_id(changes):
    assert trials_of(**changes)[0].id != trials_of()[0].id


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"score": {"suite": "cell-eval"}}, id="suite"),
        pytest.param({"keep": ["scores"]}, id="keep"),
        pytest.param({"resources": {"fit": {"cpus": 4}}}, id="resources"),
        pytest.param({"title": "Another"}, id="title"),
    ],
)
def test_what_does_not_change_the_computation_keeps_the_id(changes):
    assert trials_of(**changes)[0].id == trials_of()[0].id


def test_a_trial_survives_json_and_pickling():
    (trial,) = trials_of(models=[{"model": "linear", "rank": None}])
    assert TrialSpec.from_json(trial.to_json()) == trial
    assert pickle.loads(pickle.dumps(trial)) == trial
    assert hash(TrialSpec.from_json(trial.to_json())) == hash(trial)


def test_an_id_does_not_change_between_releases():
    (trial,) = trials_of()
    assert trial.id == "e2cf4a7efdbd"
    (older,) = trials_of(models=[{"model": "linear", "cells": "shift-controls"}])
    assert older.id == "606da36f9d8e"  # when it was the default


@pytest.mark.parametrize(
    ("models", "message"),
    [
        pytest.param(
            [{"model": "linear"}, {"model": "linear", "rank": [4, 10]}],
            r"models\[0\] and models\[1\] give the same trial: linear\(rank=10, ridge=0.1\)",
            id="two_entries",
        ),
        pytest.param(
            [{"model": "linear", "rank": [4, 4]}],
            r"models\[0\] gives the same trial twice: linear\(rank=4",
            id="one_entry",
        ),
        pytest.param(
            [{"model": "linear", "rnak": 4}],
            "'rnak' is not a parameter of linear. Did you mean 'rank'?",
            id="unknown_parameter",
        ),
    ],
)
def test_an_ambiguous_job_does_not_expand(models, message):
    with pytest.raises(errors.JobError, match=message):
        trials_of(models=models)


def test_a_fold_beyond_the_split_is_refused():
    with pytest.raises(errors.JobError, match=r"folds: found 5, but split .* has 5 folds"):
        trials_of(folds=[0, 5])
