"""Cells made of a profile: their mean, their order, their zeros and their scatter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kernels import ControlQuantiles, shift_controls


def poisson_controls(rng: np.random.Generator, n: int, n_genes: int = 30) -> np.ndarray:
    """Log1p values of counts with library sizes, from silent genes to dense ones."""
    means = np.geomspace(0.01, 20, n_genes)
    depths = rng.lognormal(0, 0.3, n)
    counts = rng.poisson(means * depths[:, None])
    return np.log1p(counts / depths[:, None]).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 90), spread=st.floats(0, 2))
def test_the_mean_of_the_cells_is_the_profile_cut_off_at_zero(
    seed: int, n: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    controls = poisson_controls(rng, 40)
    profile = controls.mean(axis=0) * np.exp(rng.normal(0, spread, 30)) - (rng.random(30) < 0.1)
    cells = ControlQuantiles(controls).cells(profile, n)
    assert cells.dtype == np.float32
    assert cells.min() >= 0
    np.testing.assert_allclose(
        cells.mean(axis=0, dtype=np.float64), np.maximum(profile, 0), atol=1e-6
    )


@pytest.mark.parametrize("n", [7, 40, 100])
def test_a_cells_rank_in_a_gene_is_that_of_its_control(rng: np.random.Generator, n: int) -> None:
    controls = poisson_controls(rng, 40)
    profile = controls.mean(axis=0) * np.exp(rng.normal(0, 1, 30))
    cells = ControlQuantiles(controls).cells(profile, n)
    taken = controls[np.arange(n) % 40]
    for gene in range(30):
        order = np.lexsort((cells[:, gene], taken[:, gene]))
        assert (np.diff(cells[order, gene]) >= 0).all()


def test_values_depend_on_the_number_of_cells_and_not_on_which_controls_they_are(
    rng: np.random.Generator,
) -> None:
    controls = poisson_controls(rng, 60)
    profile = controls.mean(axis=0) * 1.5
    one = ControlQuantiles(controls).cells(profile, 25)
    other = ControlQuantiles(controls[::-1].copy()).cells(profile, 25)
    np.testing.assert_array_equal(np.sort(one, axis=0), np.sort(other, axis=0))


@pytest.mark.parametrize("fold", [0.2, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("overdispersion", [0.0, 1.0])
def test_zeros_and_scatter_are_those_of_real_cells_with_that_mean(
    rng: np.random.Generator, fold: float, overdispersion: float
) -> None:
    n, means = 4000, np.geomspace(0.05, 8, 12)

    def drawn(mean: np.ndarray) -> np.ndarray:
        rate = np.broadcast_to(mean, (n, len(mean)))
        if overdispersion:
            rate = rate * rng.gamma(1 / overdispersion, overdispersion, rate.shape)
        return np.log1p(rng.poisson(rate)).astype(np.float32)

    real = drawn(means * fold)
    made = ControlQuantiles(drawn(means)).cells(real.mean(axis=0, dtype=np.float64), n)
    zeros = np.abs((made == 0).mean(axis=0) - (real == 0).mean(axis=0))
    assert zeros.max() < 0.08
    np.testing.assert_allclose(made.std(axis=0), real.std(axis=0), rtol=0.25, atol=0.01)


def test_the_controls_mean_gives_cells_distributed_as_the_controls(
    rng: np.random.Generator,
) -> None:
    controls = poisson_controls(rng, 2000)
    cells = ControlQuantiles(controls).cells(controls.mean(axis=0, dtype=np.float64), 2000)
    zeros = [(some == 0).sum(axis=0) for some in (cells, controls)]
    assert np.abs(zeros[0] - zeros[1]).max() <= 3
    np.testing.assert_allclose(cells.std(axis=0), controls.std(axis=0), rtol=0.08)


def test_a_gene_that_no_control_has_gets_cells_with_one_count() -> None:
    controls = np.zeros((20, 2), dtype=np.float32)
    controls[:, 1] = np.log(2)
    cells = ControlQuantiles(controls).cells(np.array([0.1, 0.1]), 20)
    found = cells[:, 0][cells[:, 0] > 0]
    np.testing.assert_allclose(cells[:, 0].mean(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(found, np.log(2), rtol=0.05)


@pytest.mark.parametrize("mean", [1e-300, 1e-17, 1e-6, 14.0, 1e4])
def test_a_mean_far_from_the_controls_is_reached(rng: np.random.Generator, mean: float) -> None:
    cells = ControlQuantiles(poisson_controls(rng, 50)).cells(np.full(30, mean), 40)
    assert np.isfinite(cells).all()
    np.testing.assert_allclose(cells.mean(axis=0, dtype=np.float64), mean, rtol=1e-6, atol=1e-40)


def test_what_is_not_finite_stays_so_in_all_cells_of_the_gene() -> None:
    controls = np.ones((5, 3), dtype=np.float32)
    cells = ControlQuantiles(controls).cells(np.array([1.0, np.nan, np.inf]), 4)
    assert np.isfinite(cells[:, 0]).all()
    assert np.isnan(cells[:, 1]).all()
    assert np.isposinf(cells[:, 2]).all()


def test_an_order_is_that_of_controls_put_into_it(rng: np.random.Generator) -> None:
    controls, order = poisson_controls(rng, 30), rng.permutation(30)
    profile = controls.mean(axis=0) * 2
    np.testing.assert_array_equal(
        ControlQuantiles(controls, order=order).cells(profile, 17),
        ControlQuantiles(controls[order]).cells(profile, 17),
    )


def test_the_number_of_threads_changes_nothing(rng: np.random.Generator) -> None:
    controls = np.tile(poisson_controls(rng, 30), (1, 20))
    profile = controls.mean(axis=0) * 2
    cells = [ControlQuantiles(controls, threads).cells(profile, 17) for threads in (1, 3)]
    np.testing.assert_array_equal(*cells)


def test_equal_controls_are_ordered_otherwise_in_each_gene(rng: np.random.Generator) -> None:
    controls = (rng.random((50, 40)) < 0.2).astype(np.float32)
    cells = ControlQuantiles(controls).cells(np.full(40, 0.4), 50)
    raised = (cells > 0) & (controls == 0)
    assert raised.sum() > 100
    assert raised.sum(axis=1).max() < 0.6 * 40


def test_shifted_controls_are_cut_off_at_zero() -> None:
    controls = np.array([[0.0, 1.0], [2.0, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(
        shift_controls(controls, np.array([0.5, -0.75])), [[0.5, 0.25], [2.5, 0.0]]
    )
    assert controls[0, 0] == 0
