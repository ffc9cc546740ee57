"""What data factors show a model: less of the training data, the same each time, nested."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from harness.errors import DataError, HeldOutError
from harness.kernels.thinning import thinned
from harness.tasks import parse_split
from harness.tasks.data_factors import DataFactors, ThinReader
from harness.tasks.task import Task
from harness.testing import MemoryScreen, tiny_screen

UNSEEN = parse_split({"kind": "unseen-perturbation", "folds": 4, "validation": 0.2})


@pytest.fixture(scope="module")
def screen():
    return tiny_screen()


def task(screen, seed=0, **factors):
    return Task(screen, UNSEEN, 1, data=DataFactors(seed=seed, **factors))


def rows_of(cells):
    return {row.tobytes() for row in np.ascontiguousarray(cells)}


def test_cells_of_a_training_pair_are_fewer_and_nested(screen):
    whole = Task(screen, UNSEEN, 1).train_view()
    five, ten = (task(screen, cells_per_perturbation=n).train_view() for n in (5, 10))
    for pair in whole.pairs:
        assert five.n_cells(*pair) == 5
        assert rows_of(five.cells(*pair)) < rows_of(ten.cells(*pair)) < rows_of(whole.cells(*pair))


def test_a_pair_with_fewer_cells_keeps_them_all(screen):
    assert (
        task(screen, cells_per_perturbation=20)
        .train_view()
        .n_cells(*task(screen).train_view().pairs[0])
        == 20
    )


def test_what_is_drawn_depends_on_the_seed_alone(screen):
    pair = task(screen).train_view().pairs[0]
    first, again, other = (
        task(screen, seed, cells_per_perturbation=5).train_view().cells(*pair) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert rows_of(first) != rows_of(other)


def test_controls_are_fewer_for_the_model_and_not_for_the_score(screen):
    few = task(screen, control_cells=4)
    assert few.train_view().n_controls("c0") == 4
    assert few.shown_controls().n_cells == task(screen).shown_controls().n_cells
    whole, shown = (t.train_view().controls("c0") for t in (task(screen), few))
    assert rows_of(shown) < rows_of(whole)


def test_training_perturbations_are_fewer_and_nested(screen):
    shown = [
        set(task(screen, train_perturbations=n).train_view().perturbations)
        for n in (2, 4, 0.5, None)
    ]
    assert [len(names) for names in shown] == [2, 4, round(len(shown[3]) / 2), len(shown[3])]
    assert shown[0] < shown[1] < shown[3]


def test_a_chosen_perturbation_is_shown_in_all_of_its_contexts(screen):
    view = task(screen, train_perturbations=2).train_view()
    assert len(view.pairs) == 4


def test_training_contexts_are_named_or_counted(screen):
    assert {p.context for p in task(screen, train_contexts=("c1",)).train_view().pairs} == {"c1"}
    counted = task(screen, train_contexts=1).train_view()
    assert len({pair.context for pair in counted.pairs}) == 1
    assert counted.contexts == ("c0", "c1")  # controls may always be seen


@pytest.mark.parametrize("held", ["c0", "c1"])
@pytest.mark.parametrize("seed", range(3))
def test_a_number_of_training_contexts_keeps_the_held_out_one(screen, held, seed):
    declared = {"kind": "few-shot-context", "contexts": [held]}
    factors = DataFactors(seed=seed, train_contexts=1)
    view = Task(screen, parse_split(declared), data=factors).train_view()
    assert {pair.context for pair in view.pairs} == {held}
    older = [
        Task(screen, parse_split(declared | {"version": 1}), data=DataFactors(s, train_contexts=1))
        for s in range(8)
    ]
    assert len({task.train_view().pairs[0].context for task in older}) == 2


def test_what_is_left_out_is_refused_with_the_reason(screen):
    view = task(screen, train_contexts=("c1",)).train_view()
    pair = next(p for p in task(screen).train_view().pairs if p.context == "c0")
    with pytest.raises(HeldOutError, match="is left out by the trial's data factors"):
        view.cells(*pair)


def test_factors_change_neither_queries_nor_truth(screen):
    varied = task(
        screen,
        cells_per_perturbation=3,
        control_cells=3,
        train_perturbations=2,
        train_contexts=1,
        umi_depth=0.3,
    )
    whole = Task(screen, UNSEEN, 1)
    assert varied.queries() == whole.queries()
    np.testing.assert_array_equal(varied.truth().gene_block(0, 60), whole.truth().gene_block(0, 60))


def test_pseudobulks_of_two_factors_do_not_share_a_cache(screen, tmp_path):
    pair = task(screen).train_view().pairs[0]
    means = [
        Task(screen, UNSEEN, 1, cache=str(tmp_path), data=DataFactors(**factors))
        .train_view()
        .pseudobulk(*pair)
        for factors in ({}, {"umi_depth": 0.5}, {"umi_depth": 0.2}, {"cells_per_perturbation": 5})
    ]
    assert len({mean.tobytes() for mean in means}) == 4


# --- depth --------------------------------------------------------------------------------------


def test_thinning_is_binomial():
    counts = np.full((300, 200), 10.0, dtype=np.float32)
    kept = thinned(counts, np.arange(300), 0, 0.3, key=7)
    # The standard errors of mean and variance over 60,000 draws are 0.006 and 0.012.
    assert abs(kept.mean() - 3.0) < 0.03
    assert abs(kept.var() - 2.1) < 0.06


def test_thinning_does_not_depend_on_blocks_and_is_nested(rng):
    counts = rng.poisson(4.0, size=(20, 30)).astype(np.float32)
    rows = np.arange(100, 120)
    half = thinned(counts, rows, 0, 0.5, key=1)
    np.testing.assert_array_equal(thinned(counts[:, 7:], rows, 7, 0.5, key=1), half[:, 7:])
    np.testing.assert_array_equal(thinned(counts[5:], rows[5:], 0, 0.5, key=1), half[5:])
    assert (thinned(counts, rows, 0, 0.2, key=1) <= half).all()
    assert (half <= counts).all()
    assert (thinned(counts, rows, 0, 0.5, key=2) != half).any()


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_what_is_no_count_cannot_be_thinned(value):
    with pytest.raises(ValueError, match="fractional"):
        thinned(np.full((1, 1), value), np.arange(1), 0, 0.5, key=0)


def test_thinned_cells_are_normalised_by_their_own_library_size(screen):
    reader = ThinReader(screen, 0.4, key=3)
    rows = np.arange(10, 30)
    counts = reader.rows(rows, "counts")
    cells = reader.rows(rows, "log1p")
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * screen.library_size)
    np.testing.assert_allclose(cells, expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(reader.sizes_of(rows), counts.sum(axis=1))


def test_a_block_of_genes_of_thinned_cells_agrees_with_their_rows(screen):
    rows = np.array([40, 3, 4, 90])
    by_gene = ThinReader(screen, 0.4, key=3)
    copy = pickle.loads(pickle.dumps(by_gene))
    block = by_gene.genes(rows, 10, 20, "log1p")
    whole = np.concatenate([copy.rows(row[None], "log1p") for row in rows])
    np.testing.assert_array_equal(block, whole[:, 10:20])


def test_a_depth_above_one_is_the_median_of_molecules(screen):
    view = task(screen, umi_depth=screen.library_size / 2)
    kept = view.shown_controls(scale="counts").library_sizes()
    before = task(screen).shown_controls(scale="counts").library_sizes()
    assert abs(kept.sum() / before.sum() - 0.5) < 0.01


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        pytest.param(
            {"train_perturbations": 99}, r"train_perturbations: found 99, but there are \d+", id="n"
        ),
        pytest.param({"train_contexts": 3}, "train_contexts: found 3, .* are in 2", id="contexts"),
        pytest.param(
            {"train_contexts": ("c2",)}, "no training pair is in 'c2'. Known: 'c0'", id="context"
        ),
        pytest.param(
            {"cells_per_perturbation": 21}, "the largest training pair has 20 cells", id="cells"
        ),
        pytest.param({"control_cells": 31}, "shown controls has 30 cells", id="controls"),
        pytest.param({"umi_depth": 1e6}, "found 1e.06 molecules per cell, but", id="deeper"),
    ],
)
def test_more_than_the_screen_has_is_refused(screen, factors, message):
    with pytest.raises(DataError, match=message):
        task(screen, **factors)


def test_log1p_values_cannot_be_thinned(screen):
    logged = MemoryScreen(
        np.log1p(screen.rows(0, screen.ranges[-1].stop)), screen.genes, screen.ranges, "log1p"
    )
    with pytest.raises(DataError, match=r"umi_depth: .* holds log1p values. Convert it from its"):
        task(logged, umi_depth=0.5)


def test_a_ceiling_has_no_data_factors(screen):
    with pytest.raises(ValueError, match="takes no data factors"):
        task(screen, control_cells=4).replicate_view()
