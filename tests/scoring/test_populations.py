"""Distances between populations of cells: by definition, in any tiles, kept or computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist, pdist

from harness.kernels.cell_distances import Distances, Population, middle_values, squared_distances
from harness.scoring import cell_distances as populations
from harness.scoring.cell_distances import distances_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.data.cells import Scale


def population(cells: np.ndarray) -> Population:
    return Population(lambda start, stop: cells[start:stop], len(cells))


def distances(x: np.ndarray, y: np.ndarray, tile: int = 1024, keep: int = 1 << 28) -> Distances:
    return Distances(population(x), population(y), x.mean(axis=0), tile=tile, keep=keep)


def cells(rng: np.random.Generator, n: int, level: float = 1.0) -> np.ndarray:
    return (level + rng.random((n, 30))).astype(np.float32)


def energy_by_definition(x: np.ndarray, y: np.ndarray) -> float:
    return 2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean()


def mmd2_by_definition(x: np.ndarray, y: np.ndarray) -> float:
    width = np.median(pdist(np.vstack([x, y])))

    def kernel(squared: np.ndarray) -> float:
        return float(np.exp(-squared / (2 * width**2)).mean())

    within = kernel(pdist(x) ** 2) + kernel(pdist(y) ** 2)
    return within - 2 * kernel(cdist(x, y) ** 2)


@pytest.mark.parametrize("keep", [1 << 28, 0], ids=["kept", "computed-again"])
@pytest.mark.parametrize("tile", [1, 7, 1024])
def test_distances_are_means_over_pairs_of_different_cells_in_any_tiles(
    tile: int, keep: int, rng: np.random.Generator
) -> None:
    x, y = cells(rng, 23), cells(rng, 17, 1.3)
    found = distances(x, y, tile, keep)
    assert found.energy() == pytest.approx(energy_by_definition(x, y), rel=1e-12)
    assert found.mmd2() == pytest.approx(mmd2_by_definition(x, y), rel=1e-12)


def test_samples_of_one_population_differ_by_nothing_on_average(rng: np.random.Generator) -> None:
    found = [distances(cells(rng, 6), cells(rng, 5)) for _ in range(400)]
    for values in ([one.energy() for one in found], [one.mmd2() for one in found]):
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
        assert min(values) < 0


def test_copies_of_a_cell_lie_at_distance_zero(rng: np.random.Generator) -> None:
    x = 5 + cells(rng, 9)
    copies = np.repeat(x[:1] * np.float32(1.1), 8, axis=0)
    squared = squared_distances(copies, copies, x.mean(axis=0))
    assert (squared == 0).all()
    assert np.diagonal(squared_distances(x, x.copy(), x.mean(axis=0))).tolist() == [0.0] * 9


def test_the_centre_changes_nothing(rng: np.random.Generator) -> None:
    x, y = cells(rng, 8), cells(rng, 8, 1.2)
    for centre in (np.zeros(30), np.full(30, 3.0)):
        found = Distances(population(x), population(y), centre)
        assert found.energy() == pytest.approx(energy_by_definition(x, y), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (1, 1)])
def test_fewer_than_two_cells_have_no_distance(n: int, m: int, rng: np.random.Generator) -> None:
    found = distances(cells(rng, n), cells(rng, m))
    assert np.isnan(found.energy())
    assert np.isnan(found.mmd2())


def test_a_median_distance_of_zero_has_no_kernel() -> None:
    same = np.ones((6, 30), dtype=np.float32)
    assert np.isnan(distances(same, same).mmd2())
    assert distances(same, same).energy() == 0


@given(
    hnp.arrays("f8", st.integers(1, 60), elements=st.floats(0, 1e6) | st.sampled_from([0.0, 2.5])),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_middle_of_values_seen_in_parts_is_their_median(values: np.ndarray, n: int) -> None:
    found = middle_values(lambda: np.array_split(values, n), len(values))
    ordered = np.sort(values)
    assert found.tolist() == [ordered[(len(values) - 1) // 2], ordered[len(values) // 2]]


class LabelledCells:
    """Cells in memory that are read by blocks of genes only."""

    control_label = "control"
    scale: Scale = "log1p"

    def __init__(self, X: np.ndarray, labels: np.ndarray) -> None:
        self.X, self.perturbations = X, labels
        self.contexts = np.full(len(labels), "c")
        self.genes = tuple(f"g{gene}" for gene in range(X.shape[1]))
        self.n_cells = len(labels)

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        return self.X[:, start:stop]

    def library_sizes(self) -> np.ndarray:
        raise AssertionError("log1p values have no library sizes")


def two_sides(rng: np.random.Generator) -> Iterator[LabelledCells]:
    for sizes in ({"control": 9, "B": 12, "A": 7}, {"control": 5, "B": 6, "A": 10}):
        labels = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
        yield LabelledCells(cells(rng, len(labels)), labels)


@pytest.mark.parametrize("memory", [1 << 30, 1 << 10], ids=["ample", "scarce"])
def test_each_pair_is_compared_with_what_was_predicted_for_it(
    memory: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(populations, "TILES", (4, 1024))
    truth, prediction = two_sides(rng)
    centres = np.array([truth.X[truth.perturbations == name].mean(axis=0) for name in "AB"])
    centres = np.vstack([centres, truth.X[truth.perturbations == "control"].mean(axis=0)])
    found = distances_apart(truth, prediction, centres, threads=1, memory=memory)
    for at, name in enumerate("AB"):
        x, y = (side.X[side.perturbations == name] for side in (truth, prediction))
        assert found.energy[at] == pytest.approx(energy_by_definition(x, y), rel=1e-10)
        assert found.mmd2[at] == pytest.approx(mmd2_by_definition(x, y), rel=1e-10)
    assert np.isnan([found.energy[2], found.mmd2[2]]).all()
