"""The command line: help, statuses, and what a user's mistakes are answered with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest

import harness
from harness.cli import COMMANDS
from harness.cli import run_command as run
from harness.cli.console import split_names
from harness.config.lookup import declarations

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"harness {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"harness {command}" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["nonsense"], "Unknown command", id="unknown_command"),
        pytest.param(["simulate", "tiny"], "--output", id="missing_option"),
        pytest.param(["run", "quikstart"], "Did you mean 'quickstart'?", id="unknown_job"),
        pytest.param(["list", "cats"], "cats", id="unknown_thing"),
        pytest.param(["check", "quikstart"], "Did you mean", id="unknown_declaration"),
        pytest.param(["fetch", "papalexi"], "Did you mean 'papalexi21'?", id="unknown_card"),
        pytest.param(["run", "quickstart", "--on", "slurrm"], "slurrm", id="unknown_cluster"),
        pytest.param(["convert", "a.h5ad", "-o", "a.zarr"], "a.h5ad", id="no_such_file"),
        pytest.param(
            ["score", "-t", "no.h5ad", "-p", "none.h5ad", "-o", "out"], "no.h5ad", id="no_truth"
        ),
        pytest.param(["convert", "x", "-o", "a.zarr", "--threads", "0"], ">= 1", id="no_threads"),
    ],
)
def test_misuse_is_answered_with_status_two(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--memory", "lots"], "'lots' is not a size", id="no_size"),
        pytest.param(["--memory", "9B"], "Give at least", id="too_little"),
    ],
)
def test_memory_that_cannot_be_used_is_misuse(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, target = tmp_path / "screen.h5ad", tmp_path / "screen.zarr"
    obs = pd.DataFrame({"target_gene": ["non-targeting", "A", "A"]}, index=["1", "2", "3"])
    var = pd.DataFrame(index=["A", "B"])
    anndata.AnnData(np.ones((3, 2), "f4"), obs=obs, var=var).write_h5ad(source)
    command = ["convert", str(source), "-o", str(target), "--scale", "counts"]
    assert run([*command, *words]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_an_interrupt_says_what_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli.run.run_job", interrupt)
    assert run(["run", "quickstart", "-o", str(tmp_path), "--on", "inline"]) == 130
    assert "run the same command again to continue" in " ".join(capsys.readouterr().err.split())


def test_a_file_is_no_run_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine", encoding="utf-8")
    assert run(["run", "quickstart", "--on", "inline", "-o", str(tmp_path / "notes")]) == 2
    assert "is no folder. Name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["models", "metrics", "datasets", "jobs", "splits"])
def test_list_has_a_line_for_each(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    if what in ("datasets", "jobs"):
        names = {line.split()[0] for line in lines}
        assert names >= set(declarations(what))


def test_everything_that_ships_is_right() -> None:
    assert run(["check"]) == 0


def test_check_reports_all_problems_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "dataset: sim:tiny\nsplit: unseen-pert\nmodels:\n  - {model: liner}\nsedes: [0]\n"
    (tmp_path / "bad.yaml").write_text(job, encoding="utf-8")
    assert run(["check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    for hint in ("'seeds'", "'linear'", "unseen-perturbation"):
        assert f"Did you mean {hint}" in said or hint in said
    assert "3 problems" in said


def test_simulate_then_check_then_run_on_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "screen.zarr"
    assert run(["simulate", "tiny", "-o", str(store), "--contexts", "1"]) == 0
    assert run(["check", str(store)]) == 0
    assert run(["simulate", "tiny", "-o", str(store)]) == 2
    assert "exists" in capsys.readouterr().err
    job = tmp_path / "job.yaml"
    job.write_text(
        f"dataset: {store}\nsplit: unseen-perturbation\nfolds: [0]\n"
        "models: [{model: control-mean}, {model: replicate}]\nscore: {baseline: control-mean}\n",
        encoding="utf-8",
    )
    out = str(tmp_path / "run")
    assert run(["plan", str(job), "-o", out]) == 0
    assert run(["run", str(job), "-o", out, "--on", "inline"]) == 0
    assert run(["table", out, "--to", "csv"]) == 0
    assert "replicate" in capsys.readouterr().out
    assert (tmp_path / "run/tables/comparison.md").exists()


def test_score_writes_what_cell_eval_writes(tmp_path: Path) -> None:
    truth = harness.simulate("tiny", tmp_path / "truth.zarr", contexts=1)
    out = tmp_path / "out"
    words = ["score", "-t", truth.path, "-p", truth.path, "-o", str(out)]
    assert run(words) == 0
    folder = out / "truth/vcc2025"
    header, *rows = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    assert header.split(",")[0] == "perturbation"
    assert len(rows) == len(truth.perturbations)
    assert (folder / "agg_results.csv").read_text(encoding="utf-8").startswith("statistic,")
    assert (out / "table.md").exists()
    mae = [float(row.split(",")[header.split(",").index("mae")]) for row in rows]
    np.testing.assert_array_equal(mae, 0)


def test_the_2026_suite_is_placed_between_its_anchors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    screens = [
        harness.simulate("tiny", tmp_path / f"{name}.zarr", contexts=1, cells=60, controls=300).path
        for name in ("truth", "copy")
    ]
    out = tmp_path / "out"
    words = ["score", "-t", screens[0], "-p", screens[1], "-o", str(out), "--suite", "vcc2026"]
    assert run(words) == 0
    assert "vcc2026, scaled" in capsys.readouterr().out
    assert "Scaled score of vcc2026" in (out / "table.md").read_text(encoding="utf-8")
    members = (out / "copy/vcc2026/score.csv").read_text(encoding="utf-8").splitlines()
    assert members[0] == "context,metric,value,baseline,replicate,scaled"
    assert len(members) == 7
    assert (out / "anchors.csv").exists()


def test_one_unreadable_prediction_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = harness.simulate("tiny", tmp_path / "truth.zarr", contexts=1).path
    (tmp_path / "broken.h5ad").write_bytes(b"not HDF5")
    out = tmp_path / "out"
    words = ["score", "-t", truth, "-p", str(tmp_path / "broken.h5ad"), truth, "-o", str(out)]
    assert run(words) == 2
    assert "broken.h5ad" in capsys.readouterr().err
    assert (out / "truth/vcc2025/results.csv").exists()
    assert not (out / "broken").exists()


def test_convert_takes_a_file_by_its_card(data_file: Callable[[str], Path], tmp_path: Path) -> None:
    source = data_file("papalexi21.h5ad")
    out = tmp_path / "p.zarr"
    assert run(["convert", str(source), "-o", str(out), "--memory", "200MiB"]) == 0
    store = harness.open_store(out)
    assert (store.n_cells, store.n_genes, store.scale) == (20729, 290, "counts")
    assert store.contexts == ("THP-1",)


@pytest.mark.parametrize(
    ("flag", "value"), [("--perturbation-column", "gene"), ("--control", "nontargeting")]
)
def test_convert_without_a_card_names_the_wrong_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cells = pd.DataFrame({"target_gene": ["A", "non-targeting"]}, index=["c1", "c2"])
    anndata.AnnData(np.ones((2, 3), "f4"), obs=cells).write_h5ad(tmp_path / "mine.h5ad")
    convert = ["convert", str(tmp_path / "mine.h5ad"), "-o", str(tmp_path / "mine.zarr")]
    assert run([*convert, "--scale", "counts", flag, value]) != 0
    assert f"Give another {flag}." in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mine.zarr").exists()


def test_the_plan_of_a_search_alone_says_what_is_to_be_done(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = tmp_path / "alone.yaml"
    job.write_text(
        "kind: search\ndataset: sim:small\nsplit: listed\nmodel: linear\n"
        "space: {rank: {choice: [2, 4]}, ridge: {log: [0.001, 10.0]}}\n",
        encoding="utf-8",
    )
    assert run(["plan", str(job), "-o", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing is left" not in said
    assert "No trial yet" in said
    assert "20 to try" in said


def test_a_reader_may_close_the_output_early() -> None:
    code = "from harness import cli; cli.run_command = lambda argv: print('a table'); cli.main([])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == ""


def test_importing_the_command_line_is_quick() -> None:
    code = "import harness.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "numba", "zarr", "ray"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "tiny", "-o", "x.zarr", "--contexts", "0"],
        ["simulate", "tiny", "-o", "x.zarr", "--seed", "-1"],
        ["trust", "sim:tiny", "--seed", "-1"],
    ],
    ids=["contexts", "simulate_seed", "trust_seed"],
)
def test_a_number_that_cannot_be_is_misuse(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    assert "Must be >=" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_suite_named_twice_counts_once() -> None:
    assert split_names("vcc2025,cell-eval,vcc2025") == ("vcc2025", "cell-eval")
    assert split_names(None) == ()


def test_commands_run_one_after_another_in_one_process(tmp_path: Path) -> None:
    code = (
        "import sys; from harness import cli\n"
        "for words in (['plan', 'quickstart'], ['list', 'metrics']):\n"
        "    try: cli.main(words)\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
