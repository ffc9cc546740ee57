"""`harness prep`, `harness check X.vcc` and scoring an archive, from the command line."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.cli import run_command as run
from harness.data.vcc_archive import unpacked

GENES = [f"G{i}" for i in range(40)]
LABELS = ["non-targeting"] * 30 + ["A"] * 20 + ["B"] * 20


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Make a folder with a prediction of counts, and the challenge's two lists."""
    monkeypatch.chdir(tmp_path)
    counts = np.random.default_rng(0).poisson(2, (len(LABELS), 40)).astype("f4")
    counts[30:50, :5] += 4
    obs = pd.DataFrame({"target_gene": LABELS}, index=np.arange(len(LABELS)).astype(str))
    data = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))
    data.write_h5ad("p.h5ad")
    (tmp_path / "genes.csv").write_text("\n".join(GENES), encoding="utf-8")
    (tmp_path / "targets.csv").write_text(
        "target_gene,n_cells,median_umi_per_cell\nA,20,90.0\nB,20,80.0\n", encoding="utf-8"
    )
    return tmp_path


PREP = ["prep", "p.h5ad", "-g", "genes.csv", "-o", "x.vcc"]


def test_prep_says_what_it_did(capsys):
    assert run([*PREP, "--perturbations", "targets.csv"]) == 0
    said = capsys.readouterr().err
    assert "x.vcc: 70 cells x 40 genes, 2 perturbations and controls" in said
    assert "made log1p" in said
    assert run(["check", "x.vcc", "-g", "genes.csv", "--perturbations", "targets.csv"]) == 0
    assert "nothing wrong" in capsys.readouterr().err


def test_prep_keeps_counts_and_bits_when_told_to():
    assert run([*PREP, "--keep-counts", "--encoding", "64"]) == 0
    with unpacked("x.vcc") as file:
        X = ad.read_h5ad(file).X
    assert X.dtype == np.float64
    np.testing.assert_array_equal(X.toarray(), ad.read_h5ad("p.h5ad").X.toarray())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param([*PREP, "--max-cells", "69"], "too many cells", id="cells"),
        pytest.param([*PREP, "--control", "ctrl"], "no controls", id="control"),
        pytest.param([*PREP, "--perturbation-column", "pert"], "'pert' is not in obs", id="column"),
        pytest.param([*PREP, "--encoding", "16"], "16", id="encoding"),
        pytest.param(["prep", "p.h5ad", "-g", "no.csv", "-o", "x.vcc"], "no.csv", id="genes"),
        pytest.param(["prep", "p.h5ad", "-g", "targets.csv", "-o", "x.vcc"], "genes", id="others"),
        pytest.param(["prep", "none.h5ad", "-g", "genes.csv", "-o", "x.vcc"], "none", id="input"),
        pytest.param(["prep", "p.h5ad", "-g", "genes.csv", "-o", "p.h5ad"], "exists", id="exists"),
        pytest.param(["prep", "p.h5ad", "-o", "x.vcc"], "--genes", id="no_genes"),
    ],
)
def test_what_cannot_be_submitted_is_answered_with_status_two(folder, words, said, capsys):
    before = sorted(folder.iterdir())
    assert run(words) == 2
    assert said in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_check_reports_all_that_is_wrong_with_a_submission(folder, capsys):
    assert run(PREP) == 0
    (folder / "targets.csv").write_text("target_gene\nA\nC\n", encoding="utf-8")
    words = ["check", "x.vcc", "--perturbations", "targets.csv", "--max-cells", "10"]
    assert run(words) == 1
    said = capsys.readouterr().err
    assert "1 are missing: 'C'; 1 are not in the list: 'B'" in said
    assert "2 problems" in said


def test_check_refuses_a_damaged_submission(folder, capsys):
    assert run(PREP) == 0
    (folder / "x.vcc").write_bytes((folder / "x.vcc").read_bytes()[:3000])
    assert run(["check", "x.vcc"]) == 1
    assert "not a whole tar archive" in capsys.readouterr().err
    assert run(["check", "y.vcc"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_an_archive_scores_as_the_file_it_was_made_of(folder):
    assert run([*PREP]) == 0
    truth = ["score", "-t", "p.h5ad", "-o", "out"]
    assert run([*truth, "-p", "x.vcc", "--prediction-scale", "log1p"]) == 0  # a submission is
    assert run([*truth, "-p", "p.h5ad"]) == 0
    results = [(folder / f"out/{name}/vcc2025/results.csv").read_text("utf-8") for name in "xp"]
    assert results[0] == results[1]


def test_a_damaged_archive_is_not_scored(folder, capsys):
    (folder / "x.vcc").write_bytes(b"not a tar")
    assert run(["score", "-t", "p.h5ad", "-p", "x.vcc", "-o", "out"]) == 2
    assert "x.vcc: not a whole tar archive" in capsys.readouterr().err
    assert not (folder / "out").exists()
