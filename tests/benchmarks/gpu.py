"""Time the rank test on the CPU and on a GPU, from the same matrix in host memory, in turns.

    python -m tests.benchmarks.gpu                  # size L: needs 10 GB of memory
    python -m tests.benchmarks.gpu --size S         # a minute on a laptop

Needs NumPy, SciPy, numba and CuPy alone: nothing of the harness but its kernels. The matrix is
drawn a few rows at a time: log1p of counts scaled per cell, 48 % of them above zero, stored by rows
(CSR). What is timed is sums, U and tie terms of every group and gene, from the matrix in host
memory to results in host memory; p-values are made of them on the CPU either way, and are not
timed.

Results are compared before anything is timed. Runs alternate and medians are given. The stages of a
run on the device are timed apart afterwards, one piece at a time: end to end they overlap. Without
a device the same array functions run on NumPy, which says only that the script works.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from harness.kernels import rank_test_device as segments
from harness.kernels.backend import choose
from harness.kernels.blocks import RowRange
from harness.kernels.device_staging import Room, pieces_of
from harness.kernels.groups import Groups
from harness.kernels.rank_test_stream import (
    SHARE,
    DevicePipeline,
    array_statistics,
    stream_statistics,
)
from harness.kernels.threads import available_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.kernels.backend import Backend
    from harness.kernels.rank_test_stream import Found

SIZES = {
    # perturbations, cells of each, controls, genes
    "S": (10, 200, 1_000, 1_000),
    "M": (50, 400, 4_000, 6_000),
    "L": (50, 1_000, 10_000, 18_080),
}
ROWS, BLOCK = 500, 4096
NON_ZERO = 0.48


class Screen(NamedTuple):
    """What is ranked."""

    matrix: sparse.csr_matrix
    groups: Groups

    def blocks(self, form: str) -> Iterator[tuple[int, object]]:
        """Yield blocks of genes, as `harness.scoring.group_statistics.measure` does."""
        n_genes, width = self.matrix.shape[1], BLOCK if form == "rows" else 1024
        for start in range(0, n_genes, width):
            stop = min(start + width, n_genes)
            rows = RowRange(self.matrix, start, stop)
            yield start, rows if form == "rows" else self.matrix[:, start:stop].toarray()


def rates(rng: np.random.Generator, n_genes: int) -> np.ndarray:
    """Draw the mean count of each gene such that the share of counts above zero is as wanted."""
    spread = rng.lognormal(0, 1.4, n_genes)
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = (low * high) ** 0.5
        if np.exp(-1 / (middle * spread)).mean() < NON_ZERO:
            low = middle
        else:
            high = middle
    return (low * spread).astype(np.float32)


def draw(size: str, n_genes: int | None, threads: int) -> Screen:
    """Draw a screen: counts are whole parts of exponentials, effects are per group and gene."""
    n_perturbations, per, n_controls, genes = SIZES[size]
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(n_perturbations + 1), [n_controls] + [per] * n_perturbations)
    codes = rng.permutation(codes).astype(np.int32)
    rate = rates(rng, n_genes or genes)
    effect = rng.lognormal(0, 0.2, (n_perturbations + 1, rate.size)).astype(np.float32)
    effect[0] = 1
    depth = np.rint(rng.gamma(6.0, 2000.0, codes.size) + 500).astype(np.float32)

    def some(given: tuple[int, np.random.SeedSequence]) -> sparse.csr_matrix:
        start, seed = given
        cells = slice(start, start + ROWS)
        means = effect[codes[cells]] * rate
        drawn = np.random.default_rng(seed).standard_exponential(means.shape, np.float32)
        counts = np.floor(np.multiply(drawn, means, out=drawn), out=drawn)
        counts *= (1e4 / depth[cells])[:, None]
        return sparse.csr_matrix(np.log1p(counts, out=counts))

    starts = range(0, codes.size, ROWS)
    with ThreadPoolExecutor(threads) as pool:
        seeds = np.random.SeedSequence(0).spawn(len(starts))
        parts = list(pool.map(some, zip(starts, seeds, strict=True)))
    matrix = sparse.vstack(parts, format="csr")
    matrix.has_sorted_indices = True
    return Screen(matrix, Groups(codes, np.zeros(n_perturbations + 1, int)))


def check_equal(one: Iterator[Found], other: Iterator[Found], n_genes: int, n: int) -> float:
    """Compare results: U and ties must be equal; return how far sums are apart."""
    joined = []
    for found in (one, other):
        arrays = np.full((3, n, n_genes), -1.0)
        for start, part in found:
            arrays[:, :, start : start + part.u.shape[1]] = part.sums, part.u, part.ties
        joined.append(arrays)
    np.testing.assert_array_equal(joined[0][1:], joined[1][1:])
    apart = np.abs(joined[0][0] - joined[1][0]) / np.maximum(np.abs(joined[0][0]), 1e-300)
    assert apart.max() < 1e-12, apart.max()
    return float(apart.max())


def seconds_of(run: Callable[[], Iterator[Found]]) -> float:
    """Take all results of a run, and tell how long that took."""
    start = time.perf_counter()
    for _ in run():
        pass
    return time.perf_counter() - start


def stages(screen: Screen, backend: Backend, form: str, threads: int) -> dict[str, float]:
    """Time each stage of a run on the device, waiting for it to end before the next."""
    device = DevicePipeline(backend, screen.groups, threads)
    room, width = Room(backend), device.width()
    total = dict.fromkeys(("gather into pinned memory", "transfer", "sort and scan"), 0.0)
    for _, block in screen.blocks(form):
        for piece in pieces_of(block, width):
            with room.stream:
                times = [time.perf_counter()]
                host = piece.collect(room, threads)
                times.append(time.perf_counter())
                arrays = tuple(backend.send(part) for part in host)
                backend.synchronize()
                times.append(time.perf_counter())
                if piece.form == "dense":
                    keys = segments.dense_keys(arrays[0], device.layout)
                else:
                    keys = segments.compressed_keys(arrays, device.layout, by_rows=True)
                for found in segments.key_statistics(keys, piece.width, device.layout):
                    backend.asnumpy(found)
                times.append(time.perf_counter())
            for stage, span in zip(total, np.diff(times), strict=True):
                total[stage] += float(span)
    return total


def versions() -> str:
    """Name what was run on and with."""
    found = [f"Python {platform.python_version()}"]
    for name in ("numpy", "scipy", "numba", "cupy-cuda13x", "cupy-cuda12x"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def compare(screen: Screen, backend: Backend, given: argparse.Namespace) -> None:
    """Check, time in turns, and print the table."""
    n_genes, groups = screen.matrix.shape[1], screen.groups
    cpu, most = choose("cpu"), max(given.threads)

    def on_cpu(threads: int) -> Iterator[Found]:
        return stream_statistics(screen.blocks(given.form), groups, cpu, threads=threads)

    def on_device() -> Iterator[Found]:
        return array_statistics(screen.blocks(given.form), groups, backend, threads=most)

    apart = check_equal(on_cpu(most), on_device(), n_genes, groups.n_groups)
    print(f"Equal: U and ties to the bit, sums within {apart:.1e} relative.\n", flush=True)
    where = "GPU" if backend.name == "gpu" else "the same array functions on NumPy (no device)"
    runs: dict[str, Callable[[], Iterator[Found]]] = {
        f"CPU, {n} threads": lambda n=n: on_cpu(n) for n in given.threads
    }
    runs[f"{where}, {most} threads gather"] = on_device
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            times[name].append(seconds_of(run))
    first = statistics.median(next(iter(times.values())))
    print("| | median s | fastest s | slowest s | × faster |\n|---|---|---|---|---|")
    for name, taken in times.items():
        middle = statistics.median(taken)
        row = f"{middle:.3f} | {min(taken):.3f} | {max(taken):.3f} | {first / middle:.1f}"
        print(f"| {name} | {row} |")
    apart_times = stages(screen, backend, given.form, most)
    whole = sum(apart_times.values())
    print("\n| stage, one piece at a time | s | share |\n|---|---|---|")
    for name, span in apart_times.items():
        print(f"| {name} | {span:.3f} | {span / whole:.0%} |")


def main() -> None:
    """Read the command line, draw, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="L")
    parser.add_argument("--genes", type=int, help="draw so many instead of the size's own number")
    parser.add_argument("--rounds", type=int, default=5)
    everything = available_threads()
    threads = sorted({min(2, everything), everything})
    parser.add_argument("--threads", type=int, nargs="+", default=threads)
    parser.add_argument("--form", choices=("rows", "dense"), default="rows")
    given = parser.parse_args()
    backend = choose("auto")
    start = time.perf_counter()
    screen = draw(given.size, given.genes, max(given.threads))
    n_cells, n_genes = screen.matrix.shape
    share = screen.matrix.nnz / (n_cells * n_genes)
    print(
        f"{n_cells:,} cells × {n_genes:,} genes, {share:.0%} above zero, "
        f"{screen.groups.n_groups} groups, as {given.form}; drawn in "
        f"{time.perf_counter() - start:.0f} s. {given.rounds} runs of each, in turns.\n\n"
        f"{versions()}; {os.cpu_count()} processors.",
        flush=True,
    )
    if backend.name == "gpu":
        free = backend.free_memory()
        print(f"{backend.reason}, {free / 2**30:.0f} GiB free, {SHARE:.0%} of it planned with.")
    else:
        print(f"no device: {backend.reason}.")
    compare(screen, backend, given)


if __name__ == "__main__":
    main()
