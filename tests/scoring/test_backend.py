"""Scores on a device: equal to the CPU's with a stand-in for CuPy; and what is said without one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import harness
from harness.cli import run_command as run
from harness.errors import HarnessError
from harness.kernels import backend
from harness.scoring.options import ScoringOptions
from tests import stand_in
from tests.golden import cases, compare

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(backend, "find_spec", lambda _: None)


@pytest.mark.parametrize("name", list(cases.SIMULATED))
def test_scores_do_not_depend_on_the_backend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    case = cases.SIMULATED[name]()
    sides = compare.annotated(case.truth), compare.annotated(case.prediction)
    expected = harness.score(*sides, backend="cpu").frame
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", stand_in.module())
    monkeypatch.setattr(backend, "find_spec", lambda name: name)
    assert ScoringOptions(backend="auto").device.reason == "stand-in"
    found = harness.score(*sides, backend="gpu").frame
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("no_device")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HarnessError, match=r"pip install 'virtual-cell-harness\[gpu\]'"):
        _ = ScoringOptions(backend="gpu").device
    out = tmp_path / "out"
    words = ["score", "-t", "no.h5ad", "-p", "no.h5ad", "-o", str(out), "--backend", "gpu"]
    assert run(words) == 2
    said = capsys.readouterr().err
    assert "Backend 'gpu' cannot be used: CuPy is not installed" in said
    assert "pip install 'virtual-cell-harness[gpu]'" in said
    assert not out.exists()


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(("asked", "lines"), [("auto", 1), ("cpu", 0)])
def test_auto_says_in_one_line_why_it_takes_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str, lines: int
) -> None:
    truth = harness.simulate("tiny", tmp_path / "truth.zarr", contexts=1).path
    words = ["score", "-t", truth, "-p", truth, "-o", str(tmp_path / "out"), "--backend", asked]
    assert run(words) == 0
    said = capsys.readouterr().err.splitlines()
    found = [line for line in said if line.startswith("On the CPU: CuPy is not installed")]
    assert len(found) == lines
