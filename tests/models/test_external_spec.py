"""Declarations of command models: what is refused, and what is part of a trial's identity."""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

import pytest

from harness.check import check
from harness.config.lookup import declarations
from harness.errors import CommandError, JobError, UnknownNameError
from harness.models.external.spec import Command, check_command, filled, read_command
from harness.models.registry import broken, parameters_of, registered
from harness.runs.plan import plan_job
from harness.runs.trial_models import identified
from harness.storage import canonical
from tests.command_files import command, declare
from tests.synthetic import make_screen, write_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def test_a_right_declaration_has_nothing_wrong(tmp_path: Path) -> None:
    assert check_command(declare(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"comand": []}, "comand: is not a known key.", id="unknown_key"),
        pytest.param({"version": 0}, "version: found 0 (int), expected at least 1.", id="version"),
        pytest.param(
            {"train": ["fit", "{trian}", "{model_dir}"], "parameters": None, "files": None},
            "train[1]: {trian} is no placeholder. Did you mean 'train'?",
            id="near_match",
        ),
        pytest.param(
            {"train": ["fit", "{queries}", "{train}", "{model_dir}"]},
            "train[1]: {queries} is known to predict only",
            id="train_sees_queries",
        ),
        pytest.param(
            {"predict": ["p", "{queries}", "{fault}", "{program}", "{strength}"]},
            "predict: nowhere names {output}",
            id="no_output",
        ),
        pytest.param(
            {"predict": ["p", "{output}"]},
            "predict: names neither {queries} nor {query_table}",
            id="no_queries",
        ),
        pytest.param(
            {"train": ["fit", "{train}"]}, "train: nowhere names {model_dir}", id="no_model_dir"
        ),
        pytest.param(
            {"train": ["fit", "{model_dir}"]},
            "train: names neither {train} nor {split}",
            id="no_training_data",
        ),
        pytest.param(
            {"predict": ["p", "{queries}", "{output", "{fault}"]},
            "predict[2]: found '{output'",
            id="unclosed_brace",
        ),
        pytest.param(
            {"predict": ["p", "{queries}", "{output}", "{seed:03d}"]},
            "predict[3]: found {seed:03d}, expected {seed} alone",
            id="format",
        ),
        pytest.param(
            {"parameters": {"width": {"type": "int", "default": 8}}},
            "parameters.width: is used by neither command. Name it as {width}.",
            id="unused_parameter",
        ),
        pytest.param(
            {"parameters": {"seed": {"type": "int", "default": 8}}},
            "parameters.seed: is a placeholder already: the trial's seed.",
            id="taken_name",
        ),
        pytest.param(
            {"parameters": {"repeat": {"type": "int", "default": 8}}},
            "parameters.repeat: is a word that a job's entry has already.",
            id="entry_key",
        ),
        pytest.param(
            {"parameters": {"fault": {"type": "int", "default": "many"}}},
            "parameters.fault: found 'many' (str), expected int as its type says.",
            id="wrong_default",
        ),
        pytest.param(
            {"parameters": {"fault": {"type": "str", "default": "a", "choices": ["b"]}}},
            "parameters.fault: default: 'a' is not among its choices.",
            id="default_no_choice",
        ),
        pytest.param(
            {"files": {"program": "gone.py"}}, "files.program: there is no gone.py", id="no_file"
        ),
        pytest.param(
            {"environment": {"image": "x.sif", "requirements": ["y"]}},
            "environment: image: has an interpreter of its own.",
            id="image_and_requirements",
        ),
        pytest.param(
            {"environment": {"constraints": ["torch==2.13.0"]}},
            "environment: constraints: apply to requirements, and there are none.",
            id="constraints_alone",
        ),
        pytest.param(
            {"output": {"file": "../out.h5ad"}}, "output.file: found '../out.h5ad'", id="elsewhere"
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    said = [
        str(problem).partition(".yaml: ")[2]
        for problem in check_command(declare(tmp_path, **changes))
    ]
    assert any(text.startswith(message) for text in said), said


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    declare(tmp_path, version=0, train=["fit", "{tain}"], predict=["p", "{queris}"], titel="x")
    found = check(["jobs/commands/mine.yaml"]).problems
    keys = {problem.key for problem in found}
    assert {"version", "titel", "train[1]", "predict[1]", "predict", "train"} <= keys
    with pytest.raises(CommandError, match="titel: is not a known key"):
        read_command("mine")


def test_a_command_model_is_found_by_name_and_is_no_job(tmp_path: Path) -> None:
    declare(tmp_path)
    assert "mine" in registered()
    assert registered()["mine"].summary == "The mean effect of training, by a program"
    assert "commands/mine" not in declarations("jobs")
    with pytest.raises(UnknownNameError, match="Unknown job 'mine'"):
        plan_job("mine")


def test_its_parameters_are_checked_like_any_other(tmp_path: Path) -> None:
    declare(tmp_path)
    known = parameters_of("mine")
    assert known["strength"].default == 1.0
    assert known["strength"].annotation is float
    assert known["seed"].kind is Parameter.KEYWORD_ONLY
    assert "cells" not in known
    assert "cells" in parameters_of_profiles(tmp_path)
    problems = checked_job(tmp_path, "{model: mine, strenght: 2, fault: 3}")
    assert "models[0].strenght: is not a parameter of mine. Did you mean 'strength'?" in problems
    assert "models[0].fault: found 3 (int), expected str." in problems


def parameters_of_profiles(folder: Path) -> dict[str, Parameter]:
    declare(folder, "profiles", output={"holds": "profiles"})
    return dict(parameters_of("profiles"))


def checked_job(folder: Path, entry: str) -> str:
    path = folder / "job.yaml"
    path.write_text(
        f"dataset: sim:tiny\nsplit: few-shot-context\nfolds: [0]\nmodels: [{entry}]\n",
        encoding="utf-8",
    )
    return "\n".join(map(str, check([str(path)]).problems))


def test_a_broken_declaration_concerns_only_jobs_that_use_it(tmp_path: Path) -> None:
    declare(tmp_path, version=0)
    assert set(broken()) == {"mine"}
    assert checked_job(tmp_path, "{model: control-mean}") == ""
    assert "models[0].model: 'mine' cannot be used" in checked_job(tmp_path, "{model: mine}")


def test_a_name_that_a_registered_model_has_is_refused(tmp_path: Path) -> None:
    declare(tmp_path, "linear")
    assert "there is a registered model 'linear'" in str(check(["linear"]).problems)
    assert "'linear' cannot be used" in checked_job(tmp_path, "{model: linear}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"environment": {"python": "/nowhere/bin/python"}},
            "there is no interpreter '/nowhere/bin/python'",
            id="interpreter",
        ),
        pytest.param(
            {"environment": {"image": "docker://somewhere/state"}},
            "needs one of apptainer, singularity, docker, podman, and none is on the PATH",
            id="engine",
        ),
        pytest.param(
            {"environment": {"requirements": ["x"], "installer": "uv"}},
            "uv is neither on the PATH nor beside",
            id="uv",
        ),
    ],
)
def test_what_this_machine_lacks_is_refused_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    declare(tmp_path, **changes)
    assert checked_job(tmp_path, "{model: mine}") == ""
    with pytest.raises(JobError, match=message):
        plan_job(str(tmp_path / "job.yaml"))
    assert plan_job(str(tmp_path / "job.yaml"), here=False).missing


def test_a_program_that_reads_counts_is_refused_a_screen_without(tmp_path: Path) -> None:
    logged = write_store(make_screen(), tmp_path / "logged.zarr", scale="log1p")
    declare(tmp_path, input={"scale": "counts"})
    path = tmp_path / "job.yaml"
    text = f"dataset: {logged.path}\nsplit: unseen-perturbation\nfolds: [0]\nmodels: [mine]\n"
    path.write_text(text.replace("[mine]", "[{model: mine}]"), encoding="utf-8")
    with pytest.raises(JobError, match=r"mine: reads counts, but dataset .* holds log1p values"):
        plan_job(str(path))


def ids(folder: Path) -> set[str]:
    checked_job(folder, "{model: mine}")
    return {trial.id for trial in plan_job(str(folder / "job.yaml")).trials}


def test_a_trial_is_known_by_what_its_program_is_told_and_is(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("print(1)\n", encoding="utf-8")
    given = {"files": {"program": str(program)}}
    declare(tmp_path, **given)
    first = ids(tmp_path)
    declare(tmp_path, **given, title="Another title", seconds={"train": 60}, cite="someone")
    assert ids(tmp_path) == first
    program.write_text("print(22)\n", encoding="utf-8")
    assert ids(tmp_path) != first
    program.write_text("print(1)\n", encoding="utf-8")
    assert ids(tmp_path) == first
    declare(tmp_path, **given, version=2)
    assert ids(tmp_path) != first
    declare(tmp_path, **given, input={"scale": "counts"})
    assert ids(tmp_path) != first
    declare(tmp_path, **given, environment={"variables": {"MODE": "fast"}})
    assert ids(tmp_path) != first
    declare(tmp_path, **given, environment={"requirements": [str(program)]})
    second = ids(tmp_path)
    declare(tmp_path, environment={"requirements": [str(program)]})
    third = ids(tmp_path)
    program.write_text("print(22)\n", encoding="utf-8")
    assert ids(tmp_path) not in (first, second, third)


def test_what_decides_a_prediction_is_pinned(tmp_path: Path) -> None:
    plain = {"files": None, "parameters": None, "predict": ["p", "{queries}", "{output}"]}
    made = command(tmp_path, **plain, train=None, seconds={"train": 60}, output={"holds": "cells"})
    assert canonical(made.identity({})) == (
        '{"files":{},"predict":["p","{queries}","{output}"],"version":1}'
    )
    full = {
        "environment": {"requirements": ["a==1"], "constraints": ["b<2"], "installer": "uv"},
        "train": ["t", "{train}", "{model_dir}"],
        "input": {"scale": "counts", "batches": True},
        "labels": {"control": "none"},
        "output": {"file": "out.zarr", "holds": "profiles"},
    }
    made = command(tmp_path, **plain | full)
    assert canonical(made.identity({"a": "1"})) == (
        '{"environment":{"constraints":["b<2"],"installer":"uv","requirements":["a==1"]},'
        '"files":{"a":"1"},"input":{"batches":true,"scale":"counts"},"labels":{"control":"none"},'
        '"output":{"file":"out.zarr","holds":"profiles"},'
        '"predict":["p","{queries}","{output}"],"train":["t","{train}","{model_dir}"],"version":1}'
    )


def test_trials_of_other_models_are_what_they_were(tmp_path: Path) -> None:
    checked_job(tmp_path, "{model: control-mean}")
    (trial,) = plan_job(str(tmp_path / "job.yaml")).trials
    assert "command" not in trial.to_json()
    assert identified([trial]) == (trial,)


def test_a_command_travels_as_text(tmp_path: Path) -> None:
    made = command(tmp_path, parameters={"fault": {"type": "str"}, "strength": {"type": "float"}})
    again = Command.from_json(made.to_json())
    assert again == made
    assert again.parameters["fault"].default is Parameter.empty


def test_placeholders_are_replaced_and_doubled_braces_kept() -> None:
    values = {"a": 1e-05, "b": True, "c": None, "d": "x y"}
    words = ["{a}", "k={b}", "{c}", "{d}", '{{"json": {a}}}']
    assert filled(words, values) == ["1e-05", "k=true", "null", "x y", '{"json": 1e-05}']
