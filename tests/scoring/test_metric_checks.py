"""Controls, floors and tricks: what they are made of, and what is said of metrics by them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from harness.analysis.tables.metric_checks import TRICKS, trust_table
from harness.cli import run_command as run
from harness.data.array_cells import ArrayCells
from harness.data.simulation.screens import simulate
from harness.data.store import open_store
from harness.errors import DataError, UnknownNameError
from harness.runs.datasets import prepare
from harness.scoring.control_predictions import KINDS, NEGATIVE, POSITIVE, Halves, missing
from harness.scoring.metric_checks import Sampling, check_trust
from harness.scoring.to_counts import CountedCells
from tests.synthetic import make_screen, write_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.data.store import Store
    from harness.scoring.metric_checks import Trust

SUITES = ("vcc2025", "calibrated", "vcc2026")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A screen with clear effects on a hundred genes, as counts."""
    screen = make_screen(n_genes=100, n_perturbations=12, n_cells=60, n_controls=120)
    return write_store(screen, tmp_path_factory.mktemp("trust") / "screen.zarr")


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """A simulated screen, whose effects are neither clear nor hopeless."""
    screen = simulate("tiny", tmp_path_factory.mktemp("trust") / "tiny.zarr")
    return check_trust(screen, SUITES)


@pytest.fixture
def halves(rng: np.random.Generator) -> Halves:
    def cells(n: int, low: float = 0.0) -> np.ndarray:
        return rng.uniform(low, 2.0, (n, 6)).astype(np.float32)

    return Halves(
        perturbations=("A", "B", "C"),
        truth=tuple(cells(8) for _ in range(3)),
        duplicate=tuple(cells(n) for n in (7, 8, 9)),
        controls=cells(20, 1.0),
        called=rng.uniform(size=(3, 6)),
        targets=((0,), (), (2, 3)),
        depth=rng.uniform(0.5, 2.0, 20),
    )


# --- predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_predicts_log1p_cells_for_every_pair(
    halves: Halves, kind: str, rng: np.random.Generator
) -> None:
    pairs, controls = KINDS[kind].make(halves, rng)
    assert len(pairs) == 3
    for cells in (*pairs, controls):
        assert cells.dtype == np.float32
        assert cells.shape[1] == 6
        assert cells.min() >= 0
        assert cells.max() < 15


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_the_same_seed_gives_the_same_cells(halves: Halves, kind: str) -> None:
    first, second = (KINDS[kind].make(halves, np.random.default_rng(3)) for _ in range(2))
    for one, other in zip(first.pairs, second.pairs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mean_of_the_others_knows_nothing_of_the_pair(halves: Halves) -> None:
    others = halves.means_of_others
    halves.duplicate[0][:] = 0.0
    np.testing.assert_allclose(halves.means_of_others[0], others[0], rtol=1e-12)
    assert not np.allclose(halves.means_of_others[1], others[1])


def test_cancelling_scatter_leaves_every_mean_where_it_was(halves: Halves) -> None:
    weak, scattered = (
        KINDS[kind].make(halves, np.random.default_rng(1)).pairs
        for kind in ("weak-model", "cancelling-scatter")
    )
    for before, after in zip(weak, scattered, strict=True):
        np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), rtol=1e-6)
        assert after.std(axis=0).sum() > 1.5 * before.std(axis=0).sum()


def test_shuffled_labels_give_no_pair_its_own_cells(
    halves: Halves, rng: np.random.Generator
) -> None:
    pairs = KINDS["shuffled-labels"].make(halves, rng).pairs
    assert all(given is not own for given, own in zip(pairs, halves.duplicate, strict=True))
    assert {id(cells) for cells in pairs} == {id(cells) for cells in halves.duplicate}


def test_an_interpolated_duplicate_goes_as_far_as_genes_are_called(
    halves: Halves, rng: np.random.Generator
) -> None:
    halves.called[:] = 1.0  # no gene is: the mean of the others remains
    interpolated = KINDS["interpolated-duplicate"].make(halves, np.random.default_rng(2)).pairs
    others = KINDS[NEGATIVE].make(halves, np.random.default_rng(2)).pairs
    for one, other in zip(interpolated, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_spiked_targets_silence_the_target_and_nothing_else(halves: Halves) -> None:
    weak, spiked = (
        KINDS[kind].make(halves, np.random.default_rng(1)).pairs
        for kind in ("weak-model", "spiked-targets")
    )
    changed = [set(np.flatnonzero((a != b).any(axis=0))) for a, b in zip(weak, spiked, strict=True)]
    assert changed == [{0}, set(), {2, 3}]
    assert all(not cells[:, list(t)].any() for cells, t in zip(spiked, halves.targets, strict=True))


def test_a_screen_without_counts_has_no_depth_to_forge() -> None:
    without = Halves(("A",), (), (), np.empty((0, 1)), np.empty((1, 1)), ((),))
    assert "log1p values" in missing("log1p-of-counts", [without])
    assert "acts on a gene" in missing("spiked-targets", [without])
    assert missing(POSITIVE, [without]) == ""


# --- counts of predicted cells ------------------------------------------------------------------


def test_counts_of_log1p_cells_are_whole_and_keep_the_mean(rng: np.random.Generator) -> None:
    expected = rng.gamma(0.5, 2.0, 50)
    values = np.log1p(np.tile(expected, (4000, 1))).astype(np.float32)
    names = np.full(4000, "A")
    cells = ArrayCells(
        values, names, names, genes=tuple(f"g{i}" for i in range(50)), control_label="control"
    )
    counted = CountedCells(cells, seed=1)
    found = counted.gene_block(0, 50)
    np.testing.assert_array_equal(found, np.rint(found))
    error = found.mean(axis=0) - expected
    assert np.abs(error).max() < 5 * 0.5 / np.sqrt(4000)  # a rounding has at most variance 1/4
    np.testing.assert_array_equal(counted.library_sizes(), found.sum(axis=1))


def test_counts_do_not_depend_on_what_is_read_together(rng: np.random.Generator) -> None:
    names = np.full(30, "A")
    values = rng.uniform(0, 2, (30, 20)).astype(np.float32)
    cells = ArrayCells(
        values, names, names, genes=tuple(f"g{i}" for i in range(20)), control_label="control"
    )
    counted = CountedCells(cells, seed=4)
    parts = [counted.gene_block(start, start + 5) for start in range(0, 20, 5)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), counted.gene_block(0, 20))
    assert (CountedCells(cells, seed=5).gene_block(0, 20) != counted.gene_block(0, 20)).any()


# --- a screen -----------------------------------------------------------------------------------


def test_what_knows_more_scores_better(trust: Trust) -> None:
    scores = trust.scores.query("metric == 'mae'").pivot_table(
        index="prediction", values="value", aggfunc="mean"
    )["value"]
    assert 0 < scores["bootstrap"] < scores[POSITIVE] < scores[NEGATIVE]


def test_the_same_seed_gives_the_same_scores(store: Store) -> None:
    small = Sampling(pairs=3, cells=10, controls=20, seed=5)
    first, second = (check_trust(store, ["vcc2025"], sampling=small) for _ in range(2))
    pd.testing.assert_frame_equal(first.scores, second.scores)
    assert first.n_pairs == 6


def test_the_tricks_of_2025_raise_what_they_are_known_to_raise(trust: Trust) -> None:
    frame = trust_table(trust.scores, trust.left_out).frame.set_index(["suite", "metric"])
    raised = frame["raised_by"].str.split()
    assert "rescaled" in raised["vcc2025", "overlap_at_N"]
    assert "twisted-controls" in raised["vcc2025", "overlap_at_N"]
    assert raised["vcc2025", "mae"] == []
    assert raised["calibrated", "wmse"] == []
    assert "spiked-targets" in raised["vcc2025", "overlap_at_N"]
    assert raised["vcc2026", "pds_cosine"] == []
    assert "twisted-controls" not in " ".join(frame.loc["vcc2026", "raised_by"])


def test_a_replicate_is_told_from_the_mean_of_the_others(trust: Trust) -> None:
    frame = trust_table(trust.scores, trust.left_out).frame.set_index(["suite", "metric"])
    assert not frame["blind"].any()
    assert (frame["beats"] > 0.6).all()
    assert frame.loc[("calibrated", "energy_distance"), "dynamic_range"] > 0.9


def test_on_a_real_screen_blown_up_effects_raise_the_de_score(
    data_file: Callable[[str], Path],
) -> None:
    data_file("papalexi21.h5ad")
    trust = check_trust(open_store(prepare("papalexi21").store), ["vcc2025", "calibrated"])
    frame = trust_table(trust.scores, trust.left_out).frame.set_index(["suite", "metric"])
    assert "rescaled" in frame.loc[("vcc2025", "overlap_at_N"), "raised_by"]
    assert frame.loc[("vcc2025", "mae"), "raised_by"] == ""
    assert frame.loc[("calibrated", "wmse"), "raised_by"] == ""
    assert frame.loc[("calibrated", "energy_distance"), "dynamic_range"] > 0.8
    assert trust.left_out.keys() == {"spiked-targets"}


def test_a_trick_that_a_suite_refuses_is_named(tmp_path: Path) -> None:
    screen = make_screen(n_genes=30, n_perturbations=6, contexts=("c",), n_cells=30)
    deep = write_store(replace(screen, counts=screen.counts * 800), tmp_path / "deep.zarr")
    trust = check_trust(deep, ["vcc2026"])
    assert "at most 1,000,000" in trust.left_out["rescaled under vcc2026"]
    assert "rescaled" not in set(trust.scores["prediction"])
    notes = trust_table(trust.scores, trust.left_out).notes
    assert any(note.startswith("Not scored: rescaled under vcc2026") for note in notes)


def test_an_unknown_suite_is_an_error_before_anything_is_read(store: Store) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'calibrated'"):
        check_trust(store, ["calibrate"])


def test_a_screen_that_cannot_be_halved_is_refused(tmp_path: Path) -> None:
    screen = make_screen(n_perturbations=1, contexts=("c",))
    with pytest.raises(DataError, match="two perturbations and controls of two cells"):
        check_trust(write_store(screen, tmp_path / "one.zarr"), ["vcc2025"])


# --- what is said of them -----------------------------------------------------------------------


def scored(metric: str = "mae", **values: list[float]) -> pd.DataFrame:
    """Scores of each prediction, one for each of as many pairs in one context."""
    rows = [
        (kind, "vcc2025", metric, 1, "c", f"p{pair}", value, "")
        for kind in KINDS
        for pair, value in enumerate(values.get(kind.replace("-", "_"), values["others"]))
    ]
    names = ["prediction", "suite", "metric", "version", "context", "perturbation", "value"]
    return pd.DataFrame(rows, columns=[*names, "reason"])


def test_dynamic_range_is_the_way_from_the_mean_to_the_best_value() -> None:
    scores = scored(others=[1.0, 3.0], technical_duplicate=[0.5, 0.5])
    row = trust_table(scores, {}).frame.iloc[0]
    assert row["dynamic_range"] == pytest.approx((2.0 - 0.5) / 2.0)
    assert row["beats"] == 1.0
    assert not row["blind"]


def test_a_metric_that_prefers_the_mean_is_blind() -> None:
    scores = scored(
        others=[1.0, 1.2, 0.9],
        technical_duplicate=[2.0, 1.1, 1.0],
        interpolated_duplicate=[1.5] * 3,
    )
    row = trust_table(scores, {}).frame.iloc[0]
    assert row["blind"]
    assert row["dynamic_range"] < 0
    assert row["beats"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("metric", "better", "raised"),
    [
        pytest.param("mae", [0.5, 0.6, 0.7], "rescaled", id="lower"),
        pytest.param("mae", [1.5, 1.6, 1.7], "", id="worse"),
        pytest.param("mae", [0.999, 0.999, 0.999], "", id="too_little"),
        pytest.param("overlap_at_N", [1.5, 1.6, 1.7], "rescaled", id="higher"),
    ],
)
def test_a_trick_raises_a_metric_in_its_own_direction(
    metric: str, better: list[float], raised: str
) -> None:
    scores = scored(
        metric, others=[1.0, 1.0, 1.0] if metric == "mae" else [0.5] * 3, rescaled=better
    )
    assert trust_table(scores, {}).frame.iloc[0]["raised_by"] == raised


def test_counts_have_no_direction_and_no_row() -> None:
    assert trust_table(scored("de_nsig_counts_real", others=[1.0, 2.0]), {}).frame.empty


def test_the_command_writes_what_it_says(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--suite", "vcc2025,vcc2026", "--pairs", "4", "--cells", "20", "-o", str(out)]
    assert run(["trust", store.path, *words]) == 0
    said = capsys.readouterr().out
    assert "overlap_at_N" in said
    assert "pds_cosine" in said
    kept = pd.read_parquet(out / "scores.parquet")
    table = pd.read_csv(out / "trust.csv", keep_default_na=False, na_values=[""])
    described = json.loads((out / "trust.json").read_text(encoding="utf-8"))
    assert described["n_pairs"] == 8
    assert described["fingerprint"] == open_store(store.path).fingerprint
    for row in table.to_dict("records"):
        same = (kept["suite"] == row["suite"]) & (kept["metric"] == row["metric"])
        for kind in (POSITIVE, NEGATIVE, *TRICKS):
            value = kept.loc[same & (kept["prediction"] == kind), "value"].mean()
            if not np.isnan(value):
                assert row[kind] == pytest.approx(value, rel=1e-9)


def test_a_run_has_the_trust_of_its_datasets_and_suites(store: Store, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"dataset: {store.path}\nsplit: unseen-perturbation\nfolds: [0]\n"
        "models: [{model: control-mean}]\nscore: {suite: [vcc2025, calibrated]}\n",
        encoding="utf-8",
    )
    folder = tmp_path / "run"
    assert run(["run", str(job), "-o", str(folder), "--on", "inline"]) == 0
    assert run(["trust", str(folder), "--pairs", "4", "--cells", "20"]) == 0
    described = json.loads((folder / "trust" / "screen.zarr" / "trust.json").read_text())
    assert described["suites"] == ["vcc2025", "calibrated"]
