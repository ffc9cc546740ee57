"""Which code made a finished trial: an edit is told, and nothing is dropped or done in silence."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import harness
from harness.analysis.results import Results
from harness.cli import run_command as command
from harness.models import base
from harness.models import code_version as model_code
from harness.models.base import ModelInfo
from harness.models.code_version import (
    _of_class,
    code_of_model,
    is_other_code,
    source_files,
)
from harness.runs.estimate import changed_code
from harness.runs.folder import RunFolder
from harness.runs.plan import plan_job
from harness.runs.runner import retry, run_job
from tests.command_files import declare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = """
from harness.tasks import Prediction
from mymodels.shift import SHIFT

class Edited:
    def __init__(self, *, size: float = 1.0) -> None:
        self.size = size
    def fit(self, train):
        self.train_ = train
        return self
    def predict(self, queries):
        for query in queries:
            profile = self.train_.control_pseudobulk(query.context) + self.size * SHIFT
            yield Prediction(query, profile=profile)
"""
PACKAGE = {
    "__init__.py": "",
    "edited.py": MODEL,
    "shift.py": "SHIFT = 0.1\n",
    "unused.py": "A = 1\n",
}
JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
models: [{model: control-mean}, {model: edited, size: [1.0, 2.0]}]
keep: [scores, predictions]
"""


@pytest.fixture
def load(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Write the package, with some files changed, and load it as a new process would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(base, "_MODELS", {**base.registered_classes()})
    (tmp_path / "mymodels").mkdir()
    Path("job.yaml").write_text(JOB, encoding="utf-8")

    def again(**changed: str) -> None:
        for name, text in {**PACKAGE, **{f"{k}.py": v for k, v in changed.items()}}.items():
            (tmp_path / "mymodels" / name).write_text(text, encoding="utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] == "mymodels"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        _of_class.cache_clear()
        model = importlib.import_module("mymodels.edited").Edited
        base._MODELS["edited"] = ModelInfo("edited", model, ceiling=False, cells="shift-controls")

    again()
    return again


def values() -> dict[str, float]:
    frame = Results("run").scores
    return frame[frame["metric"] == "mae"].groupby("trial", observed=True)["value"].mean().to_dict()


def test_trials_of_a_model_that_was_edited_are_kept_told_and_made_again_when_asked(
    load: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run_job("job.yaml", "run", "inline").failures
    first = values()
    assert plan_job("job.yaml", "run").other_code == frozenset()
    load(shift="SHIFT = 0.5\n", unused="A = 2\n")
    plan = plan_job("job.yaml", "run")
    assert plan.other_code == {trial.id for trial in plan.trials if trial.model == "edited"}
    assert plan.missing == ()
    (said,) = changed_code(plan)
    assert said.startswith("2 finished trials were made by other code of edited than it has now")
    assert command(["run", "job.yaml", "-o", "run", "--on", "inline"]) == 0
    assert "warning: 2 finished trials were made" in " ".join(capsys.readouterr().err.split())
    assert command(["plan", "job.yaml", "-o", "run"]) == 0
    assert "2 finished trials were made by other code" in " ".join(capsys.readouterr().out.split())
    with pytest.warns(UserWarning, match="2 finished trials were made by other code of edited"):
        harness.run("job.yaml", "run", "inline")
    assert values() == first
    report = retry("run", other_code=True, on="inline")
    assert report.ran == 2
    assert report.plan.other_code == plan_job("job.yaml", "run").other_code == frozenset()
    changed = {trial for trial, value in values().items() if value != first[trial]}
    assert changed == plan.other_code


def test_what_the_model_does_not_use_is_no_code_of_it(load: Callable[..., None]) -> None:
    before = code_of_model("edited")
    assert set(before) == {"mymodels.edited", "mymodels.shift"}
    load(unused="A = 3\n")
    assert code_of_model("edited") == before
    load(edited=MODEL.replace("mymodels.shift", ".shift"))
    assert set(code_of_model("edited")) == set(before)


def test_predictions_that_are_scored_again_stay_those_of_the_code_that_made_them(
    load: Callable[..., None],
) -> None:
    run_job("job.yaml", "run", "inline")
    load(shift="SHIFT = 0.5\n")
    Path("job.yaml").write_text(f"{JOB}score: {{suite: [vcc2025, calibrated]}}\n", encoding="utf-8")
    plan = plan_job("job.yaml", "run")
    assert len(plan.scoring) == 3
    assert len(plan.other_code) == 2
    assert not run_job("job.yaml", "run", "inline").failures
    assert plan_job("job.yaml", "run").other_code == plan.other_code


def test_a_trial_from_before_code_was_recorded_is_not_called_other(
    load: Callable[..., None],
) -> None:
    run_job("job.yaml", "run", "inline")
    run = RunFolder("run")
    for trial in run.begun():
        manifest = run.manifest(trial)
        assert manifest is not None
        assert manifest.pop("code")
        run.write_manifest(trial, manifest)
    load(shift="SHIFT = 0.5\n")
    assert plan_job("job.yaml", "run").other_code == frozenset()


def test_the_version_of_the_harness_is_no_code_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_of_model("linear")
    assert list(before) == ["Linear"]
    monkeypatch.setattr("harness.runs.provenance.VERSION", "99")
    _of_class.cache_clear()
    assert code_of_model("linear") == before


def test_codes_are_compared_by_the_files_that_both_know() -> None:
    assert is_other_code({"a": "1", "b": "1"}, {"a": "1", "b": "2"})
    assert not is_other_code({"a": "1", "gone": "1"}, {"a": "1"})
    assert is_other_code({"module": "1"}, {"package.module": "1"})
    assert not is_other_code({}, {"a": "1"})
    assert not is_other_code({"harness.models.linear": "1"}, {"Linear": "2"})
    assert is_other_code({"Linear": "1"}, {"Linear": "2"})
    assert not is_other_code({"a": "1"}, {})


def test_a_program_is_also_the_files_that_its_commands_name(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    helper = tmp_path / "settings.toml"
    helper.write_text("a = 1\n", encoding="utf-8")
    predict = ["python", "{program}", "predict", "{model_dir}", "{queries}", "{output}"]
    declare(tmp_path, predict=[*predict, "{fault}", "{seed}", f"--settings={helper}"])
    Path("job.yaml").write_text(
        "dataset: sim:tiny?contexts=2\nsplit: few-shot-context\nfolds: [0]\n"
        "models: [{model: mine}]\n",
        encoding="utf-8",
    )
    assert not run_job("job.yaml", "run", "inline").failures
    assert plan_job("job.yaml", "run").other_code == frozenset()
    helper.write_text("a = 22\n", encoding="utf-8")
    plan = plan_job("job.yaml", "run")
    assert plan.other_code == plan.done == {plan.trials[0].id}


def modules_of(model: str) -> set[str]:
    """The modules whose files are a shipped model's code, below harness.models."""
    files = source_files(base.model_class(model))
    assert all(name.startswith("harness.models.") for name in files)
    return {name.removeprefix("harness.models.") for name in files}


def test_the_code_of_a_network_is_also_its_part_in_pytorch_and_how_it_is_fitted() -> None:
    known = modules_of("latent-additive")
    parts = {"latent_additive", "base", "encoding", "data_loader"}
    in_torch = {"latent_additive", "fitted", "training", "inputs"}
    assert {f"networks.{name}" for name in parts} <= known
    assert {f"networks.torch.{name}" for name in in_torch} <= known
    assert "networks.torch.set_transformer" not in known
    assert modules_of("control-mean") == {"means", "effects"}


@pytest.mark.parametrize(
    ("model", "shared", "none_of_it"),
    [
        (
            "set-transformer",
            ["networks.torch.losses", "networks.encoding", "networks.torch.training"],
            "networks.decoder_only",
        ),
        (
            "conditional-autoencoder",
            ["networks.torch.latent_additive"],
            "networks.latent_additive",
        ),
        ("ridge", ["residuals", "features", "effects"], "bilinear"),
    ],
)
def test_the_code_of_a_shipped_model_is_also_what_it_shares_with_others(
    model: str, shared: list[str], none_of_it: str
) -> None:
    known = modules_of(model)
    assert set(shared) <= known
    # The network that shares an encoder with another imports that one's model for types only.
    assert none_of_it not in known
    assert "base" not in known
    assert ("networks.data_loader" in known) == ("networks.torch.training" in known)


def test_to_know_the_code_of_a_network_needs_no_torch() -> None:
    code = (
        "import sys; from harness.models import model_class; "
        "from harness.models.code_version import source_files; "
        "assert len(source_files(model_class('set-transformer'))) > 9; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.fixture
def replace_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let a module's file have other content, under its name or another."""
    files: dict[str, Path] = {}
    find = model_code._source

    def replace(module: str, content: str) -> None:
        files[module] = tmp_path / f"{module}.py"
        files[module].write_text(content, encoding="utf-8")
        _of_class.cache_clear()

    monkeypatch.setattr(model_code, "_source", lambda name: files.get(name) or find(name))
    yield replace
    _of_class.cache_clear()


def text_of(module: str) -> str:
    source = model_code._source(module)
    assert source is not None
    return source.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("edited", "model", "without_it"),
    [
        ("residuals", "ridge", "linear"),
        ("features", "linear", "control-mean"),
        ("effects", "control-mean", "replicate"),
        ("networks.encoding", "decoder-only", "ridge"),
        ("networks.data_loader", "decoder-only", "ridge"),
        ("networks.torch.training", "latent-additive", "ridge"),
        ("networks.torch.losses", "set-transformer", "decoder-only"),
    ],
)
def test_an_edit_of_a_file_that_models_share_is_other_code_of_these_alone(
    replace_file: Callable[..., None], edited: str, model: str, without_it: str
) -> None:
    module = f"harness.models.{edited}"
    before = {name: code_of_model(name) for name in (model, without_it)}
    replace_file(module, text_of(module) + "EDITED = True\n")
    assert is_other_code(before[model], code_of_model(model))
    assert before[without_it] == code_of_model(without_it)


def test_a_file_of_a_shipped_model_that_only_moved_is_no_edit(
    replace_file: Callable[..., None],
) -> None:
    before = code_of_model("ridge")
    old, new = "harness.models.features", "harness.models.vectors"
    replace_file(new, text_of(old))
    users = ("ridge", "residuals", "feature_regression")
    for module in (f"harness.models.{name}" for name in users):
        replace_file(module, text_of(module).replace(f"from {old} import", f"from {new} import"))
    assert new in source_files(base.model_class("ridge"))
    assert old not in source_files(base.model_class("ridge"))
    assert code_of_model("ridge") == before


def test_an_older_record_of_a_shipped_model_is_not_called_other(
    load: Callable[..., None],
) -> None:
    run_job("job.yaml", "run", "inline")
    run = RunFolder("run")
    for trial in run.begun():
        manifest = run.manifest(trial)
        assert manifest is not None
        if "ControlMean" in manifest["code"]:
            manifest["code"] = {"harness.models.control_mean": "0" * 32}
            run.write_manifest(trial, manifest)
    assert plan_job("job.yaml", "run").other_code == frozenset()
    load(shift="SHIFT = 0.5\n")
    plan = plan_job("job.yaml", "run")
    assert plan.other_code == {trial.id for trial in plan.trials if trial.model == "edited"}


def test_what_is_imported_for_types_alone_is_no_code(load: Callable[..., None]) -> None:
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mymodels.unused\n"
    load(shift=f"{typed}SHIFT = 0.1\n")
    assert set(code_of_model("edited")) == {"mymodels.edited", "mymodels.shift"}
