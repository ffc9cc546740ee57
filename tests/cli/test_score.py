"""`harness score` on what cannot be meant: status 2, one sentence, and nothing written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from harness.cli import run_command as run
from harness.errors import DataError, HarnessError, listed
from harness.metrics import registered
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import chosen_suites, prepare, score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = cases.SIMULATED["plain"]()
COUNTS = cases.SIMULATED["counts"]()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A truth, two predictions that fit it, and several that do not."""
    folder = tmp_path_factory.mktemp("files")
    prediction = compare.annotated(PLAIN.prediction)
    compare.annotated(PLAIN.truth).write_h5ad(folder / "truth.h5ad")
    prediction.write_h5ad(folder / "good.h5ad")
    compare.annotated(COUNTS.prediction).write_h5ad(folder / "counts.h5ad")
    prediction[prediction.obs["target_gene"] != "G1"].copy().write_h5ad(folder / "lacks.h5ad")
    prediction[:0].copy().write_h5ad(folder / "empty.h5ad")
    (folder / "folder.vcc").mkdir()
    (folder / "a-file").touch()
    return folder


def arguments(files: Path, out: Path, *more: str, prediction: str = "good.h5ad") -> list[str]:
    named = ["-t", str(files / "truth.h5ad"), "-p", str(files / prediction), "-o", str(out)]
    return ["score", *named, "--backend", "cpu", *more]


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        ("counts.h5ad", "are counts, those of .*truth.h5ad are log1p.*--prediction-scale"),
        ("empty.h5ad", "there are no cells. Found 0 rows"),
        ("folder.vcc", "is a folder, expected a file"),
        ("a-file", "a-file: cannot be opened as .h5ad"),
    ],
    ids=["counts", "no-cells", "folder", "no-hdf5"],
)
def test_a_prediction_that_cannot_be_read_leaves_nothing(
    prediction: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(files, tmp_path / "out", prediction=prediction)) == 2
    text = capsys.readouterr().err.replace("\n", " ")
    assert text.count("error:") == 1
    assert pd.Series([text]).str.contains(said).all(), text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--threads", "0"], "--threads"),
        (["--memory", "lots"], "memory: 'lots' is not a size"),
        (["--memory", "0"], "memory: found '0', expected some"),
        (["--suite", "vcc2025,"], "Unknown suite ''"),
        (["--prediction-scale", "counts"], "counts were declared, but values have fractional"),
    ],
    ids=["threads", "memory", "no-memory", "suite", "scale"],
)
def test_an_option_that_cannot_be_meant_leaves_nothing(
    more: list[str],
    said: str,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments(files, tmp_path / "out", *more)) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_baseline_that_cannot_be_scored_leaves_nothing(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(files, tmp_path / "out", "--baseline", str(files / "lacks.h5ad"))
    assert run(words) == 2
    assert "lacks 'G1'" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_baseline_may_be_a_prediction_by_another_path(files: Path, tmp_path: Path) -> None:
    other = files / ".." / files.name / "good.h5ad"
    assert run(arguments(files, tmp_path / "out", "--baseline", str(other))) == 0
    assert pd.read_parquet(tmp_path / "out/scores.parquet")["prediction"].unique() == ["good"]


def test_what_an_earlier_call_scored_is_not_taken_for_this_ones(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    inputs.mkdir()
    (inputs / "other.h5ad").write_bytes((files / "good.h5ad").read_bytes())
    words = arguments(files, out, "-p", str(inputs / "other.h5ad"))
    assert run(words) == 0
    (inputs / "other.h5ad").write_bytes((files / "lacks.h5ad").read_bytes())
    assert run(words) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"What is in {out / 'other'} was scored by an earlier call" in " ".join(said.split())
    assert pd.read_parquet(out / "scores.parquet")["prediction"].unique() == ["good"]


@pytest.mark.parametrize("place", ["a-file", "a-file/below"])
def test_where_nothing_can_be_written_nothing_is_read(
    place: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(files, files / place, prediction="none.h5ad")) == 2
    assert "a-file is no folder" in capsys.readouterr().err.replace("\n", " ")


def test_no_prediction_is_misuse(files: Path, tmp_path: Path) -> None:
    words = ["score", "-t", str(files / "truth.h5ad"), "-p", "-o", str(tmp_path / "out")]
    assert run([*words, "--backend", "cpu"]) == 2


def test_suites_and_metrics_count_once_and_may_have_spaces() -> None:
    ((suite, members), (other, _)) = chosen_suites("vcc2025, cell-eval:de,vcc2025", ["mae", " mae"])
    assert (suite.name, other.name) == ("vcc2025", "cell-eval:de")
    assert [metric.name for metric in members] == ["mae"]


def test_a_scale_that_was_said_may_differ() -> None:
    truth, prediction = compare.annotated(PLAIN.truth), compare.annotated(COUNTS.prediction)
    with pytest.raises(DataError, match="prediction: the values are counts, those of truth"):
        score(truth, prediction)
    found = score(truth, prediction, prediction_scale="counts")
    assert found.frame["value"].notna().all()


def test_a_prediction_of_zeros_is_on_any_scale() -> None:
    zeros = replace(PLAIN.prediction, X=np.zeros_like(PLAIN.prediction.X))
    assert (
        score(compare.annotated(PLAIN.truth), compare.annotated(zeros)).frame["value"].notna().all()
    )


def test_names_that_numpy_made_are_quoted_as_names() -> None:
    assert listed(np.array(["a", "b"])) == "'a', 'b'"
    controls = compare.annotated(PLAIN.truth)
    with pytest.raises(DataError, match=r"Found the perturbations 'G1', .*most cells: 'non-targ"):
        score(controls, controls, control="control")


def test_a_metric_that_raises_is_named_and_no_column_is_left_out(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(registered()["mae"], function=lambda comparison: comparison.nothing)
    monkeypatch.setattr("harness.metrics.suites.metric_named", {**registered(), "mae": broken}.get)
    with pytest.raises(AttributeError, match="nothing") as raised:
        run(arguments(files, tmp_path / "out"))
    assert raised.value.__notes__ == ["In metric mae@1."]
    assert not (tmp_path / "out").exists()


def test_options_are_checked_when_they_are_given() -> None:
    with pytest.raises(HarnessError, match="expected at least 1"):
        ScoringOptions(threads=-1)
    with pytest.raises(DataError, match=r"column 'gene' is not in obs. Found 'target_gene'"):
        prepare(compare.annotated(PLAIN.truth), ScoringOptions(perturbation_column="gene"))
