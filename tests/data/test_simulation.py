"""Simulated screens are what they claim: counts, effects, contexts, card, and known answers."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.data.cards import Card
from harness.data.simulation.counts import cell_seeds, fill_counts
from harness.data.simulation.effects import LARGEST, draw_numbers, gene_names
from harness.data.simulation.presets import CONTROL, Screen, draw_screen, preset_with, presets
from harness.data.simulation.screens import (
    effects_path,
    known_effects,
    parse_sim,
    simulate,
    simulated_card,
)
from harness.errors import DataError
from harness.tasks.split_kinds import parse_split
from harness.tasks.splits import assign, n_folds
from tests.synthetic import make_screen, write_store

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data.store import Store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulate("tiny", tmp_path_factory.mktemp("simulated") / "tiny.zarr", combinations=4)


def downstream(screen: Screen, perturbation: str, context: str) -> np.ndarray:
    """A pair's effect without its target."""
    effect = screen.effects[perturbation, context].copy()
    effect[screen.genome.names.index(perturbation)] = 0.0
    return effect


# --- counts -------------------------------------------------------------------------------------


def draw(mean: float, dispersion: float, n: int = 100_000) -> np.ndarray:
    counts = np.empty((n, 1), dtype="f4")
    same = np.full((1, 1), 0.5)
    batch = np.zeros(n, dtype=np.int64)
    fill_counts(
        counts, cell_seeds(0, n, 3), np.full(n, 2 * mean), batch, same, np.array([dispersion])
    )
    return counts[:, 0].astype("f8")


@pytest.mark.parametrize("dispersion", [0.1, 0.4, 2.0], ids=["low", "middle", "high"])
@pytest.mark.parametrize(
    "mean", [0.01, 0.6, 8.0, 29.0, 31.0, 900.0], ids=lambda mean: f"mean-{mean:g}"
)
def test_counts_have_the_mean_and_variance_of_a_negative_binomial(
    mean: float, dispersion: float
) -> None:
    counts = draw(mean, dispersion)
    expected = stats.nbinom(1 / dispersion, 1 / (1 + dispersion * mean))
    variance, kurtosis = expected.stats("vk")
    mean_error = np.sqrt(variance / counts.size)
    variance_error = variance * np.sqrt((kurtosis + 2) / counts.size)
    assert abs(counts.mean() - mean) < 5 * mean_error
    assert abs(counts.var() - variance) < 6 * variance_error  # itself a little skewed


@pytest.mark.parametrize("mean", [0.3, 4.0, 40.0], ids=lambda mean: f"mean-{mean:g}")
def test_counts_have_the_distribution_of_a_negative_binomial(mean: float) -> None:
    counts = draw(mean, 0.4)
    expected = stats.nbinom(2.5, 1 / (1 + 0.4 * mean))
    edges = np.unique(expected.ppf(np.linspace(0.02, 0.999, 20)))
    observed = np.histogram(counts, bins=[-1, *edges + 0.5, np.inf])[0]
    probability = np.diff([0, *expected.cdf(edges), 1])
    assert stats.chisquare(observed, probability * counts.size).pvalue > 1e-4


def test_no_two_cells_have_the_same_seed() -> None:
    assert np.unique(cell_seeds(0, 400_000, 7)).size == 400_000


def test_cells_are_the_same_in_any_block() -> None:
    screen = draw_screen(preset_with("tiny", cells=9, controls=11), seed=5)
    whole = screen.rows(0, screen.n_cells)
    cuts = [0, 1, 8, 60, 61, 300, screen.n_cells]
    parts = [screen.rows(a, b) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_same_seed_gives_the_same_store_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        simulate("tiny", tmp_path / f"{name}.zarr", seed=seed, cells=5, controls=5)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    pd.testing.assert_frame_equal(known_effects(first.path), known_effects(again.path))


def test_a_store_holds_the_cells_of_its_screen(tiny: Store) -> None:
    screen = draw_screen(preset_with("tiny", combinations=4))
    np.testing.assert_array_equal(tiny.rows(0, tiny.n_cells), screen.rows(0, screen.n_cells))
    assert tiny.ranges == screen.ranges


def test_another_context_leaves_the_first_as_it_was() -> None:
    one, two = (draw_screen(preset_with("tiny", contexts=n)) for n in (1, 2))
    np.testing.assert_array_equal(one.rows(0, 200), two.rows(0, 200))


# --- effects ------------------------------------------------------------------------------------


def test_knocked_down_targets_keep_a_tenth_to_three_tenths(tiny: Store) -> None:
    screen = draw_screen(preset_with("tiny", combinations=4))
    ratios = []
    for perturbation, context in tiny.pairs:
        for target in tiny.targets(perturbation):
            gene = tiny.genes.index(target)
            assert 0.1 <= 2 ** screen.effects[perturbation, context][gene] <= 0.3
            treated = tiny.cells(perturbation, context)[:, gene].mean()
            ratios.append(treated / tiny.controls(context)[:, gene].mean())
    assert 0.15 < np.mean(ratios) < 0.25


def test_every_target_is_expressed_in_every_context(tiny: Store) -> None:
    targets = [tiny.genes.index(name) for name in tiny.perturbations if "+" not in name]
    for context in tiny.contexts:
        assert tiny.controls(context)[:, targets].mean(axis=0).min() > 0.3


def test_null_perturbations_change_nothing_but_their_target(tiny: Store) -> None:
    effects = known_effects(tiny.path)
    changed = effects.groupby(["perturbation", "context"]).size().unstack()
    singles = changed[~changed.index.str.contains("+", regex=False)]
    null = singles.index[(singles == 1).all(axis=1)]
    assert 4 <= len(null) <= 9  # 27 % of 24 and, where few genes change, rounding
    rows = effects[effects["perturbation"].isin(null)]
    assert (rows["gene"] == rows["perturbation"]).all()


def test_some_perturbations_are_strong(tiny: Store) -> None:
    changed = known_effects(tiny.path).groupby("perturbation").size()
    assert changed.max() > 0.3 * tiny.n_genes


def test_numbers_of_affected_genes_follow_those_of_k562() -> None:
    numbers = draw_numbers(10_000, median=68, most=3716, seed=0)
    assert np.mean(numbers == 0) == pytest.approx(0.27, abs=0.01)
    positive = np.log(numbers[numbers > 0])
    assert np.median(positive) == pytest.approx(np.log(68), abs=0.02)
    assert np.quantile(positive, 0.84) - np.median(positive) == pytest.approx(1.65, abs=0.05)


def test_observed_fold_changes_are_the_known_ones(tiny: Store) -> None:
    screen = draw_screen(preset_with("tiny", combinations=4))
    observed, known = [], []
    for perturbation, context in tiny.pairs:
        control = tiny.controls(context).mean(axis=0)
        seen = np.flatnonzero(control > 5)
        treated = tiny.cells(perturbation, context).mean(axis=0)
        observed.append(np.log2((treated + 0.1) / (control + 0.1))[seen])
        known.append(screen.effects[perturbation, context][seen])
    x, y = np.concatenate(known), np.concatenate(observed)
    assert np.corrcoef(x, y)[0, 1] > 0.9
    assert np.polyfit(x, y, 1)[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.7, 1.0], ids=lambda s: f"shared-{s:g}")
def test_effects_in_two_contexts_correlate_as_declared(shared: float) -> None:
    screen = draw_screen(preset_with("small", shared=shared, contexts=2), seed=1)
    correlations = []
    for perturbation in {name for name, _ in screen.effects}:
        first, second = (downstream(screen, perturbation, c) for c in ("line1", "line2"))
        if np.count_nonzero(first) > 20:
            correlations.append(np.corrcoef(first, second)[0, 1])
    assert np.mean(correlations) == pytest.approx(shared, abs=0.05)


def test_a_combination_does_about_what_its_parts_do() -> None:
    screen = draw_screen(preset_with("tiny", combinations=12, contexts=1))
    pairs = [name for name, _ in screen.effects if "+" in name]
    parts = np.stack(
        [sum(screen.effects[part, "line1"] for part in name.split("+")) for name in pairs]
    )
    together = np.stack([screen.effects[name, "line1"] for name in pairs])
    assert len(pairs) == 12
    assert np.corrcoef(parts.ravel(), together.ravel())[0, 1] > 0.9
    assert not np.allclose(np.clip(parts, -LARGEST, LARGEST), together)  # it has interactions


def test_effects_can_be_learnt_from_other_perturbations() -> None:
    """Leave one out: the activity that a target's loadings predict beats the mean effect."""
    screen = draw_screen(preset_with("small", contexts=1), seed=0)
    names = [name for name, _ in screen.effects if downstream(screen, name, "line1").any()]
    effects = np.stack([downstream(screen, name, "line1") for name in names])
    targets = screen.genome.loadings[[screen.genome.names.index(name) for name in names]]
    linear, mean = [], []
    for i in range(len(names)):
        others = np.arange(len(names)) != i
        average = effects[others].mean(axis=0)
        gram = targets[others].T @ targets[others] + 5 * np.eye(targets.shape[1])
        slope = np.linalg.solve(gram, targets[others].T @ (effects[others] - average))
        linear.append(np.corrcoef(average + targets[i] @ slope, effects[i])[0, 1])
        mean.append(np.corrcoef(average, effects[i])[0, 1])
    assert np.mean(linear) > np.mean(mean) + 0.03


# --- shape --------------------------------------------------------------------------------------


def test_h1_has_the_depth_and_the_zeros_of_the_challenge() -> None:
    screen = draw_screen(preset_with("h1"))
    control = next(found for found in screen.ranges if found.perturbation == CONTROL)
    cells = screen.rows(control.start, control.start + 60)
    assert np.median(cells.sum(axis=1)) == pytest.approx(54_000, rel=0.15)  # 60 of log-sd 0.35
    assert np.mean(cells > 0) == pytest.approx(0.48, abs=0.03)


def test_h1_has_the_shape_of_the_challenge() -> None:
    screen = draw_screen(preset_with("h1"))
    cells = {found.perturbation: found.stop - found.start for found in screen.ranges}
    assert (len(screen.genome.names), len(cells) - 1) == (18_080, 300)
    assert cells.pop(CONTROL) == 38_000
    assert np.mean(list(cells.values())) == pytest.approx(1_000, abs=1)
    assert 150 <= min(cells.values()) < max(cells.values()) <= 3_200


def test_h1_lists_150_50_and_100_perturbations() -> None:
    listed = simulated_card("sim:h1")["splits"]["listed"]
    names = [*listed["train"], *listed["validation"], *listed["test"]]
    sides = assign(parse_split(listed), [(name, "line1") for name in names])
    assert [len(side) for side in sides] == [150, 50, 100]


def test_gene_names_are_unique_and_unremarkable() -> None:
    names = gene_names(40_000)
    assert len(set(names)) == 40_000
    assert all(name.isalnum() and name[:3].isupper() for name in names)


def test_anndata_reads_a_simulated_store(tiny: Store) -> None:
    read = anndata.read_zarr(tiny.path)
    assert list(read.obs.columns) == ["target_gene", "context", "batch"]
    np.testing.assert_array_equal(read.X, tiny.rows(0, tiny.n_cells))
    assert set(read.obs["target_gene"]) == {*tiny.perturbations, CONTROL}


def test_batches_differ_little_and_hold_cells_of_every_pair() -> None:
    screen = draw_screen(preset_with("small"))
    table = screen.obs().groupby(["context", "target_gene", "batch"], observed=True).size()
    assert table.unstack("batch").notna().sum(axis=1).eq(screen.preset.batches).all()
    one, two, _ = np.log(screen.shares["line1"])
    assert 0.05 < np.std(one - two) < 0.2


def test_progress_ends_with_all_cells(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = simulate(
        "tiny",
        tmp_path / "a.zarr",
        cells=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (store.n_cells, store.n_cells)


# Not ru_maxrss: that counts what pytest held when it forked.
MEASURE = """
import re, sys
from pathlib import Path
from harness.data.simulation.screens import simulate
store = simulate("h1", sys.argv[1], perturbations=60, cells=75, controls=1500)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(store.n_cells, int(peak[1]) / 1024)
"""


@pytest.mark.slow
def test_a_slice_of_h1_is_written_in_bounded_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "h1.zarr")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    n_cells, peak = map(float, output.split())
    assert n_cells == pytest.approx(6_000, rel=0.02)  # 434 MB as float32
    assert peak < 1024  # MiB; 500 measured with two threads, 200 of it imports


# --- card and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*presets(), "tiny?combinations=6", "small?contexts=1"])
def test_cards_are_valid_and_every_split_can_be_dealt(name: str) -> None:
    declared = simulated_card(f"sim:{name}")
    card = Card.model_validate(declared)
    pairs = draw_screen(preset_with(**parse_sim(f"sim:{name}"))).effects
    for split in card.splits.values():
        spec = parse_split(split)
        for fold in range(n_folds(spec, pairs)):
            assert assign(spec, pairs, fold).test


def test_the_card_in_the_store_is_the_one_known_before(tiny: Store) -> None:
    assert tiny.card == simulated_card("sim:tiny?combinations=4")


def test_known_effects_name_the_file_that_is_missing(tmp_path: Path) -> None:
    assert effects_path(tmp_path / "x.zarr") == str(tmp_path / "x.effects.parquet")
    with pytest.raises(DataError, match=r"x\.effects\.parquet: not there"):
        known_effects(tmp_path / "x.zarr")


def test_the_screen_that_other_tests_use_has_the_effects_it_names(tmp_path: Path) -> None:
    screen = make_screen(n_cells=300, n_controls=300, n_combinations=2)
    store = write_store(screen, tmp_path / "synthetic.zarr")
    for (perturbation, context), effect in screen.effects.items():
        ratio = store.cells(perturbation, context).mean(axis=0) / store.controls(context).mean(
            axis=0
        )
        np.testing.assert_allclose(np.log(ratio), effect, atol=0.4)
    assert screen.log1p().shape == screen.counts.shape
    assert Card.model_validate(store.card).name == "synthetic"
