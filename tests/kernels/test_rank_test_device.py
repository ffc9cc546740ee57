"""The rank test by array functions: against the compiled loops and SciPy, on every backend.

Needs NumPy, SciPy, numba and, where there is a device, CuPy: nothing else, so that a bare machine
with a GPU can run it (``pytest -m gpu tests``).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu

from harness.kernels import rank_test_device as segments
from harness.kernels import rank_test_stream as streams
from harness.kernels.backend import Backend, choose, why_no_device
from harness.kernels.blocks import RowRange
from harness.kernels.device_staging import Room, pieces_of
from harness.kernels.distances import array_distances, pairwise_distances
from harness.kernels.groups import Groups
from harness.kernels.normalise import log1p_normalise
from harness.kernels.rank_test import BlockStatistics, block_statistics
from tests import stand_in

CODES = np.array([0] * 30 + [1] * 12 + [2] * 9 + [-1] * 4 + [3] * 25 + [4] * 11 + [5])
REFERENCE = np.array([0, 0, 0, 3, 3, 3])
WIDTH = 45

FORMS = {
    "dense": lambda X: X,
    "fortran": np.asfortranarray,
    "csc": sparse.csc_matrix,
    "rows": lambda X: RowRange(sparse.csr_matrix(X), 0, X.shape[1]),
    "some-rows": lambda X: RowRange(sparse.csr_matrix(np.hstack([X + 1, X])), WIDTH, 2 * WIDTH),
}


@pytest.fixture(params=["cpu", "stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Every backend; the device is skipped, saying why, where there is none."""
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "cupy", stand_in.module())
        return Backend("gpu", "NumPy in CuPy's place")
    if request.param == "gpu" and (missing := why_no_device()):
        pytest.skip(f"nothing was tested on a GPU: {missing}")
    return choose(request.param)


def screen(rng: np.random.Generator, *, decimals: int | None, dtype: type) -> np.ndarray:
    """Draw values of which half are zero; rounding them makes ties."""
    shape = (len(CODES), WIDTH)
    drawn = rng.gamma(2.0, 1.0, shape) * (rng.random(shape) < 0.5)
    drawn[:, 3] = 0
    drawn[:, 4] = 1.5
    return (drawn if decimals is None else np.round(drawn, decimals)).astype(dtype)


def on(backend: Backend, block: object, groups: Groups, **options: int) -> BlockStatistics:
    """Compute by array functions, whatever the backend, and join the pieces."""
    pieces = list(streams.array_statistics([(0, block)], groups, backend, **options))
    assert [first for first, _ in pieces] == np.cumsum(
        [0, *(found.u.shape[1] for _, found in pieces[:-1])]
    ).tolist()
    names = ("sums", "u", "ties")
    return BlockStatistics(
        *(np.hstack([getattr(found, name) for _, found in pieces]) for name in names)
    )


def agree(one: BlockStatistics, other: BlockStatistics) -> None:
    """U and ties to the bit; sums up to the order of adding."""
    np.testing.assert_array_equal(one.u, other.u)
    np.testing.assert_array_equal(one.ties, other.ties)
    np.testing.assert_allclose(one.sums, other.sums, rtol=1e-13)


@pytest.mark.parametrize("decimals", [None, 1, 0], ids=["few-ties", "many-ties", "counts"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
@pytest.mark.parametrize("form", FORMS)
def test_arrays_find_what_the_loops_find(
    backend: Backend, rng: np.random.Generator, form: str, dtype: type, decimals: int | None
) -> None:
    X = screen(rng, decimals=decimals, dtype=dtype)
    groups = Groups(rng.permutation(CODES), REFERENCE)
    agree(on(backend, FORMS[form](X), groups, threads=2), block_statistics(X, groups))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["single", "double"])
def test_u_equals_scipy_in_a_screen_of_size(
    backend: Backend, rng: np.random.Generator, dtype: type
) -> None:
    X = np.round(rng.gamma(2.0, 1.0, (6000, 20)), 2).astype(dtype)
    X *= rng.random(X.shape) < 0.48
    groups = Groups(rng.permutation(np.repeat(np.arange(5), [2000] + [1000] * 4)), np.zeros(5, int))
    found, wide = on(backend, X, groups), X.astype(np.float64)
    for group in range(1, 5):
        cells, controls = wide[groups.codes == group], wide[groups.codes == 0]
        expected = mannwhitneyu(cells, controls, method="asymptotic").statistic
        np.testing.assert_array_equal(found.u[group], expected)


def test_integers_negative_zeros_and_stored_zeros_are_taken_as_they_are(
    backend: Backend, rng: np.random.Generator
) -> None:
    X = screen(rng, decimals=0, dtype=np.float32)
    groups = Groups(rng.permutation(CODES), REFERENCE)
    expected = block_statistics(X, groups)
    stored = sparse.csc_matrix(np.where(X == 0, -1, X))
    stored.data[stored.data == -1] = 0
    for block in (X.astype(np.int32), np.where(X == 0, np.float32(-0.0), X), stored):
        agree(on(backend, block, groups), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_block_without_values_is_all_ties(backend: Backend, form: str) -> None:
    X, groups = np.zeros((len(CODES), WIDTH), np.float32), Groups(CODES, REFERENCE)
    found = on(backend, FORMS[form](X), groups)
    agree(found, block_statistics(X, groups))
    assert (found.u[1] == 30 * 12 / 2).all()


def test_pieces_in_flight_come_back_in_order(
    backend: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = screen(rng, decimals=1, dtype=np.float32)
    groups = Groups(rng.permutation(CODES), REFERENCE)
    expected = block_statistics(X, groups)
    monkeypatch.setattr(streams, "MOST_VALUES", 4 * len(CODES))
    blocks = [(start, X[:, start : start + 10]) for start in range(0, WIDTH, 10)]
    found = list(streams.array_statistics(blocks, groups, backend))
    assert [first for first, _ in found] == [0, 4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 38, 40, 44]
    for name in ("u", "ties"):
        joined = np.hstack([getattr(part, name) for _, part in found])
        np.testing.assert_array_equal(joined, getattr(expected, name))


def test_blocks_are_read_as_results_are_taken(backend: Backend, rng: np.random.Generator) -> None:
    X, groups = screen(rng, decimals=1, dtype=np.float32), Groups(CODES, REFERENCE)
    read = []

    def blocks():  # type: ignore[no-untyped-def]
        for start in range(20):
            read.append(start)
            yield start, X[:, start : start + 1]

    found = streams.array_statistics(blocks(), groups, backend)
    next(found)
    assert len(read) == streams.IN_FLIGHT + 1
    found.close()
    assert len(read) == streams.IN_FLIGHT + 1


def test_a_piece_that_does_not_fit_is_halved(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = screen(rng, decimals=1, dtype=np.float32)
    groups = Groups(rng.permutation(CODES), REFERENCE)
    whole, widths = segments.key_statistics, []

    def cramped(packed, width, layout):  # type: ignore[no-untyped-def]
        if width > 8:
            raise MemoryError
        widths.append(width)
        return whole(packed, width, layout)

    monkeypatch.setattr(segments, "key_statistics", cramped)
    agree(on(choose("cpu"), X, groups), block_statistics(X, groups))
    assert max(widths) <= 8
    assert sum(widths) == WIDTH


def test_a_gene_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError("out of memory allocating 8 bytes")

    monkeypatch.setattr(segments, "key_statistics", full)
    with pytest.raises(MemoryError, match="allocating 8 bytes"):
        on(choose("cpu"), np.ones((len(CODES), 3), np.float32), Groups(CODES, REFERENCE))


def test_the_width_of_a_piece_follows_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Groups(np.arange(60_000) % 51, np.zeros(51, int))
    monkeypatch.setattr(Backend, "free_memory", lambda _: 1 << 30)
    small = streams.DevicePipeline(choose("cpu"), groups, 1).width()
    assert 60_000 * 100 * small < 0.4 * (1 << 30) < 60_000 * 110 * (small + 1)
    monkeypatch.setattr(Backend, "free_memory", lambda _: 1 << 40)
    assert streams.DevicePipeline(choose("cpu"), groups, 1).width() == streams.MOST_VALUES // 60_000
    monkeypatch.setattr(Backend, "free_memory", lambda _: 0)
    assert streams.DevicePipeline(choose("cpu"), groups, 1).width() == 1


def test_a_key_tells_as_many_columns_apart_as_its_bits_allow() -> None:
    layout = segments.Layout.of(Groups(CODES, REFERENCE))
    assert (layout.label_bits, layout.most_columns) == (2, 2**30 // 2)
    assert replace(layout, n_labels=65_536, n_parts=3).most_columns == 65_536 // 3


def test_more_groups_than_keys_can_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "VALUE_BITS", 61)
    with pytest.raises(ValueError, match="6 groups in 2 contexts are more than"):
        segments.Layout.of(Groups(CODES, np.array([0, 0, 0, 0, 0, 5])))


def test_cells_and_groups_must_agree_in_number(backend: Backend) -> None:
    with pytest.raises(ValueError, match="block has 4 cells, groups have 3"):
        on(backend, np.zeros((4, 1)), Groups(np.zeros(3, int), np.array([0])))


def test_memory_of_a_room_is_used_again(backend: Backend, rng: np.random.Generator) -> None:
    room = Room(backend)
    X = sparse.csr_matrix(screen(rng, decimals=None, dtype=np.float32))
    first, second, _ = pieces_of(RowRange(X, 0, WIDTH), 20)
    held = [part.ctypes.data for part in first.collect(room)]
    values, columns, starts = second.collect(room, threads=2)
    assert [part.ctypes.data for part in (values, columns, starts)] == held
    assert columns.dtype == np.uint16
    again = sparse.csr_matrix((values, columns, starts), shape=(X.shape[0], 20))
    np.testing.assert_array_equal(again.toarray(), X[:, 20:40].toarray())


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine"])
def test_distances_by_arrays_equal_those_by_loops(
    backend: Backend, rng: np.random.Generator, kind: str
) -> None:
    rows, others = rng.normal(size=(4, 30)), rng.normal(size=(6, 30))
    others[2] = 0
    left_out = [(), (0,), (29, 3, 3), tuple(range(30))]
    expected = pairwise_distances(rows, others, kind, left_out=left_out)  # type: ignore[arg-type]
    tables = backend.asarray(rows), backend.asarray(others)
    found = array_distances(*tables, kind, left_out=left_out)  # type: ignore[arg-type]
    np.testing.assert_allclose(backend.asnumpy(found), expected, rtol=1e-12, atol=1e-15)


def test_equal_rows_are_equally_far_by_arrays(backend: Backend, rng: np.random.Generator) -> None:
    others = backend.asarray(np.repeat(rng.normal(size=(1, 5700)), 3, axis=0))
    rows = backend.asarray(rng.normal(size=(2, 5700)))
    found = backend.asnumpy(array_distances(rows, others, "l1", left_out=[(5,), ()]))
    assert (found == found[:, :1]).all()


def test_counts_are_normalised_where_they_are(backend: Backend, rng: np.random.Generator) -> None:
    counts = rng.poisson(1.0, (20, 9)).astype(np.float32)
    counts[4] = 0
    sizes = counts.sum(axis=1, dtype=np.float64)
    found = log1p_normalise(backend.asarray(counts), sizes, 9.0)
    assert type(found) is backend.xp.ndarray
    expected = log1p_normalise(counts, sizes, 9.0)
    np.testing.assert_allclose(backend.asnumpy(found), expected, rtol=3e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["dense", "rows"])
def test_a_million_values_at_a_time_agree_on_a_device(rng: np.random.Generator, form: str) -> None:
    if missing := why_no_device():
        pytest.skip(f"nothing was tested on a GPU: {missing}")
    n_cells = 20_000
    X = rng.gamma(2.0, 1.0, (n_cells, WIDTH)).astype(np.float32)
    X *= rng.random(X.shape) < 0.48
    codes = rng.permutation(np.repeat(np.arange(21), [4_000] + [800] * 20))
    groups = Groups(codes, np.zeros(21, int))
    agree(on(choose("gpu"), FORMS[form](X), groups, threads=4), block_statistics(X, groups))
