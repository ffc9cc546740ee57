"""Scores that are centred on a mean from outside the held-out side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from harness.cli import run_command as command
from harness.data import ArrayCells
from harness.errors import DataError
from harness.metrics import registered
from harness.scoring import score
from harness.scoring.centre import read_centre

if TYPE_CHECKING:
    from pathlib import Path

GENES = tuple(f"g{i}" for i in range(30))
NAMES = ("pearson_delta_training_mean", "r2_delta_training_mean", "weighted_r2_delta_training_mean")


def cells(profiles: np.ndarray, rng: np.random.Generator, noise: float = 0.05) -> ArrayCells:
    """Ten cells for each profile; the last one is the controls'."""
    labels = [*(f"p{i}" for i in range(len(profiles) - 1)), "control"]
    values = np.repeat(profiles, 10, axis=0)
    values = values + rng.normal(0, noise, values.shape)
    return ArrayCells(
        values.astype(np.float32),
        np.repeat(labels, 10),
        np.full(len(values), "c0"),
        genes=GENES,
        control_label="control",
    )


@pytest.fixture
def profiles(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(4, 6, (6, len(GENES)))


def values(metric: str, *sides: ArrayCells, centre: np.ndarray | None) -> pd.Series[float]:
    given = None if centre is None else lambda context: centre
    frame = score(*sides, suite="calibrated", metrics=[metric], centre=given).frame
    assert frame["reason"].unique().tolist() in ([""], ["no reference mean given"])
    found: pd.Series[float] = frame["value"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_are_centred_on_the_mean_that_was_given(
    rng: np.random.Generator, profiles: np.ndarray, name: str
) -> None:
    truth, close = cells(profiles, rng), cells(profiles, rng)
    centre = profiles[:5].mean(axis=0)
    assert (values(name, truth, close, centre=centre) > 0.9).all()
    assert values(name, truth, close, centre=None).isna().all()


def test_the_correlation_is_that_of_the_effects_from_the_centre(
    rng: np.random.Generator, profiles: np.ndarray
) -> None:
    truth, other = cells(profiles, rng), cells(rng.permutation(profiles), rng)
    centre = rng.uniform(4, 6, len(GENES))
    means = [
        pd.DataFrame(side.gene_block(0, len(GENES)).astype(float))
        .groupby(side.perturbations)
        .mean()
        for side in (truth, other)
    ]
    expected = [
        np.corrcoef(means[0].loc[f"p{i}"] - centre, means[1].loc[f"p{i}"] - centre)[0, 1]
        for i in range(5)
    ]
    np.testing.assert_allclose(values(NAMES[0], truth, other, centre=centre), expected, rtol=1e-5)


def test_the_centre_itself_correlates_with_nothing(
    rng: np.random.Generator, profiles: np.ndarray
) -> None:
    truth = cells(profiles, rng)
    same = profiles.copy()
    same[:5] = profiles[:5].mean(axis=0)
    predicted = cells(same, rng, noise=1e-6)
    found = values(NAMES[0], truth, predicted, centre=same[0])
    assert found.tolist() == [0.0] * 5


@pytest.mark.parametrize("n_perturbations", [5, 20])
def test_which_perturbations_were_drawn_earns_a_training_mean_nothing(n_perturbations: int) -> None:
    """The mean of other perturbations, drawn as the tested ones were, scores 0 on average."""
    rng = np.random.default_rng(1)
    shared = rng.uniform(4, 6, len(GENES))
    older, newer = [], []
    for _ in range(30):
        drawn = shared + rng.normal(0, 0.5, (n_perturbations + 101, len(GENES)))
        train, test = drawn[:100], drawn[100:]
        mean = train.mean(axis=0)
        predicted = np.vstack([np.tile(mean, (n_perturbations, 1)), test[-1]])
        sides = cells(test, rng), cells(predicted, rng)
        older.append(values("pearson_delta_perturbed_mean", *sides, centre=None).mean())
        newer.append(values(NAMES[0], *sides, centre=mean).mean())
    assert np.mean(older) == pytest.approx(n_perturbations**-0.5, abs=0.06)
    assert abs(np.mean(newer)) < 0.06


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_table_of_reference_profiles_is_read_by_gene_and_context(
    tmp_path: Path, suffix: str
) -> None:
    table = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}, index=["g1", "g0", "x"])
    path = tmp_path / f"means.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if suffix == "csv" else "\t")
    found = read_centre(str(path), ("g0", "g1"), ("a", "b"))
    assert {name: values.tolist() for name, values in found.items()} == {"a": [2, 1], "b": [5, 4]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("gene,a\ng0,1\n", "no column for context 'b'", id="context"),
        pytest.param("gene,a,b\ng0,1,2\n", "no row for 1 of 2 genes: 'g1'", id="gene"),
        pytest.param("gene,a,b\ng0,1,2\ng1,x,2\n", "'a' has no finite number for 1", id="text"),
        pytest.param("gene,a,b\ng0,1,2\ng0,1,2\ng1,1,1\n", "1 genes have several rows", id="twice"),
        pytest.param("", "cannot be read as a table", id="empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "means.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_centre(str(path), ("g0", "g1"), ("a", "b"))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "means.h5ad"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"ends in \.csv, \.tsv or \.parquet"):
        read_centre(str(path), ("g0",), ("a",))


def test_every_metric_that_is_centred_so_says_what_it_is_centred_on() -> None:
    for name in NAMES:
        assert "training" in registered()[name].description
        assert "centre" in registered()[name].needs


def test_harness_score_takes_the_mean_from_a_table(
    tmp_path: Path, rng: np.random.Generator, profiles: np.ndarray
) -> None:
    import anndata

    files = []
    for name in ("truth", "prediction"):
        side = cells(profiles, rng)
        file = tmp_path / f"{name}.h5ad"
        obs = pd.DataFrame({"target_gene": side.perturbations}, index=[f"{i}" for i in range(60)])
        values = np.maximum(side.gene_block(0, len(GENES)), 0)
        anndata.AnnData(values, obs, pd.DataFrame(index=list(GENES))).write_h5ad(file)
        files.append(str(file))
    means = tmp_path / "means.csv"
    pd.Series(profiles[:5].mean(axis=0), index=GENES, name="mean").to_csv(means)
    words = ["score", "-t", files[0], "-p", files[1], "-o", str(tmp_path / "out")]
    words += ["--control", "control", "--suite", "calibrated", "--metrics", ",".join(NAMES)]
    assert command([*words, "--centre", str(means)]) == 0
    frame = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert (frame["value"] > 0.9).all()
    assert command(words) == 0
    frame = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(frame["reason"]) == {"no reference mean given"}
