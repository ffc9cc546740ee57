"""Training cells as a stream: shuffled, with matched controls, each exactly once an epoch.

A store is read fast in neighbouring rows and slowly in single ones, so what is shuffled are blocks
of neighbouring rows; a *window* of blocks is in memory at a time, and within it cells are shuffled
freely::

    epoch = blocks in random order ─► windows ─► sets of cells of one pair ─► batches

A *set* is up to `set_size` cells of one pair; with a size of 1 a batch is a batch of cells. Every
batch comes with as many shown controls of the same contexts, drawn from a pool in memory which is
drawn anew each epoch where a context has more controls than fit.

Reading is a step ahead of cutting, and cutting ahead of whoever trains, each in a thread of its
own. Everything that is drawn depends on the seed, the epoch and the place in it, never on the
threads, so an epoch can be entered at any batch: a training that was interrupted goes on with the
batches that it would have had. Only cells that a `TrainView` shows can be reached.

What it gave up: cells of blocks in different windows never share a batch; controls are matched by
context, not by batch of sequencing, which a view does not know.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from harness.tasks import TrainView, VisibleCells

Item = TypeVar("Item")

BLOCK_ROWS = 256
"""Neighbouring rows that stay together: the rows of one of a store's chunks."""

MEMORY = 1024 * 1024 * 1024
"""What a loader may hold: three windows, and the controls."""

AHEAD = 2
"""Batches that are ready before they are asked for."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How cells are streamed.

    Attributes
    ----------
    batch_size
        The largest number of sets in a batch. The sets of a window are divided evenly.
    set_size
        The largest number of cells in a set; the last set of a pair in a window has what is left.
    seed
        Of everything that is drawn.
    shard, n_shards
        Which part of every epoch's blocks this worker reads, of how many workers.
    memory
        Bytes that windows and controls may take together; a window is at least one block.
    """

    batch_size: int = 128
    set_size: int = 1
    seed: int = 0
    shard: int = 0
    n_shards: int = 1
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if min(self.batch_size, self.set_size, self.n_shards) < 1:
            msg = "batch_size, set_size and n_shards must be at least 1"
            raise ValueError(msg)
        if not 0 <= self.shard < self.n_shards:
            msg = f"shard must be in 0:{self.n_shards}, got {self.shard}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some sets of cells, log1p, and as many controls.

    `cells` and `controls` are (n_sets, set_size, n_genes) float32. `sizes` (n_sets,) says how many
    of a set's cells are real: the rest are zeros. Controls are always whole. `pairs` (n_sets,) are
    positions in the view's `pairs`.
    """

    cells: np.ndarray
    sizes: np.ndarray
    pairs: np.ndarray
    controls: np.ndarray

    @property
    def n_cells(self) -> int:
        """The number of training cells."""
        return int(self.sizes.sum())


class Loader:
    """The training cells of a view, in batches, epoch by epoch.

    Parameters
    ----------
    view
        What may be seen.
    loading
        How it is streamed.
    """

    def __init__(self, view: TrainView, loading: Loading | None = None) -> None:
        self.loading = loading or Loading()
        self._cells = view.training_cells()
        contexts = sorted({pair.context for pair in view.pairs})
        at = {context: number for number, context in enumerate(contexts)}
        self._context_of = np.array([at[pair.context] for pair in view.pairs], dtype=np.intp)
        self._row_bytes = 4 * max(1, len(view.genes))
        self._pools = _Pools(
            [view.control_cells(context) for context in contexts],
            self.loading.memory // 4 // self._row_bytes,
            self.loading,
        )
        blocks = self._cells.rows // BLOCK_ROWS
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        self._bounds = np.append(starts, self._cells.n_cells)

    @property
    def n_cells(self) -> int:
        """The number of training cells, of all shards together."""
        return self._cells.n_cells

    def n_batches(self, epoch: int) -> int:
        """Count the batches of an epoch; reads nothing."""
        return sum(len(window.batches) for window in self._windows(epoch))

    def epoch(self, number: int, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from the one at `start`; what lies before is not read."""
        return ahead(self._batches(number, start), AHEAD)

    def _batches(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        pools = self._pools.of(epoch)
        with closing(ahead(self._read(epoch, start), 1)) as windows:
            for window, cells in windows:
                for number in range(max(0, start - window.first), len(window.batches)):
                    place = [self.loading.seed, epoch, window.first + number]
                    yield self._batch(window, number, cells, pools, np.random.default_rng(place))

    def _read(self, epoch: int, start: int) -> Generator[tuple[_Window, np.ndarray], None, None]:
        for window in self._windows(epoch):
            if window.first + len(window.batches) > start:
                yield window, self._cells.read(window.positions)

    def _windows(self, epoch: int) -> Iterator[_Window]:
        """Plan an epoch: which cells are read together, and how they are cut."""
        loading = self.loading
        rng = np.random.default_rng([loading.seed, epoch])
        order = rng.permutation(len(self._bounds) - 1)[loading.shard :: loading.n_shards]
        size = max(1, loading.memory // 4 // self._row_bytes // BLOCK_ROWS)
        first = 0
        for start in range(0, len(order), size):
            blocks = np.sort(order[start : start + size])
            spans = [np.arange(self._bounds[b], self._bounds[b + 1]) for b in blocks]
            positions = np.concatenate(spans)
            window = _window(first, positions, self._cells.pairs[positions], loading, rng)
            first += len(window.batches)
            yield window

    def _batch(
        self,
        window: _Window,
        number: int,
        cells: np.ndarray,
        pools: list[np.ndarray],
        rng: np.random.Generator,
    ) -> Batch:
        size = self.loading.set_size
        chosen = window.batches[number]
        starts, sizes = window.starts[chosen], window.sizes[chosen]
        pairs = window.pairs[chosen]
        members = starts[:, None] + np.arange(size)
        real = np.arange(size) < sizes[:, None]
        taken = cells[window.order[np.where(real, members, starts[:, None])]]
        if not real.all():
            taken[~real] = 0
        controls = _controls(pools, self._context_of[pairs], size, rng)
        return Batch(taken, sizes, pairs, controls)


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Cells that are in memory together, and how they are cut.

    `first` is the number of its first batch; `positions` are what is read; `order` are places in
    it, the cells of a set next to each other, and `starts`, `sizes` and `pairs` say where a set
    begins there, how long it is and whose; each of `batches` are numbers of sets.
    """

    first: int
    positions: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    pairs: np.ndarray
    batches: list[np.ndarray]


def _window(
    first: int,
    positions: np.ndarray,
    pairs: np.ndarray,
    loading: Loading,
    rng: np.random.Generator,
) -> _Window:
    """Cut the cells of a window into sets and batches."""
    order = rng.permutation(len(pairs))
    order = order[np.argsort(pairs[order], kind="stable")]
    by_pair = pairs[order]
    pair_starts = np.flatnonzero(np.diff(by_pair, prepend=-1))
    counts = np.diff(np.append(pair_starts, len(by_pair)))
    place = np.arange(len(by_pair)) - np.repeat(pair_starts, counts)
    starts = np.flatnonzero(place % loading.set_size == 0)
    sizes = np.diff(np.append(starts, len(by_pair)))
    n_batches = -(-len(starts) // loading.batch_size)
    batches = np.array_split(rng.permutation(len(starts)), n_batches)
    return _Window(first, positions, order, starts, sizes, by_pair[starts], batches)


class _Pools:
    """Controls in memory: all of a context's, or some blocks of them, other ones each epoch."""

    def __init__(self, controls: list[VisibleCells], n_cells: int, loading: Loading) -> None:
        self._controls = controls
        self._share = max(loading.set_size, n_cells // max(1, len(controls)))
        self._seed = loading.seed
        self._whole: dict[int, np.ndarray] = {}

    def of(self, epoch: int) -> list[np.ndarray]:
        """Return the pool of each context in an epoch: (n_cells, n_genes) float32."""
        return [self._pool(number, epoch) for number in range(len(self._controls))]

    def _pool(self, number: int, epoch: int) -> np.ndarray:
        controls = self._controls[number]
        if number in self._whole:
            return self._whole[number]
        if controls.n_cells <= self._share:
            self._whole[number] = controls.read(np.arange(controls.n_cells))
            return self._whole[number]
        rng = np.random.default_rng([self._seed, epoch, number, len(self._controls)])
        blocks = controls.rows // BLOCK_ROWS
        rank = rng.permutation(int(blocks[-1] - blocks[0]) + 1)[blocks - blocks[0]]
        order = np.argsort(rank, kind="stable")
        return controls.read(np.sort(order[: self._share]))


def _controls(
    pools: list[np.ndarray], contexts: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a set of controls for each context; a set repeats a cell only where there are fewer."""
    found = np.empty((len(contexts), size, pools[0].shape[1]), dtype=np.float32)
    for context in np.unique(contexts):
        here, pool = np.flatnonzero(contexts == context), pools[context]
        if size == 1 or len(pool) < size:
            drawn = rng.integers(len(pool), size=(len(here), size))
        else:
            keys = rng.random((len(here), len(pool)), dtype=np.float32)
            drawn = np.argpartition(keys, size - 1, axis=1)[:, :size]
        found[here] = pool[drawn]
    return found


# --- threads ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End(Generic[Item]):
    """The end of an iteration, by an error or without one."""

    error: BaseException | None = None


def ahead(items: Generator[Item, None, None], n: int) -> Generator[Item, None, None]:
    """Yield the items of a generator that runs in a thread, `n` items ahead at most.

    An error in the thread is raised here. Closing the generator ends the thread.
    """
    queue: Queue[Item | _End[Item]] = Queue(maxsize=n)
    stopped = Event()
    thread = Thread(target=_produce, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():
            with suppress(Empty):  # makes room: a producer that waits to put sees that it is over
                while True:
                    queue.get_nowait()
            thread.join(0.01)


def _produce(
    items: Generator[Item, None, None], queue: Queue[Item | _End[Item]], stopped: Event
) -> None:
    end: _End[Item] = _End()
    try:
        with closing(items):
            for item in items:
                if stopped.is_set():
                    return
                queue.put(item)
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that consumes
        end = _End(error)
    queue.put(end)
