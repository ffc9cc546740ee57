"""Measure by hand how long results of 10,000 trials take to open and to reduce to a table.

Run as ``python tests/benchmarks/tables.py [FOLDER]``: writes 10,000 trials × 100 perturbations × 10
metrics (kept in FOLDER for the next time, 160 MB), then times each step in a process of its own, so
that the peak of its memory is its own. ``seeds``: 200 settings × 50 seeds; ``settings``: 10,000
settings of one seed each, the most that a bootstrap can be asked for.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.metrics import register, registered
from harness.results import Results, write_scores
from harness.specs import TrialSpec
from harness.tables import compare, per_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

N_TRIALS, N_PAIRS, N_METRICS = 10_000, 100, 10
METRICS = ("mae", "overlap_at_N", "discrimination_score_l1")
METRICS += tuple(f"made-up-{n}" for n in range(N_METRICS - len(METRICS)))


def write_run(folder: Path, n_seeds: int) -> None:
    """Write a run as trials do; what is there already stays."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "suite": "vcc2025",
            "metric": np.repeat(METRICS, N_PAIRS),
            "version": 1,
            "context": np.tile(["A549", "K562"], N_PAIRS * N_METRICS // 2),
            "perturbation": np.tile([f"GENE{n}" for n in range(N_PAIRS)], N_METRICS),
            "reason": "",
        }
    )
    base = TrialSpec("toy", 1, "f", "s", "{}", 0, "linear", (), None, 0, "divided")
    for number in range(N_TRIALS):
        setting, seed = divmod(number, n_seeds)
        spec = replace(base, parameters=(("rank", setting),), seed=seed)
        path = folder / "trials" / spec.id
        if (path / "manifest.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        (path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
        rows = frame.assign(trial=spec.id, value=rng.random(len(frame)))
        write_scores(str(folder / "results" / f"{spec.id}.parquet"), rows)
        manifest = {"ceiling": False, "seconds": {"fit": 1.0, "score": 2.0}}
        (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print how long the block took, and the process's peak memory after it."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {name:<12} {seconds:6.1f} s   peak {peak:.2f} GiB")


def measure(folder: Path) -> None:
    """Open a run and reduce it."""
    for name in METRICS[3:]:
        register(replace(registered()["mae"], name=name))
    with timed("trials"):
        results = Results(folder)
    with timed("scores"):
        print(f"  {len(results.rows):,} scores")
    with timed("compare"):
        table = compare(results, baseline="linear rank=0")
    with timed("markdown"):
        table.to_markdown()
    with timed("per pair"):
        per_pair(results)
    with timed("cube"):
        results.to_xarray()


def main() -> None:
    """Write both runs and measure them."""
    home = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    for name, n_seeds in (("seeds", 50), ("settings", 1)):
        write_run(home / name, n_seeds)
        print(f"{name}: {N_TRIALS // n_seeds:,} settings of {n_seeds} seeds, in {home / name}")
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(home / name,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
