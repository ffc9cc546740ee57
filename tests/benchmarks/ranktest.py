"""Time the rank test against its peers on the same matrix, in turns.

    python -m tests.benchmarks.ranktest --size L --genes 2000 \\
        --peer illico=/path/to/python --peer pdex=/path/to/python

Each peer runs in an interpreter of its own: an environment with `illico` 0.6.0 and `statsmodels`,
which it imports and does not ask for, or one with `pdex` 0.3.0. Each gets the same CSR matrix from
disk. Runs alternate, since other work on the machine disturbs all alike; medians and ranges are
reported. Every run is preceded by one on a few genes, so that compiling is not counted; reading the
matrix is not either. `--genes` draws so many genes instead of the size's own number, which serves
to compare, since all are linear in genes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.measuring import machine, middle, versions

PEERS = ("ours", "illico", "pdex")


def make(folder: Path, size: str, n_genes: int | None) -> None:
    """Draw a size's cells and write them as CSR arrays."""
    from tests.benchmarks.drawn import Shape, codes_and_rows

    shape = Shape.of(size, genes=n_genes)
    codes, blocks = codes_and_rows(shape, seed=1)
    ends = [np.zeros(1, np.int64)]
    with (folder / "data.f4").open("wb") as data, (folder / "indices.i4").open("wb") as indices:
        for rows in blocks:
            ends.append(rows.indptr[1:] + ends[-1][-1])
            rows.data.tofile(data)
            rows.indices.astype(np.int32).tofile(indices)
    indptr = np.concatenate(ends)
    np.save(folder / "indptr.npy", indptr.astype(np.int32 if indptr[-1] < 2**31 else np.int64))
    np.save(folder / "codes.npy", codes.astype(np.int32))


def load(folder: Path, n_genes: int):  # type: ignore[no-untyped-def]
    """Read the matrix and the labels."""
    from scipy.sparse import csr_matrix

    parts = [np.fromfile(folder / "data.f4", "f4"), np.fromfile(folder / "indices.i4", "i4")]
    parts.append(np.load(folder / "indptr.npy"))
    codes = np.load(folder / "codes.npy")
    matrix = csr_matrix(tuple(parts), shape=(len(codes), n_genes), copy=False)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix, codes


def ours(matrix, codes, threads: int) -> float:  # type: ignore[no-untyped-def]
    """U and p of all groups and genes, by this project's kernels."""
    from harness.kernels.blocks import RowRange
    from harness.kernels.groups import Groups
    from harness.kernels.rank_test import block_statistics, p_values

    groups = Groups(codes, np.zeros(codes.max() + 1, int))
    found = block_statistics(RowRange(matrix, 0, matrix.shape[1]), groups, threads=threads)
    sizes = groups.sizes()
    p = p_values(found.u, found.ties, sizes, np.full_like(sizes, sizes[0]), exact_when_small=False)
    return float(np.nansum(p[1:]))


def annotated(matrix, codes):  # type: ignore[no-untyped-def]
    """Wrap the matrix as AnnData."""
    import anndata
    import pandas as pd

    labels = pd.Categorical(np.where(codes == 0, "control", np.char.add("p", codes.astype(str))))
    obs = pd.DataFrame({"target": labels}, index=np.arange(len(codes)).astype(str))
    return anndata.AnnData(matrix, obs=obs)


def illico(matrix, codes, threads: int) -> float:  # type: ignore[no-untyped-def]
    """The same by illico."""
    from illico import asymptotic_wilcoxon

    table = asymptotic_wilcoxon(
        annotated(matrix, codes),
        group_keys="target",
        reference="control",
        is_log1p=True,
        n_threads=threads,
        return_as_scanpy=False,
    )
    return float(table.loc[table.index.get_level_values(0) != "control", "p_value"].sum())


def pdex(matrix, codes, threads: int, groups: int = 10) -> float:  # type: ignore[no-untyped-def]
    """The same by pdex, for ten perturbations: it is linear in them."""
    from pdex import pdex as run

    kept = codes <= groups
    table = run(
        annotated(matrix[kept], codes[kept]),
        groupby="target",
        mode="ref",
        reference="control",
        is_log1p=True,
        threads=threads,
    )
    return float(table["p_value"].sum())


def work(peer: str, folder: Path, n_genes: int, threads: int) -> None:
    """Time one run in this process and print what was found as JSON."""
    matrix, codes = load(folder, n_genes)
    function = globals()[peer]
    function(matrix[:, :40].sorted_indices(), codes, threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    busy, start = time.process_time(), time.perf_counter()
    total = function(matrix, codes, threads)
    busy, seconds = time.process_time() - busy, time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    share = codes.max() / min(10, codes.max()) if peer == "pdex" else 1.0
    found = {"wall": seconds * share, "busy": busy * share, "extra_mb": (after - before) / 1024}
    print(json.dumps(found | {"sum_p": total}))


def compare(pythons: dict[str, str], folder: Path, n_genes: int, threads: int, rounds: int) -> None:
    """Run all peers in turns and print medians and ratios."""
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in pythons}
    for _ in range(rounds):
        for peer, python in pythons.items():
            command = [python, "-m", "tests.benchmarks.ranktest", "--work", peer]
            command += ["--folder", str(folder), "--genes", str(n_genes)]
            run = subprocess.run(
                [*command, "--threads", str(threads)], capture_output=True, text=True, check=True
            )
            found[peer].append(json.loads(run.stdout.splitlines()[-1]))
            print(peer, found[peer][-1], f"(load {os.getloadavg()[0]:.1f})", flush=True)
    print("\n| | wall s | processor s | × ours (processor) | extra memory MB | sum of p |")
    print("|---|---:|---:|---:|---:|---:|")
    ours = statistics.median(run["busy"] for run in found["ours"])
    for peer, runs in found.items():
        wall, busy = (middle([run[kind] for run in runs], 2) for kind in ("wall", "busy"))
        ratio = statistics.median(run["busy"] for run in runs) / ours
        memory = max(run["extra_mb"] for run in runs)
        print(f"| {peer} | {wall} | {busy} | {ratio:.1f} | {memory:.0f} | {runs[0]['sum_p']:.6g} |")


def main() -> None:
    """Read the command line; make the matrix; compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("S", "M", "L"), default="M")
    parser.add_argument("--genes", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--folder", type=Path, help="where the matrix is, or is to be kept")
    parser.add_argument("--work", choices=PEERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.folder, given.genes, given.threads)
        return
    from tests.benchmarks.drawn import SIZES

    n_genes = given.genes or SIZES[given.size][3]
    pythons = {"ours": sys.executable, **dict(peer.split("=", 1) for peer in given.peer)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "codes.npy").exists():
            make(folder, given.size, n_genes)
        matrix, codes = load(folder, n_genes)
        share = matrix.nnz / np.prod(matrix.shape)
        print(
            f"{machine()}\n{matrix.shape[0]} × {matrix.shape[1]}, {share:.0%} not zero, "
            f"{codes.max()} groups, {given.threads} threads"
        )
        del matrix
        for peer, python in pythons.items():
            print(f"{peer}: {versions(('numpy', 'numba', 'scipy', 'illico', 'pdex'), python)}")
        compare(pythons, folder, n_genes, given.threads, given.rounds)


if __name__ == "__main__":
    main()
