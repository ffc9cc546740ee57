"""Measure by hand how long results of 10,000 trials take to open and to reduce to a table.

Run as ``python -m tests.benchmarks.tables [FOLDER] [METRICS] [SHAPE ...]``: writes 10,000 trials ×
100 perturbations × 30 metrics (kept in FOLDER for the next time, 400 MB), then times each step in
a process of its own, so that the peak of its memory is its own. ``seeds``: 200 settings × 50 seeds;
``settings``: 10,000 settings of one seed each, the most that a bootstrap can be asked for.
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
import pyarrow as pa
import pyarrow.parquet as pq

from harness.analysis.results import SCHEMA, Results
from harness.analysis.tables import compare, per_pair, tables_of
from harness.jobs.trial_spec import TrialSpec
from harness.metrics import register, registered

if TYPE_CHECKING:
    from collections.abc import Iterator

N_TRIALS, N_PAIRS, N_METRICS = 10_000, 100, 30
REAL = ("mae", "overlap_at_N", "discrimination_score_l1")
SHAPES = {"seeds": 50, "settings": 1}
"""How many seeds each setting has."""


def metrics(n: int) -> tuple[str, ...]:
    """Return so many names of metrics, three of which exist."""
    return (*REAL, *(f"made-up-{number}" for number in range(n - len(REAL))))


def write_run(folder: Path, n_seeds: int, n_metrics: int) -> None:
    """Write a run's files as trials do, but without waiting for the disk; what is there stays."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "suite": "vcc2025",
            "metric": np.repeat(metrics(n_metrics), N_PAIRS),
            "version": 1,
            "context": np.tile(["A549", "K562"], N_PAIRS * n_metrics // 2),
            "perturbation": np.tile([f"GENE{n}" for n in range(N_PAIRS)], n_metrics),
            "reason": "",
        }
    )
    table = pa.Table.from_pandas(frame.assign(value=0.0), preserve_index=False)
    table, names = table.replace_schema_metadata(None), table.column_names
    (folder / "results").mkdir(parents=True, exist_ok=True)
    base = TrialSpec("toy", 1, "f", "s", "{}", 0, "linear", (), None, 0, "divided")
    for number in range(N_TRIALS):
        setting, seed = divmod(number, n_seeds)
        spec = replace(base, parameters=(("rank", setting),), seed=seed)
        path = folder / "trials" / spec.id
        if (path / "manifest.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        (path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
        rows = table.set_column(names.index("value"), "value", pa.array(rng.random(len(frame))))
        trial = pa.DictionaryArray.from_arrays(np.zeros(len(frame), "i4"), [spec.id])
        rows = rows.append_column("trial", trial).select(SCHEMA.names).cast(SCHEMA)
        pq.write_table(rows, folder / "results" / f"{spec.id}.parquet", compression="zstd")
        manifest = {"ceiling": False, "seconds": {"fit": 1.0, "score": 2.0}}
        (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print how long the block took, by the clock and of processors, and the peak of memory."""
    start, cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"  {name:<12} {seconds:6.1f} s, {cpu:.1f} of the processor; peak {peak:.2f} GiB",
        flush=True,
    )


def measure(folder: Path, n_metrics: int) -> None:
    """Open a run and reduce it."""
    for name in metrics(n_metrics)[len(REAL) :]:
        register(replace(registered()["mae"], name=name))
    with timed("trials"):
        results = Results(folder)
    with timed("scores"):
        print(f"  {len(results.rows):,} scores")
    with timed("compare"):
        table = compare(results, baseline="linear rank=0")
    with timed("markdown"):
        table.to_markdown()
    with timed("latex"):
        table.to_latex()
    with timed("per pair"):
        per_pair(results)
    for kind in ("ranks", "pairs", "sweep", "cost"):
        with timed(kind):
            tables_of(results, kind)
    with timed("cube"):
        results.to_xarray()


def main() -> None:
    """Write both runs and measure them."""
    home = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    n_metrics = int(sys.argv[2]) if len(sys.argv) > 2 else N_METRICS
    for name in sys.argv[3:] or SHAPES:
        folder, n_seeds = home / f"{name}-{n_metrics}", SHAPES[name]
        write_run(folder, n_seeds, n_metrics)
        print(f"{name}: {N_TRIALS // n_seeds:,} settings of {n_seeds} seeds, in {folder}")
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(folder, n_metrics)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
