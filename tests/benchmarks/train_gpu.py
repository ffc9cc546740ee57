"""Train the set transformer on a GPU: cells per second, GPU busy share, its row in a table.

    python tests/benchmarks/train_gpu.py FOLDER --screen sim:h1 --epochs 3

The trial goes the same way as in any job; beside it, `nvidia-smi` says ten times a second how busy
the GPU is. Without a GPU it trains on the CPU and says so; a small screen shows that the script
works: ``--screen sim:tiny --epochs 2 --hidden 64 --depth 1 --set-size 32``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pandas as pd
import yaml

from harness.analysis.results import Results
from harness.runs.runner import run_job
from harness.runs.training_monitor import TrialSupervision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELDS = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


class Busy:
    """Asks the driver how busy the GPU is, in percent, while the block lasts."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._process: subprocess.Popen[str] | None = None

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self.samples.append((time.monotonic(), int(line)))

    def __enter__(self) -> Busy:
        if gpu_name():
            command = ["nvidia-smi", *FIELDS, "-lms", "100", "-i", "0"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, args=[self._process.stdout], daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def share(self, begun: float, ended: float) -> float:
        """Return the mean between two times."""
        return statistics.mean(value for at, value in self.samples if begun <= at <= ended)


def gpu_name() -> str:
    """Return the name of the first GPU, empty without one; does not start CUDA in this process."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", "0"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def note_epochs() -> list[float]:
    """Have the time noted at which each epoch ends."""
    ends: list[float] = []
    record = TrialSupervision.record

    def noting(self: TrialSupervision, curve: Sequence[Mapping[str, Any]]) -> None:
        record(self, curve)
        ends.append(time.monotonic())

    TrialSupervision.record = noting  # type: ignore[method-assign]
    return ends


def job(given: argparse.Namespace) -> dict[str, Any]:
    """Return the job: the network beside the mean that it has to beat."""
    network = {
        "model": "set-transformer",
        "epochs": given.epochs,
        "set_size": given.set_size,
        "batch_size": given.batch_size,
        "hidden": given.hidden,
        "depth": given.depth,
        "threads": given.threads,
    }
    gpu = {"cpus": 1, "gpus": 1 if gpu_name() else 0}
    return {
        "dataset": given.screen,
        "split": given.split,
        "folds": [0],
        "models": [{"model": "perturbation-mean"}, network],
        "score": {"suite": "cell-eval:anndata"},
        "resources": {"fit": gpu, "predict": gpu},
    }


def throughput(curve: pd.DataFrame) -> float:
    """Return cells per second after the first epoch, which pays for compiling and first reads."""
    if len(curve) < 2:
        return float(curve["cells"].iloc[-1] / curve["seconds"].iloc[-1])
    cells, seconds = curve["cells"].diff()[1:].sum(), curve["seconds"].diff()[1:].sum()
    return float(cells / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--screen", default="sim:h1")
    parser.add_argument("--split", default="unseen-perturbation")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--set-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "train.yaml"
    file.write_text(yaml.safe_dump(job(given)), encoding="utf-8")
    ends = note_epochs()
    with Busy() as busy:
        report = run_job(str(file), str(given.folder / "run"), "inline")
    if report.failures:
        raise SystemExit(report.failures[0][1].error)
    trial = next(t for t in report.plan.trials if t.model == "set-transformer")
    curve = pd.read_parquet(report.plan.run.of_trial(trial.id, "curve.parquet"))
    print(f"{gpu_name() or 'CPU, no GPU here'}; torch {version('torch')}; {given.screen}")
    print(f"{throughput(curve):,.0f} cells/s; {curve['cells'].iloc[-1]:,} cells seen")
    if busy.samples and len(ends) > 1:
        print(f"GPU busy {busy.share(ends[0], ends[-1]):.0f} % after the first epoch")
    rows = Results(report.plan.run.path).rows
    model = rows["trial"].map({found.id: found.model for found in report.plan.trials})
    means = (
        rows.groupby([model.rename("model"), "metric"], observed=True)["value"]
        .mean()
        .unstack("metric")
    )
    print(means.round(4).to_string())


if __name__ == "__main__":
    main()
