"""Time the rank test against its peers on the same matrix, in turns.

    python -m tests.benchmarks.ranktest --size L --genes 2000 \\
        --peer illico=/path/to/python --peer pdex=/path/to/python

Each peer runs in an interpreter of its own (an environment with `illico` 0.6, or with `pdex` 0.3)
and gets the same CSR matrix from disk. Runs alternate, since other work on the machine disturbs
all alike; medians and their ratios are reported. Every run is preceded by one on a few genes, so
that compiling is not counted; reading the matrix is not either. `--genes` draws so many genes
instead of the size's own number, which serves to compare, since all are linear in genes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {
    # perturbations, cells of each, controls, genes
    "S": (10, 200, 1_000, 1_000),
    "M": (50, 400, 4_000, 6_000),
    "L": (50, 1_000, 10_000, 18_080),
}
PEERS = ("ours", "illico", "pdex")


def make(folder: Path, size: str, n_genes: int | None, non_zero: float, seed: int = 0) -> None:
    """Draw log1p counts of a size's shape, about `non_zero` of them not zero, as CSR arrays."""
    n_perturbations, per, n_controls, genes = SIZES[size]
    genes = n_genes or genes
    rng = np.random.default_rng(seed)
    n_cells = n_perturbations * per + n_controls
    codes = np.repeat(np.arange(n_perturbations + 1), [n_controls] + [per] * n_perturbations)
    codes = rng.permutation(codes).astype(np.int32)
    depth = np.rint(rng.gamma(6.0, 2000.0, n_cells) + 500)  # whole, so that values are tied
    # Spread of gene means such that the share of non-zero values is as asked.
    rates = np.exp(rng.normal(np.log(non_zero / (1 - non_zero)) * 1.1 - 0.35, 1.4, genes))
    effects = np.exp(rng.normal(0, 0.2, (n_perturbations + 1, genes)))
    effects[0] = 1
    data, indices, indptr = [], [], [0]
    for start in range(0, n_cells, 2000):
        rows = slice(start, start + 2000)
        means = effects[codes[rows]] * rates * (depth[rows] / depth.mean())[:, None]
        counts = rng.poisson(means)
        scaled = np.log1p(counts * (1e4 / depth[rows])[:, None]).astype(np.float32)
        where = np.nonzero(scaled)
        data.append(scaled[where])
        indices.append(where[1].astype(np.int32))
        indptr.extend(indptr[-1] + np.cumsum(np.bincount(where[0], minlength=len(scaled))))
    np.save(folder / "data.npy", np.concatenate(data))
    np.save(folder / "indices.npy", np.concatenate(indices))
    np.save(folder / "indptr.npy", np.array(indptr, dtype=np.int64))
    np.save(folder / "codes.npy", codes)


def load(folder: Path, n_genes: int):  # type: ignore[no-untyped-def]
    """Read the matrix and the labels."""
    from scipy.sparse import csr_matrix

    parts = [np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr")]
    codes = np.load(folder / "codes.npy")
    matrix = csr_matrix(tuple(parts), shape=(len(codes), n_genes), copy=False)
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    return matrix, codes


def ours(matrix, codes, threads: int) -> float:  # type: ignore[no-untyped-def]
    """U and p of all groups and genes, by this project's kernels."""
    from harness.kernels.blocks import RowRange
    from harness.kernels.groups import Groups
    from harness.kernels.ranktest import block_statistics, p_values

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
    start = time.perf_counter()
    total = function(matrix, codes, threads)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peer == "pdex":
        seconds *= codes.max() / min(10, codes.max())
    print(json.dumps({"seconds": seconds, "extra_mb": (after - before) / 1024, "sum_p": total}))


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
            print(peer, found[peer][-1], flush=True)
    middle = {
        peer: statistics.median(run["seconds"] for run in runs) for peer, runs in found.items()
    }
    print("\n| | median s | × ours | extra memory MB | sum of p |\n|---|---|---|---|---|")
    for peer, runs in found.items():
        memory = max(run["extra_mb"] for run in runs)
        ratio = middle[peer] / middle["ours"]
        print(
            f"| {peer} | {middle[peer]:.2f} | {ratio:.1f} | {memory:.0f} | {runs[0]['sum_p']:.6g} |"
        )


def main() -> None:
    """Read the command line; make the matrix; compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="M")
    parser.add_argument("--genes", type=int)
    parser.add_argument("--non-zero", type=float, default=0.48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--folder", type=Path, help="where the matrix is, or is to be kept")
    parser.add_argument("--work", choices=PEERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.folder, given.genes, given.threads)
        return
    n_genes = given.genes or SIZES[given.size][3]
    pythons = {"ours": sys.executable, **dict(peer.split("=", 1) for peer in given.peer)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "codes.npy").exists():
            make(folder, given.size, n_genes, given.non_zero)
        matrix, codes = load(folder, n_genes)
        share = matrix.nnz / np.prod(matrix.shape)
        print(f"{matrix.shape[0]} × {matrix.shape[1]}, {share:.0%} not zero, {codes.max()} groups")
        del matrix
        compare(pythons, folder, n_genes, given.threads, given.rounds)


if __name__ == "__main__":
    main()
