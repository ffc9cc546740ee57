"""A sweep on a cluster of three nodes, in a storm; and the same sweep inline, in peace.

Run by hand, which takes some minutes::

    python -m tests.chaos.storm FOLDER --trials 120 --kills 8 --gpus --watched

Everything is on this machine: `ray.cluster_utils.Cluster` starts three nodes, whose GPUs are
pretended. While the sweep runs, workers are killed at moments drawn from a seed, one node is
removed without warning and another one added. Five of the trials end badly by themselves
(`bad_models`). FOLDER then has both runs, ``calm`` and ``storm``, and ``storm.json``, what was done
to the second; `check` compares.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import yaml

from harness.analysis.results import Results
from harness.runs.folder import RunFolder
from harness.runs.status import read_ledger
from tests.chaos.bad_models import MONITORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.cluster_utils import Cluster

CAUSES = {
    "storm-raises": "raised",
    "storm-dies": "lost",
    "storm-hogs": "memory",
    "storm-hangs": "stalled",
    "storm-naps": "time",
}
"""How the trial of each bad model has to end."""

RETRIES = 4
"""How often a lost worker's trial is tried again."""

ROOM = 3 << 29
"""How much more of the machine's memory may be in use before a watched node kills."""

JOB: dict[str, Any] = {
    "dataset": "sim:tiny?contexts=2&genes=80",
    "split": "unseen-perturbation",
    "folds": [0],
    "score": {"suite": "vcc2025", "baseline": "control-mean"},
}
GOOD: list[dict[str, Any]] = [
    {"model": "control-mean"},
    {"model": "perturbation-mean"},
    {"model": "random-pair"},
    {"model": "linear", "rank": [2, 4, 8], "ridge": [0.01, 1.0]},
]
SETTINGS = 9  # of good models

# A lost node is noticed within some seconds. Ray reads these when it is imported.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_memory_monitor_refresh_ms": "0",
}


@dataclass(slots=True)
class Account:
    """What was done to the sweep, and how long it took."""

    trials: int
    killed: list[str] = field(default_factory=list)
    node_removed_with: list[str] = field(default_factory=list)
    node_added_after: int = 0
    status: int | None = None
    seconds: float = 0.0


def write_jobs(folder: Path, args: argparse.Namespace) -> None:
    """Write both jobs, and a package that offers the bad models."""
    calm = {
        **JOB,
        "repeat": max(1, (args.trials - len(CAUSES)) // SETTINGS),
        "models": GOOD,
        "resources": {"fit": {"cpus": 1}, "score": {"cpus": 1, "gpus": 0.5 * args.gpus}},
        "limits": {"seconds": args.patience + 15, "stall_seconds": args.patience},
    }
    bad = [{"model": name, "repeat": 1} for name in CAUSES]
    storm = {**calm, "models": [*bad, *GOOD]}
    for name, job in (("calm", calm), ("storm", storm)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    package = folder / "packages" / "storm-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: storm\nVersion: 1.0\n")
    classes = [f"{name} = bad_models:{name.partition('-')[2].title()}\n" for name in CAUSES]
    (package / "entry_points.txt").write_text("[harness.models]\n" + "".join(classes))
    source = Path(__file__).with_name("bad_models.py").read_text(encoding="utf-8")
    (folder / "packages" / "bad_models.py").write_text(source, encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """Return what the drivers and all of Ray's processes run in."""
    found = find_spec("harness")
    assert found is not None
    assert found.origin is not None
    ours = [str(folder / "packages"), str(Path(found.origin).parents[1])]
    cache = os.environ.get("HARNESS_CACHE", str(folder / "cache"))
    return {"PYTHONPATH": os.pathsep.join(ours), "HARNESS_CACHE": cache, **ENVIRONMENT}


def drive(folder: Path, name: str, on: str) -> subprocess.Popen[bytes]:
    """Start the driver of a job, as anyone would."""
    command = [sys.executable, "-m", "harness", "run", f"{name}.yaml", "-o", name, "--on", on]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def busy_workers(cluster: Cluster) -> Iterator[tuple[str, psutil.Process, int]]:
    """Yield each trial that runs, its process, and that of its raylet."""
    for node in cluster.list_all_nodes():
        [raylet] = node.all_processes["raylet"]
        pid = int(raylet.process.pid)
        for process in psutil.Process(pid).children(recursive=True):
            try:
                title = process.cmdline()[0]
            except (psutil.Error, IndexError):
                continue
            if title.startswith("ray::") and len(title) == len("ray::") + 12:
                yield title.removeprefix("ray::"), process, pid


class Storm:
    """What happens to a sweep from outside."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.run = folder, folder / "storm"
        self.rng = random.Random(args.seed)
        self.account = Account(args.trials)
        n_good = SETTINGS * max(1, (args.trials - len(CAUSES)) // SETTINGS)
        self.kills = sorted(self.rng.sample(range(1, n_good - 2), args.kills))
        self.removal, self.addition = n_good // 4, n_good // 2
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "memory": 256 << 20, "include_dashboard": False},
        )
        self.cluster.add_node(num_cpus=2, num_gpus=1, memory=256 << 20)
        # The one that has memory for what was refused it elsewhere; one call at a time, since Ray
        # kills the youngest on a node.
        given = watch() if args.watched else {}
        self.large = self.cluster.add_node(num_cpus=1, num_gpus=1, memory=2 << 30, env_vars=given)

    def rage(self, driver: subprocess.Popen[bytes]) -> None:
        """Do it all, until the driver ends."""
        began, removed, added = time.monotonic(), False, False
        while driver.poll() is None:
            time.sleep(0.05)
            n_done = len(list(self.run.glob("trials/*/manifest.json")))
            if self.kills and n_done >= self.kills[0] and self.kill():
                self.kills.pop(0)
            if not removed and n_done >= self.removal and self.memory_ended():
                removed = True
                self.remove()
            if removed and not added and n_done >= self.addition:
                added = True
                self.cluster.add_node(num_cpus=2, num_gpus=1, memory=256 << 20)
                self.account.node_added_after = n_done
        self.account.status = driver.returncode
        self.account.seconds = round(time.monotonic() - began, 1)

    def kill(self) -> bool:
        """Kill the worker of a good trial, if any runs now; not of one that has to end badly."""
        bad = self.bad()
        busy = list(busy_workers(self.cluster))
        good = [(trial, process) for trial, process, _ in busy if trial not in bad]
        if not good:
            return False
        trial, process = self.rng.choice(good)
        process.kill()
        self.account.killed.append(trial)
        return True

    def remove(self) -> None:
        """Take a node away without a word, and whatever runs on it."""
        [raylet] = self.large.all_processes["raylet"]
        self.account.node_removed_with = [
            trial for trial, _, pid in busy_workers(self.cluster) if pid == raylet.process.pid
        ]
        self.cluster.remove_node(self.large, allow_graceful=False)

    def memory_ended(self) -> bool:
        """Whether the trial that takes too much memory was given up: it needs the large node."""
        standings = RunFolder(str(self.run)).standings(sorted(self.bad()))
        return any(said.get("cause") == "memory" for _, said in standings.values())

    def bad(self) -> set[str]:
        """Return the ids of the trials that end badly by themselves."""
        planned = json.loads((self.run / "run.json").read_text(encoding="utf-8"))["trials"]
        return {trial for trial, spec in planned.items() if spec["model"] in CAUSES}


def watch() -> dict[str, str]:
    """Return what makes a node kill for memory: once there is less by `ROOM` than there is now."""
    memory = psutil.virtual_memory()
    share = (memory.total - memory.available + ROOM) / memory.total
    settings = {"memory_usage_threshold": f"{share:.3f}", "memory_monitor_refresh_ms": "100"}
    return {MONITORED: "1", **{f"RAY_{name}": value for name, value in settings.items()}}


def scores(run: Path) -> list[str]:
    """Return every score of a run, in an order that depends on nothing else."""
    columns = ["trial", "metric", "context", "perturbation", "value", "reason"]
    rows = Results(str(run)).scores.astype({"value": object})
    return sorted(map(repr, rows[columns].itertuples(index=False, name=None)))


def comparison(run: Path) -> pd.DataFrame:
    """Return the table of a run as it was written, without bad models and what trials cost."""
    table = pd.read_csv(run / "tables" / "comparison.csv", dtype=str)
    costs = [name for name in table if re.search("seconds|memory|cost", name)]
    good = table[~table["model"].isin(CAUSES)]
    return good.drop(columns=costs).reset_index(drop=True)


def check(folder: Path) -> dict[str, tuple[str, int]]:
    """Compare both runs; return how the bad trials ended: cause and attempts, by model."""
    ledger = read_ledger(str(folder / "storm"))
    assert ledger.counts["done"] == len(ledger.entries) - len(CAUSES), ledger.counts
    assert ledger.counts["failed"] == len(CAUSES), ledger.counts
    assert scores(folder / "storm") == scores(folder / "calm")
    pd.testing.assert_frame_equal(comparison(folder / "storm"), comparison(folder / "calm"))
    return {
        entry.model: (entry.said["cause"], entry.said["attempts"])
        for entry in ledger.in_state("failed")
    }


def main() -> None:
    """Run the sweep twice, and write down what was done to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--patience", type=int, default=60, help="seconds without a sign of life")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gpus", action="store_true", help="score on half a GPU, in pretence")
    parser.add_argument("--watched", action="store_true", help="let Ray kill for memory, too")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_jobs(folder, args)
    os.environ.update(environment(folder))
    assert drive(folder, "calm", "inline").wait() == 0, (folder / "calm.log").read_text()
    storm = Storm(folder, args)
    try:
        where = {"kind": "ray", "address": storm.cluster.address, "retries": RETRIES}
        (folder / "cluster.yaml").write_text(yaml.safe_dump(where), encoding="utf-8")
        driver = drive(folder, "storm", "cluster.yaml")
        try:
            storm.rage(driver)
        finally:
            driver.kill()
    finally:
        storm.cluster.shutdown()
        (folder / "storm.json").write_text(json.dumps(asdict(storm.account)), encoding="utf-8")
    print(json.dumps(asdict(storm.account)))  # noqa: T201 - for whoever runs it by hand
    print(json.dumps(check(folder)))  # noqa: T201


if __name__ == "__main__":
    main()
