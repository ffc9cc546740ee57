"""Convert a file of cells into a store, as its card describes it, in bounded memory.

Two passes. The first reads the source in its own order, checks every value and spills the rows,
sorted block by block; the second merges them into whole shards. Cells end up sorted by context,
then by perturbation (control among the others, in its alphabetical place), then as in the source.
Input that does not fit its card is refused, never repaired: no cell or gene is dropped, no value
clipped.

Blocks and shards that are done are found again in the scratch folder ``.NAME.partial`` beside the
store, so a killed conversion goes on where it was, provided that source and card are the same.
What it gave up: disk space for the spilled rows, four bytes for each non-zero count, until the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.anndata_file import open_source
from harness.data.conversion_checks import check_values, read_labels
from harness.data.spill import Spill
from harness.data.store import CHUNK_ROWS, FORMAT, shard_rows
from harness.data.store_writer import StoreWriter
from harness.errors import DataError, HarnessError, OptionError, StorageError
from harness.kernels import available_threads
from harness.storage import paths, text_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.anndata_matrix import Source
    from harness.data.cards import Card
    from harness.data.store import Array, Store

    Progress = Callable[[str, int, int], None]

BLOCK_BYTES = 32 * 2**20
"""Largest block of the source: beyond it nothing gets faster, only larger."""
OVERHEAD_BYTES = 96 * 2**20
"""What was measured beside blocks and shards: labels, and what threads' heaps do not give back."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """How large the blocks are and how many are in flight, from memory and cores."""

    memory: int
    threads: int

    @property
    def usable(self) -> int:
        """What is left for blocks and shards: labels and the threads' heaps take the rest."""
        return self.memory - min(OVERHEAD_BYTES, self.memory // 4)

    @property
    def block_bytes(self) -> int:
        """Size of a block: of memory alone, so that other threads find the same blocks again."""
        return min(BLOCK_BYTES, self.usable // 8)

    @property
    def readers(self) -> int:
        """How many blocks may be sorted at once: each is held about four times."""
        return max(1, min(self.threads, self.usable // (4 * self.block_bytes)))

    def writers(self, shard_bytes: int, density: float) -> int:
        """Return the number of shards assembled at once; `OptionError` where none fits."""
        # dense and Zarr's padded copy; the sparse piece that fills it; and what is compressed
        needed = int((2 + 4 * density) * shard_bytes)
        if needed > self.usable:
            least = needed + min(OVERHEAD_BYTES, needed // 3)
            raise OptionError(
                f"memory={self.memory} bytes is too little: one shard of this screen needs "
                f"{needed}. Give at least '{least // 2**20 + 1}MiB'."
            )
        return max(1, min(self.threads, self.usable // needed))


def convert(  # noqa: PLR0913 - the options of the command
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    card: Card,
    *,
    memory: str | int = "1GiB",
    threads: int | None = None,
    obs: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Store:
    """Write the store of a screen and open it.

    Parameters
    ----------
    source
        `.h5ad`, 10x `.h5` or AnnData `.zarr`.
    out
        The store; must not exist. Where the source is refused, nothing is left there.
    card
        Which columns and which matrix to read, and what to refuse.
    memory
        Bound on what the matrix may take, whatever its size. The annotation of cells, some hundred
        bytes for each, is held beside it.
    threads
        Blocks worked on at once, as far as `memory` allows; default: the cores of this process.
    obs
        A table with more columns for the cells; see `open_source`.
    progress
        Called with the stage (``"read"``, ``"write"``), blocks done and blocks in all.
    """
    out, report = os.fspath(out), progress or (lambda *_: None)
    if paths.is_published(out, "zarr.json"):
        raise DataError(f"{out} exists already. Remove it, or choose another name.")
    budget = _Budget(paths.parse_size(memory), threads or available_threads())
    with open_source(os.fspath(source), card.expression.layer, obs=obs) as opened:
        order, ranges = read_labels(opened, card)
        row_bytes = opened.n_genes * opened.dtype.itemsize
        n_rows = min(shard_rows(opened.n_genes, opened.dtype.itemsize), opened.n_cells)
        n_writers = budget.writers(n_rows * row_bytes, opened.density)
        scratch = _continued(out, _key(opened, card, obs, budget))
        try:
            spill = Spill(scratch / "runs", opened.n_genes)
            writer = StoreWriter(
                out,
                obs=opened.obs.iloc[order],
                var=opened.var,
                ranges=ranges,
                dtype=opened.dtype,
                card=card.model_dump(mode="json"),
                scale=card.expression.scale,
                control_label=card.control_label,
                scratch=str(scratch),
            )
            _spill_rows(opened, card, order, spill, budget, report)
            # otherwise the heap's free pages of the first pass would add to the second's
            with contextlib.suppress(OSError, AttributeError):  # only glibc keeps them, and has it
                ctypes.CDLL(None).malloc_trim(0)
            _write_shards(writer, spill, n_writers, report)
            return writer.finish()
        except StorageError:  # what was made is whole, and only has to be sent again
            raise
        except HarnessError:  # the source's fault: nothing here is worth continuing
            shutil.rmtree(scratch)
            raise


def _spill_rows(
    source: Source, card: Card, order: Array, spill: Spill, budget: _Budget, report: Progress
) -> None:
    """First pass: check every value, and spill the rows by the position they will have."""
    spans = source.plan(budget.block_bytes)
    position = np.empty(source.n_cells, dtype="i8")
    position[order] = np.arange(source.n_cells)

    def read(number: int) -> None:
        block = source.read(spans[number])
        check_values(block, spans[number].rows.start, source, card)
        spill.write(number, block, position[spans[number].rows])

    _each(read, len(spans), spill.written, budget.readers, partial(report, "read"))
    if card.expression.scale == "log1p" and spill.whole_numbers:
        raise DataError(
            f"{source.path}: the card declares log1p, but all values are whole numbers. If they "
            "are raw counts, set expression.scale to counts."
        )


def _write_shards(writer: StoreWriter, spill: Spill, n_writers: int, report: Progress) -> None:
    """Second pass: merge the spilled rows into whole shards."""
    dtype = np.dtype(writer.dtype)

    def write(shard: int) -> None:
        where = writer.shard_slice(shard)
        # in pieces, so that the sparse copy of a shard stays small beside the dense one
        starts = range(where.start, where.stop, 2 * CHUNK_ROWS)
        bounds = itertools.pairwise([*starts, where.stop])
        writer.write_shard(shard, (spill.read(start, stop, dtype) for start, stop in bounds))

    _each(write, writer.n_shards, writer.written, n_writers, partial(report, "write"))


def _each(
    function: Callable[[int], None],
    total: int,
    written: frozenset[int],
    n_workers: int,
    report: Callable[[int, int], None],
) -> None:
    """Call a function with each number that is not written; the first failure by number is raised.

    Dask's threads do it, without Dask's arrays: a block is one call, its result is on disk.
    """
    from dask.base import compute
    from dask.delayed import delayed

    failures: dict[int, BaseException] = {}
    lock = threading.Lock()
    done = len(written)
    report(done, total)

    def attempt(number: int) -> None:
        nonlocal done
        if failures:
            return
        try:
            function(number)
        except BaseException as error:  # noqa: BLE001 - raised below, once no thread writes any more
            failures[number] = error
            return
        with lock:
            done += 1
            report(done, total)

    calls = [delayed(attempt)(number) for number in range(total) if number not in written]
    compute(*calls, scheduler="threads", num_workers=n_workers)  # type: ignore[no-untyped-call]
    if failures:
        raise failures[min(failures)]


def _continued(out: str, key: str) -> Path:
    """Return the scratch folder: as an earlier conversion of the same left it, or empty."""
    name = f"{out.rstrip('/').rpartition('/')[2]}.partial"
    if paths.is_remote(out):  # there, any number of stores of one name may be under way
        key_of_url = text_digest(out, 8)
        scratch = Path(tempfile.gettempdir(), f"harness-{os.getuid()}-{key_of_url}-{name}")
    else:
        scratch = Path(out).parent / f".{name}"
    journal = scratch / "journal.json"
    if not (journal.exists() and journal.read_text("utf-8") == key):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        paths.write_atomic(str(journal), key)
    return scratch


def _key(source: Source, card: Card, obs: Any, budget: _Budget) -> str:
    """Describe a conversion as JSON: blocks that are done count for the same one only."""
    read = [Path(source.path), *([Path(obs)] if obs else [])]
    files = [file for path in read for file in ([path] if path.is_file() else path.rglob("*"))]
    stats = [file.stat() for file in files]
    boot = Path("/proc/sys/kernel/random/boot_id")
    key = {
        "format": FORMAT,
        "card": card.model_dump(mode="json"),
        "files": [str(path.absolute()) for path in read],
        "size": sum(found.st_size for found in stats),
        "modified": max(found.st_mtime_ns for found in stats),
        "block_bytes": budget.block_bytes,
        # spilled rows are not flushed to disk: after a restart of the machine none counts
        "boot": boot.read_text("ascii").strip() if boot.exists() else "",
    }
    return json.dumps(key, sort_keys=True)
