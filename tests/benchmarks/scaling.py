"""Where a side's time goes, how it grows, and how far it is from what the machine can do.

    python -m tests.benchmarks.scaling

Draws a screen, varies one number of it at a time, and prints processor seconds of reading the
`.h5ad`, of transposing (values by rows become keys by gene), sorting and scanning; fits a straight
line through each series. Then the limits: how fast this machine sorts keys of that number and
length and nothing else, and how fast it copies memory. All are processor seconds of one process
(wall time for threads, too): on a machine that others use, wall time says little.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.predictions import open_predictions
from harness.kernels import rank_test_loops
from harness.kernels.threads import Limits
from harness.scoring.group_statistics import measure
from tests.benchmarks.drawn import CONTROL, Shape, write_h5ad
from tests.benchmarks.measuring import machine, middle, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.data.cells import Cells

BASE = Shape(perturbations=20, cells=400, controls=4_000, genes=2_000)
SERIES = {
    "cells": [{"cells": n, "controls": 10 * n} for n in (200, 400, 800)],
    "genes": [{"genes": n} for n in (1_000, 2_000, 4_000)],
    "perturbations": [{"perturbations": n} for n in (10, 20, 40)],
}
STAGES = {
    "transposing": ("collect_rows", "collect_dense", "collect_columns"),
    "scanning": ("scan_tile",),
}


@contextmanager
def stopwatches() -> Iterator[dict[str, float]]:
    """Time the compiled loops of each stage, on whatever thread they run."""
    spent, lock = dict.fromkeys(STAGES, 0.0), threading.Lock()
    kept = {name: getattr(rank_test_loops, name) for names in STAGES.values() for name in names}

    def timed(stage: str, loop: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> None:
            start = time.thread_time()
            loop(*arguments)
            with lock:
                spent[stage] += time.thread_time() - start

        return run

    for stage, names in STAGES.items():
        for name in names:
            setattr(rank_test_loops, name, timed(stage, kept[name]))
    try:
        yield spent
    finally:
        for name, loop in kept.items():
            setattr(rank_test_loops, name, loop)


def opened(path: Path, threads: int) -> Cells:
    """Read a file as `harness score` does."""
    return open_predictions(
        str(path),
        perturbation_column="target_gene",
        context_column=None,
        control_label=CONTROL,
        limits=Limits(threads),
    )


def stages(path: Path, threads: int) -> dict[str, float]:
    """Return the processor seconds of each stage of one side, and wall time."""
    wall, start = time.perf_counter(), time.process_time()
    cells = opened(path, threads)
    read = time.process_time()
    with stopwatches() as spent:
        measure(cells, name="side", threads=threads)
    rest = time.process_time() - read - sum(spent.values())
    found = {"reading": read - start, "transposing": spent["transposing"]}
    found |= {"sorting": rest, "scanning": spent["scanning"]}
    return found | {"all": sum(found.values()), "wall": time.perf_counter() - wall}


def best(path: Path, threads: int, rounds: int) -> dict[str, float]:
    """Return the run that took least: load only ever adds."""
    return min((stages(path, threads) for _ in range(rounds)), key=lambda run: run["all"])


def line(label: str, found: dict[str, float]) -> str:
    """Return a row: seconds of all, shares of the stages."""
    shares = [f"{found[name] / found['all']:.0%}" for name in (*list(found)[:4],)]
    return f"| {label} | {found['all']:.2f} | {' | '.join(shares)} | {found['wall']:.2f} |"


HEAD = "| | processor s | reading | transposing | sorting, checking | scanning | wall s |"


def grow(name: str, folder: Path, rounds: int) -> None:
    """Print a series and how well a straight line fits it."""
    sizes, seconds = [], []
    for changed in SERIES[name]:
        path = folder / f"{name}.h5ad"
        write_h5ad(path, replace(BASE, **changed), seed=1)
        found = best(path, 1, rounds)
        path.unlink()
        sizes.append(changed[name])
        seconds.append(found["all"])
        each = " each" if name == "cells" else ""
        print(line(f"{changed[name]:,} {name}{each}", found), flush=True)
    slope, level = np.polyfit(sizes, seconds, 1)
    off = np.abs(np.polyval((slope, level), sizes) / seconds - 1).max()
    print(f"| straight line | {level:.2f} + {slope:.2e} × {name}, off by {off:.0%} | | | | | |")


def limits(path: Path, rounds: int) -> None:
    """Print what sorting alone and copying alone take on this machine."""
    matrix: Any = opened(path, 1)
    rows = matrix.rows
    lengths = np.bincount(rows.indices, minlength=rows.shape[1])
    keys = np.random.default_rng(0).integers(0, 2**32, int(lengths.sum()), np.uint32)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    sorting, copying = [], []
    for _ in range(rounds):
        drawn = keys.copy()
        start = time.process_time()
        for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            drawn[first:last].sort()
        sorting.append(time.process_time() - start)
        source, target = np.zeros(1 << 25), np.empty(1 << 25)
        target[:] = source
        start = time.process_time()
        target[:] = source
        copying.append(2 * source.nbytes / 1e9 / (time.process_time() - start))
    found = best(path, 1, rounds)
    floor = 24 * rows.nnz / 1e9 / max(copying)  # 8 B read, 8 B written, 8 B for the line written
    print(f"\n{rows.nnz:,} values above zero in {rows.shape[1]:,} genes, one thread:")
    print(f"sorting alone, of 32 bits each: {middle(sorting, 2)} s")
    print(f"ours, with checks, calls and narrowing to 32 bits: {found['sorting']:.2f} s")
    print(f"copying: {middle(copying)} GB/s, read and written together")
    print(f"transposing at that rate: {floor:.2f} s; ours {found['transposing']:.2f} s")


def main() -> None:
    """Print the series, the threads, and the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{machine()}\n{versions(('numpy', 'numba', 'scipy', 'h5py'))}\n{HEAD}")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="harness-benchmark-") as name:
        folder = Path(name)
        path = folder / "base.h5ad"
        write_h5ad(path, BASE, seed=1)
        stages(path, 1)  # compiles
        for series in SERIES:
            grow(series, folder, given.rounds)
        for threads in (1, 2):
            print(line(f"{threads} threads", best(path, threads, given.rounds)), flush=True)
        limits(path, given.rounds)


if __name__ == "__main__":
    main()
