"""The whole command against its peers: `harness score`, `cell-eval run` and `cell-eval2 run`.

Draws truth and prediction (`drawn.py`: 48 % above zero, float32, not compressed), then runs the
commands in turn, each in a fresh process, and prints medians and ranges of wall time, processor
time and peak memory as Markdown.

    python -m tests.benchmarks.scoring --suite vcc2025 --peer ENV/bin/cell-eval --warm
    python -m tests.benchmarks.scoring --suite vcc2025 --form dense --peer ENV/bin/cell-eval
    python -m tests.benchmarks.scoring --suite cell-eval --peer ENV2/bin/cell-eval --rounds 1
    python -m tests.benchmarks.scoring --suite vcc2026 --peer ENV3/bin/cell-eval2 --anchors
    python -m tests.benchmarks.scoring --suite vcc2025 --predictions 20
    python -m tests.benchmarks.scoring --suite vcc2025 --size L --peer ENV/bin/cell-eval --rounds 1

Each peer lives in an environment of its own: ``cell-eval==0.6.6 pdex==0.1.27`` for `vcc2025`,
``cell-eval==0.8.2 pdex==0.3.0`` for `cell-eval`, ``cell-eval2==0.20.0 pdex==0.3.0`` for `vcc2026`.
The peer at L takes ten minutes and 17 GB on two cores that have nothing else to do; with `--genes`
fewer are drawn than the size has: both sides are linear in genes. Every command of ours is run once
before anything is timed, so that compiling is not counted. `--folder` keeps the files for the next
time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.drawn import SIZES, Shape, write_h5ad
from tests.benchmarks.measuring import in_turns, machine, measured, ratios, table, versions

PROFILES = {"vcc2025": "vcc", "cell-eval": "full", "vcc2026": "vcc2026"}
"""What the peer calls a suite."""


def files_of(given: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Return truth and prediction, drawn unless they are there."""
    scale = "counts" if given.suite == "vcc2026" else "log1p"
    shape = Shape.of(given.size, genes=given.genes)
    label = f"{given.size}{shape.genes}-{scale}"
    wanted = {
        folder / f"truth-{label}.h5ad": (1, "sparse"),
        folder / f"prediction-{label}-{given.form}.h5ad": (2, given.form),
    }
    for path, (seed, form) in wanted.items():
        if not path.exists():
            # In another process: what this one held would count as its children's peak.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                pool.submit(write_h5ad, path, shape, seed, form=form, scale=scale).result()
    truth, prediction = wanted
    return truth, prediction


def ours(given: argparse.Namespace, truth: Path, predictions: list[Path], out: Path) -> list[str]:
    """Return our command."""
    command = [sys.executable, "-m", "harness", "score", "-t", str(truth), "-o", str(out)]
    command += ["--suite", given.suite, "--threads", str(given.threads)]
    return [*command, "-p", *map(str, predictions)]


def theirs(given: argparse.Namespace, truth: Path, prediction: Path, out: Path) -> list[str]:
    """Return the peer's command."""
    command = [given.peer, "run", "-ap", str(prediction), "-ar", str(truth), "-o", str(out)]
    if given.suite == "vcc2026":
        # pdex is the rank test it takes on a processor
        preset = ["--preset", "vcc2026", "--pert-col", "target_gene"]
        if not given.anchors:
            return [*command, *preset]
        ends = [given.peer, "baseline", "-ar", str(truth), "-o", f"{out}-baseline", *preset]
        both = shlex.join([*command, "--anchor", *preset]), shlex.join(ends)
        return ["/bin/sh", "-c", " && ".join(both)]
    return [*command, "--profile", PROFILES[given.suite], "--num-threads", str(given.threads)]


def commands(
    given: argparse.Namespace, truth: Path, prediction: Path, folder: Path
) -> dict[str, list[str]]:
    """Return what is run in turns, by name."""
    own = ours(given, truth, [prediction], folder / "ours")
    found = {"harness score": own}
    if given.warm:
        found["harness score, reference on disk"] = [
            *own,
            "--reference",
            str(folder / "reference"),
        ]
    if given.peer:
        found[peer_name(given)] = theirs(given, truth, prediction, folder / "peer")
    return found


def peer_name(given: argparse.Namespace) -> str:
    """Return what the peer is called in the table."""
    anchored = ", with both anchors" if given.anchors else ""
    return f"{Path(given.peer).name} run, {PROFILES[given.suite]}{anchored}"


def several(given: argparse.Namespace, truth: Path, prediction: Path, folder: Path) -> None:
    """Print what one prediction costs, and each further one against the same truth."""
    copies = [folder / f"p{i}.h5ad" for i in range(given.predictions)]
    for copy in copies:
        if not copy.exists():
            shutil.copy(prediction, copy)
    numbers = {
        f"{n} predictions": ours(given, truth, copies[:n], folder / "ours")
        for n in (1, given.predictions)
    }
    found = in_turns(numbers, given.rounds, folder)
    print(f"\n{table(found)}\n")
    for kind, at in (("wall", 0), ("processor", 1)):
        one, many = (statistics.median(run[at] for run in runs) for runs in found.values())
        further = (many - one) / (given.predictions - 1)
        print(
            f"{kind} s: the first {one:.2f}, each further one {further:.2f}, {further / one:.0%}."
        )


def compare(given: argparse.Namespace, folder: Path) -> None:
    """Draw, run, print."""
    truth, prediction = files_of(given, folder)
    print(f"{machine()}\n{versions(('numpy', 'scipy', 'numba', 'h5py', 'anndata', 'pandas'))}")
    if given.peer:
        packages = ("cell-eval", "cell-eval2", "pdex", "numpy", "scipy", "polars", "anndata")
        python = str(Path(given.peer).with_name("python"))
        print(f"peer: {versions(packages, python)}")
    print(f"{given.suite}, {given.size}, {given.form}, {given.threads} threads\n", flush=True)
    listed = commands(given, truth, prediction, folder)
    for name, command in listed.items():
        if name.startswith("harness"):  # compiles, and puts the reference on disk
            measured(command, folder / "log.txt")
    if given.predictions:
        several(given, truth, prediction, folder)
        return
    found = in_turns(listed, given.rounds, folder)
    print(f"\n{table(found)}")
    if given.peer:
        print(f"\n{ratios(found, peer_name(given))}")


def main() -> None:
    """Read the command line; work in a folder that is kept or not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=PROFILES, default="vcc2025")
    parser.add_argument("--peer", help="the peer's command, by its path")
    parser.add_argument("--size", choices=SIZES, default="M")
    parser.add_argument("--genes", type=int, help="so many instead of the size's own number")
    parser.add_argument("--form", choices=("sparse", "dense"), default="sparse")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--predictions", type=int, default=0)
    parser.add_argument("--anchors", action="store_true", help="vcc2026: the peer makes them, too")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-benchmark-") as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(given, folder)


if __name__ == "__main__":
    main()
