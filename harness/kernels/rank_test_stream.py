"""Blocks of genes through the rank test: one by one on the CPU, two at a time on a device.

On a device each of two threads has a stream and pinned memory of its own: while one sorts its
block, the other copies the next across, and the caller reads the one after. Blocks are cut to what
the device's free memory holds, and cut again if it was not enough.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels import rank_test_device
from harness.kernels.device_staging import Room, pieces_of
from harness.kernels.rank_test import BlockStatistics, Workspace, block_statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from harness.kernels.backend import Backend
    from harness.kernels.device_staging import Piece
    from harness.kernels.groups import Groups

IN_FLIGHT = 2
"""Blocks on the device at once: one is copied while the other is sorted."""

SHARE = 0.8
"""How much of the device's free memory to plan with; the rest is lost between allocations."""

MOST_VALUES = 1 << 26
"""Cells times genes of a piece: a sort so long fills any device, and a screen gives many."""

Found = tuple[int, BlockStatistics]


def stream_statistics(
    blocks: Iterable[tuple[int, Any]], groups: Groups, backend: Backend, *, threads: int = 1
) -> Iterator[Found]:
    """Yield the statistics of blocks of genes, in their order.

    Parameters
    ----------
    blocks
        The first gene of each, and the block as `harness.kernels.rank_test.block_statistics` takes
        it. Read as results are taken.
    threads
        For the CPU, how many share a block; for a device, how many copy it to pinned memory.

    Yields
    ------
    First gene, and statistics. A device may cut a block into several.
    """
    if backend.name == "cpu":
        workspace = Workspace()
        for first, block in blocks:
            found = block_statistics(block, groups, threads=threads, workspace=workspace)
            del block  # before the next one is read
            yield first, found
        return
    yield from array_statistics(blocks, groups, backend, threads=threads)


def array_statistics(
    blocks: Iterable[tuple[int, Any]], groups: Groups, backend: Backend, *, threads: int = 1
) -> Iterator[Found]:
    """Do as `stream_statistics` with array functions, whatever the backend."""
    device = DevicePipeline(backend, groups, threads)
    waiting: deque[Future[Found]] = deque()
    try:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            try:
                for first, piece in device.pieces(blocks):
                    if len(waiting) == IN_FLIGHT:
                        yield waiting.popleft().result()
                    waiting.append(pool.submit(device.work, first, piece))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:  # an error, or a caller that left: begin no more
                    future.cancel()
    finally:
        backend.release()  # what belongs to this run's streams serves no other


@dataclass
class DevicePipeline:
    """One run's arrays on a device."""

    backend: Backend
    groups: Groups
    threads: int

    def __post_init__(self) -> None:
        self.layout = rank_test_device.Layout.of(self.groups, self.backend.xp)
        self.backend.synchronize()  # the streams of other threads do not wait for this one's
        self.rooms: SimpleQueue[Room] = SimpleQueue()
        for _ in range(IN_FLIGHT):
            self.rooms.put(Room(self.backend))

    def width(self) -> int:
        """Return how many columns fit on the device, one at least."""
        room = int(self.backend.free_memory() * SHARE) // IN_FLIGHT
        most = min(self.layout.most_columns, MOST_VALUES // max(1, self.groups.n_cells))
        return max(1, min(room // self.layout.bytes_per_column, most))

    def pieces(self, blocks: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Piece]]:
        """Yield blocks cut to the width that fits."""
        width = self.width()
        for first, block in blocks:
            if block.shape[0] != self.groups.n_cells:
                raise ValueError(
                    f"block has {block.shape[0]} cells, groups have {self.groups.n_cells}."
                )
            for piece in pieces_of(block, width):
                yield first + piece.first, piece

    def work(self, first: int, piece: Piece) -> Found:
        """Copy a piece to the device, compute, and bring back what was found."""
        room = self.rooms.get()
        try:
            with room.stream:
                return first, self._statistics(piece, room)
        finally:
            self.rooms.put(room)

    def _statistics(self, piece: Piece, room: Room) -> BlockStatistics:
        try:
            return self._compute(piece, room)
        except self.backend.out_of_memory:
            if piece.width == 1:
                raise
        # Past the handler, which holds on to the arrays that were too much.
        self.backend.synchronize()
        self.backend.release()
        one, other = (self._statistics(half, room) for half in piece.halves())
        return BlockStatistics(
            *(
                np.concatenate([getattr(one, name), getattr(other, name)], axis=1)
                for name in ("sums", "u", "ties")
            )
        )

    def _compute(self, piece: Piece, room: Room) -> BlockStatistics:
        arrays = tuple(self.backend.send(part) for part in piece.collect(room, self.threads))
        if piece.form == "dense":
            keys = rank_test_device.dense_keys(arrays[0], self.layout)
        else:
            keys = rank_test_device.compressed_keys(
                arrays, self.layout, by_rows=piece.form == "rows"
            )
        del arrays
        found = rank_test_device.key_statistics(keys, piece.width, self.layout)
        return BlockStatistics(*(self.backend.asnumpy(array) for array in found))
