"""`harness new`, and the tutorial that is built on it: from nothing to a row in a table."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cli import run_command as run
from harness.cli.scaffold import new_job, new_model
from harness.errors import DataError, JobError
from harness.jobs.checks import check_job
from harness.jobs.job import read_job
from harness.runs.plan import known_names

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/add-a-model.md"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the tutorial -------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Every command line of the tutorial, in order."""
    text = TUTORIAL.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    for language, block in blocks:
        yield from () if language else block.splitlines()


def runnable(line: str, site: Path) -> list[str]:
    """A command as this interpreter runs it: pip without a network, into a folder of its own."""
    program, *words = shlex.split(line)
    if program == "pip":
        assert words[:2] == ["install", "-e"]
        offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        words = ["install", *offline, "--target", str(site), *words[2:]]
    if program == "pytest":
        words = ["-q", "-W", "error", "-p", "no:cacheprovider", *words]
    return [sys.executable, "-m", program, *words]


def test_the_tutorial_ends_in_a_row_of_the_table(folder: Path) -> None:
    pytest.importorskip(
        "setuptools", reason="setuptools is not installed: nothing builds a package"
    )
    site = folder / "site"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = {}
    for line in commands():
        made = subprocess.run(
            runnable(line, site),
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, f"{line}\n{made.stdout}\n{made.stderr}"
        done[line] = made.stdout
    assert len(done) == 6
    table = done["harness run my-model/jobs/my-model.yaml --on inline"]
    assert table.count("my-model") >= 3
    assert "replicate" in table
    assert "2 passed" in done["pytest my-model"]


def test_the_tutorial_names_only_what_there_is() -> None:
    from harness import models, tasks, testing

    text = TUTORIAL.read_text(encoding="utf-8")
    for name in re.findall(r"train\.(\w+)", text):
        assert hasattr(tasks.TrainView, name) or name in {"pairs", "genes", "contexts"}, name
    for module, name in re.findall(r"harness\.([\w.]+)\.(\w+)[`(]", text):
        known = {"tasks": tasks, "testing": testing, "models": models}
        assert hasattr(known[module], name)
    assert hasattr(models, "Source")
    assert hasattr(models, "features_of")


# --- models -------------------------------------------------------------------------------------


def test_what_is_written_is_formatted(folder: Path) -> None:
    new_model("two-words", str(folder / "here"))
    ruff = [sys.executable, "-m", "ruff"]
    for words in (["format", "--check"], ["check", "--isolated", "--select", "E,W,F,I,UP,B"]):
        subprocess.run([*ruff, *words, "."], check=True, capture_output=True, cwd=folder / "here")
    assert "class TwoWords:" in (folder / "here" / "two_words.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("MyModel", "such as 'my-model'", id="capitals"),
        pytest.param("my_model", "such as 'my-model'", id="underscore"),
        pytest.param("2nd-try", "such as 'nd-try'", id="digit_first"),
        pytest.param("--", "such as 'my-model'", id="nothing"),
        pytest.param("ridge", "There is a model 'ridge' already", id="taken"),
        pytest.param("class", "Python has 'class' already", id="keyword"),
        pytest.param("numpy", "Python has 'numpy' already", id="package"),
    ],
)
def test_a_name_that_cannot_be_is_refused(folder: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        new_model(name)
    assert list(folder.iterdir()) == []


def test_what_exists_is_not_written_over(folder: Path) -> None:
    new_model("mine")
    with pytest.raises(DataError, match="mine exists already"):
        new_model("mine")


# --- jobs ---------------------------------------------------------------------------------------


def test_a_job_is_copied_for_a_dataset_with_the_splits_that_it_has(folder: Path) -> None:
    file = new_job("mine", "datlinger21")
    assert file == Path("jobs/mine.yaml")
    job, source = read_job("mine"), read_job(str(ROOT / "jobs/baselines.yaml"))
    assert job.datasets == ("datlinger21",)
    assert job.splits == ("unseen-perturbation", "few-shot-context", "zero-shot-context")
    assert job.models == source.models
    assert check_job(file, known_names()) == []
    assert "# nothing learned, and the means" in file.read_text(encoding="utf-8")


def test_a_job_without_a_split_to_run_is_refused(folder: Path) -> None:
    with pytest.raises(JobError, match=r"papalexi21 has none of the splits .*found \['unseen-pert"):
        new_job("mine", "papalexi21", like="sweeps/contexts")
    assert list(Path("jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["job", "mine"], "Give it with --dataset", id="no_dataset"),
        pytest.param(
            ["model", "mine", "--dataset", "sim:tiny"], "is for a job", id="not_for_model"
        ),
        pytest.param(["job", "mine", "--dataset", "sim:tny"], "Did you mean", id="unknown_dataset"),
        pytest.param(
            ["job", "mine", "--dataset", "sim:tiny", "--like", "baslines"],
            "Did you mean 'baselines'?",
            id="unknown_job",
        ),
    ],
)
def test_misuse_is_answered_with_status_two(
    folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(folder.rglob("*.yaml"))
