"""The whole command against its peer: `harness score` and `cell-eval run` on the same files.

Draws a truth and a prediction (log1p, about 48 % non-zero, float32), then runs both commands in
turn, each in a fresh process, and prints medians of wall time, processor time (what to compare on
a machine that others use, too) and peak memory as Markdown.

    python -m tests.benchmarks.scoring --peer PATH/TO/cell-eval --size M --runs 3

The peer lives in an environment of its own: ``pip install cell-eval==0.6.6 pdex==0.1.27`` for
``--profile vcc``, ``cell-eval==0.8.2 pdex==0.3.0`` for ``--profile full``. ``--warm`` also times
ours with the truth's reference on disk, ``--predictions N`` the cost of each further prediction.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

SIZES = {
    "S": (10, 100, 500, 1_000),
    "M": (50, 400, 4_000, 6_000),
    "L": (50, 1_000, 10_000, 18_080),
}
"""Perturbations, cells of each, controls, genes."""
SUITES = {"vcc": "vcc2025", "full": "cell-eval"}
CONTROL = "non-targeting"


def draw(size: str, seed: int, shift: float) -> AnnData:
    """Return a screen of log1p values whose perturbations move a tenth of the genes."""
    n_perturbations, n_cells, n_controls, n_genes = SIZES[size]
    rng, effects = np.random.default_rng(seed), np.random.default_rng(0)
    rate = np.exp(effects.normal(-0.5, 1.6, n_genes))
    names = [CONTROL, *(f"G{i}" for i in range(n_perturbations))]
    blocks, labels = [], []
    for name in names:
        n = n_controls if name == CONTROL else n_cells
        change = effects.normal(0, shift, n_genes) * (effects.random(n_genes) < 0.1)
        change = np.zeros(n_genes) if name == CONTROL else change
        counts = rng.poisson(rate * np.exp(change), (n, n_genes)).astype("f4")
        scale = np.median(counts.sum(1)) / counts.sum(1, keepdims=True)
        blocks.append(sparse.csr_matrix(np.log1p(counts * scale, dtype="f4")))
        labels += [name] * n
    obs = pd.DataFrame({"target_gene": pd.Categorical(labels)}, index=map(str, range(len(labels))))
    genes = [f"G{i}" for i in range(n_genes)]
    return AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=pd.DataFrame(index=genes))


def write(size: str, form: str, folder: Path) -> None:
    """Write truth and prediction."""
    draw(size, 1, 0.5).write_h5ad(folder / "truth.h5ad")
    prediction = draw(size, 2, 0.5)
    if form == "dense":
        prediction.X = prediction.X.toarray()
    prediction.write_h5ad(folder / "prediction.h5ad")


def measured(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a command to its end; return its seconds, those of processors, and its peak GB."""
    log = folder / "log.txt"
    start = time.perf_counter()
    with log.open("wb") as file:
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ | {"PYTHONWARNINGS": "ignore"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, file.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, file.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    busy = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, busy, usage.ru_maxrss * 1024 / 1e9


def commands(arguments: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    truth, prediction = str(folder / "truth.h5ad"), str(folder / "prediction.h5ad")
    threads = str(arguments.threads)
    ours = [sys.executable, "-m", "harness", "score", "-t", truth, "-p", prediction]
    ours += ["--suite", SUITES[arguments.profile], "--threads", threads, "-o", str(folder / "ours")]
    found = {"harness score": ours}
    if arguments.warm:
        found["harness score, reference warm"] = [*ours, "--reference", str(folder / "reference")]
    if arguments.peer:
        peer = [arguments.peer, "run", "-ap", prediction, "-ar", truth, "--profile"]
        peer += [arguments.profile, "--num-threads", threads, "-o", str(folder / "peer")]
        found["cell-eval run"] = peer
    return found


def several(arguments: argparse.Namespace, folder: Path) -> None:
    """Print what one prediction costs, and each further one against the same truth."""
    seconds = {}
    for n in (1, arguments.predictions):
        files = []
        for i in range(n):
            files.append(str(folder / f"p{i}.h5ad"))
            if not Path(files[-1]).exists():
                shutil.copy(folder / "prediction.h5ad", files[-1])
        command = [sys.executable, "-m", "harness", "score", "-t", str(folder / "truth.h5ad")]
        command += ["-o", str(folder / "ours"), "--threads", str(arguments.threads), "-p", *files]
        seconds[n] = statistics.median(measured(command, folder)[1] for _ in range(arguments.runs))
    one, many = seconds[1], seconds[arguments.predictions]
    further = (many - one) / (arguments.predictions - 1)
    print(
        f"\nProcessor seconds: 1 prediction {one:.1f}, {arguments.predictions} {many:.1f}; each "
        f"further one {further:.2f}, {further / one:.0%} of the first."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="the cell-eval command")
    parser.add_argument("--size", choices=SIZES, default="M")
    parser.add_argument("--profile", choices=SUITES, default="vcc")
    parser.add_argument("--format", choices=("sparse", "dense"), default="sparse")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--predictions", type=int, default=0)
    parser.add_argument("--warm", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-benchmark-") as name:
        folder = Path(name)
        # In another process: what this one held would count as its children's peak.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(write, arguments.size, arguments.format, folder).result()
        runs: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(arguments.runs):
            for label, command in commands(arguments, folder).items():
                runs.setdefault(label, []).append(measured(command, folder))
        print(
            f"{arguments.size}, {arguments.profile}, {arguments.format}, {arguments.threads} "
            f"threads, Python {platform.python_version()}\n\n"
            "| | seconds | processor seconds | peak GB |\n|---|---:|---:|---:|"
        )
        for label, pairs in runs.items():
            seconds, busy, memory = (statistics.median(part) for part in zip(*pairs, strict=True))
            print(f"| {label} | {seconds:.1f} | {busy:.1f} | {memory:.2f} |")
        if arguments.predictions:
            several(arguments, folder)


if __name__ == "__main__":
    main()
