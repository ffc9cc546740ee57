"""The stream of training cells: what an epoch holds, its order, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from harness.models.networks.data_loader import Loader, Loading, ahead
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import MemoryScreen, PairRange, tiny_screen


@pytest.fixture(scope="module")
def view():
    screen = tiny_screen(n_cells=100)
    return Task(screen, parse_split({"kind": "few-shot-context"})).train_view()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 rows, so that a tiny screen has many."""
    monkeypatch.setattr("harness.models.networks.data_loader.BLOCK_ROWS", 16)


def numbered(n_cells, n_genes=4):
    """A screen whose cells say by their first gene which row they are: pairs of a tenth each."""
    cells = np.zeros((n_cells, n_genes), dtype="f4")
    cells[:, 0] = np.arange(n_cells)
    names = ["P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "control"]
    edges = np.linspace(0, n_cells, 11).astype(int)
    ranges = [
        PairRange("c", name, int(edges[i]), int(edges[i + 1])) for i, name in enumerate(names)
    ]
    screen = MemoryScreen(cells, [f"G{i}" for i in range(n_genes)], ranges, scale="log1p")
    return Task(screen, parse_split({"kind": "unseen-perturbation", "folds": 3}))


def rows_of(batches):
    """The row of every training cell in the batches, in order."""
    return np.concatenate([row for b in batches for row in b.cells[real(b)][:, 0]], axis=None)


def real(batch):
    return np.arange(batch.cells.shape[1]) < batch.sizes[:, None]


SHAPES = [
    pytest.param(Loading(batch_size=32), id="cells"),
    pytest.param(Loading(batch_size=4, set_size=24), id="sets"),
    pytest.param(Loading(batch_size=4, set_size=24, memory=1), id="one_block_in_memory"),
]


@pytest.mark.parametrize("loading", SHAPES)
def test_an_epoch_has_every_training_cell_once(loading, small_blocks):
    task = numbered(1000)
    view = task.train_view()
    found = rows_of(Loader(view, loading).epoch(0))
    expected = np.concatenate([view.cells(*pair)[:, 0] for pair in view.pairs])
    np.testing.assert_array_equal(np.sort(found), np.sort(expected))


@pytest.mark.parametrize("loading", SHAPES)
def test_a_set_holds_cells_of_its_pair_and_controls_of_its_context(view, loading, small_blocks):
    known = {pair: {row.tobytes() for row in view.cells(*pair)} for pair in view.pairs}
    controls = {c: {row.tobytes() for row in view.controls(c)} for c in view.contexts}
    for batch in Loader(view, loading).epoch(0):
        for cells, size, number, matched in zip(
            batch.cells, batch.sizes, batch.pairs, batch.controls, strict=True
        ):
            pair = view.pairs[number]
            assert {row.tobytes() for row in cells[:size]} <= known[pair]
            assert not cells[size:].any()
            assert {row.tobytes() for row in matched} <= controls[pair.context]


def test_workers_share_an_epoch_without_overlap(small_blocks):
    view = numbered(1000).train_view()
    parts = [rows_of(Loader(view, Loading(shard=i, n_shards=3)).epoch(2)) for i in range(3)]
    whole = rows_of(Loader(view).epoch(2))
    assert min(map(len, parts)) > 100
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(whole))


def test_the_order_depends_on_seed_and_epoch_alone(small_blocks):
    view = numbered(1000).train_view()
    first, again = (rows_of(Loader(view).epoch(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, rows_of(Loader(view).epoch(1)))
    assert not np.array_equal(first, rows_of(Loader(view, Loading(seed=1)).epoch(0)))


def test_cells_of_a_pair_are_spread_over_an_epoch():
    view = numbered(1000).train_view()
    order = rows_of(Loader(view, Loading(batch_size=16)).epoch(0))
    neighbours = np.abs(np.diff(order)) == 1
    assert neighbours.mean() < 0.02


@pytest.mark.parametrize("start", [0, 1, 7, 12])
@pytest.mark.parametrize("loading", SHAPES)
def test_an_epoch_can_be_entered_at_any_batch(view, loading, start, small_blocks):
    loader = Loader(view, loading)
    whole = list(loader.epoch(3))
    rest = list(Loader(view, loading).epoch(3, start))
    assert len(whole) == loader.n_batches(3) > 12
    assert len(rest) == len(whole) - start
    for one, other in zip(whole[start:], rest, strict=True):
        for name in ("cells", "sizes", "pairs", "controls"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_entering_late_reads_nothing_of_what_lies_before(small_blocks, monkeypatch):
    view = numbered(2000).train_view()
    loader = Loader(view, Loading(batch_size=8, memory=1))
    read = []
    original = type(loader._cells).read
    monkeypatch.setattr(
        type(loader._cells), "read", lambda s, at: read.append(len(at)) or original(s, at)
    )
    last = list(loader.epoch(0, loader.n_batches(0) - 1))
    assert len(last) == 1
    assert sum(read) <= 2 * 16  # the last block, and the controls


def test_held_out_cells_cannot_be_reached(small_blocks):
    task = numbered(1000)
    cells = task.train_view().training_cells()
    held = {
        row
        for side in ("test", "validation")
        for pair in task.pairs_of(side)
        for row in task._rows(pair)
    }
    controls = task.train_view().control_cells("c")
    assert held
    assert not held & set(cells.rows.tolist())
    assert not held & set(controls.rows.tolist())
    with pytest.raises(IndexError):
        cells.read(np.array([cells.n_cells]))


def test_a_pool_of_controls_is_bounded_and_drawn_anew(small_blocks):
    view = numbered(4000).train_view()
    loader = Loader(view, Loading(memory=4 * 40 * 16))  # a quarter of it: 40 cells of 4 genes
    pools = [loader._pools.of(epoch)[0] for epoch in (0, 0, 1)]
    assert [len(pool) for pool in pools] == [40, 40, 40]
    np.testing.assert_array_equal(pools[0], pools[1])
    assert not np.array_equal(pools[0], pools[2])


def test_memory_does_not_grow_with_the_screen(small_blocks):
    def peak(n_cells):
        view = numbered(n_cells, n_genes=500).train_view()
        loader = Loader(view, Loading(batch_size=16, memory=400_000))
        tracemalloc.start()
        n = sum(batch.n_cells for batch in loader.epoch(0))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return n, used

    (few, little), (many, much) = peak(600), peak(6000)
    assert many > 9 * few
    assert much < 1.3 * little


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"batch_size": 0}, "at least 1", id="no_batch"),
        pytest.param({"shard": 2, "n_shards": 2}, "shard must be in 0:2, got 2", id="shard"),
    ],
)
def test_nonsense_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Loading(**keys)


# --- threads ------------------------------------------------------------------------------------


def test_an_error_in_the_thread_is_raised_where_batches_are_consumed():
    def items():
        yield 1
        raise OSError("disk gone")

    stream = ahead(items(), 1)
    assert next(stream) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(stream)


def test_closing_early_ends_the_threads(view):
    before = threading.active_count()
    batches = Loader(view, Loading(batch_size=2)).epoch(0)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_no_more_is_made_than_is_asked_for_and_ahead():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    stream = ahead(items(), 2)
    next(stream)
    threading.Event().wait(0.05)
    assert len(made) <= 1 + 2 + 1
    stream.close()


def test_the_loader_needs_no_torch():
    code = "import harness.models.networks.data_loader, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
