"""Measure by hand what the harness adds to a trial that is trivial, beside plain Ray and Ray Tune.

Run as ``python -m tests.benchmarks.overhead [TRIALS] [CONTENDER ...]``. Trials of `control-mean` on
a tiny screen, two CPUs, one process tree for each contender:

``writes``   plain Ray tasks that write the files of a trial, as durably, and nothing else
``science``  plain Ray tasks that fit, predict and score in memory, and then write the same files
``harness``  `harness run`
``tune``     Ray Tune with `reuse_actors`; its trials do what ``writes`` does

The first trials of each are not counted: they start workers, import and compile. Processor seconds
are of all its processes, Ray's own among them; on a machine with other work only they can be
compared. The overhead of the harness is what it takes beyond the science, ``science - writes``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from harness.analysis.results import write_scores
from harness.data.prediction_writer import held_controls
from harness.data.store import open_store
from harness.executors.threads import pinned
from harness.models import make_model, with_cells
from harness.runs.plan import plan_job
from harness.runs.progress import Silence
from harness.runs.runner import run_job
from harness.runs.trial import run_trial
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from harness.tasks import parse_split
from harness.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.executors import Outcome
    from harness.runs.request import TrialRequest

CPUS, WARM = 2, 20
JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
repeat: {trials}
models:
  - {{model: control-mean}}
"""
CLUSTER = f"{{kind: local, num_cpus: {CPUS}, object_store_memory: 100MiB}}"


class Mark(NamedTuple):
    """A moment, and the processor time that this process and its children have had by then."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Mark:
        """Return this moment."""
        me, total = psutil.Process(), 0.0
        for process in [me, *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return cls(time.perf_counter(), total)


class Counted(Silence):
    """Marks the end of the warm-up and of the last trial."""

    def __init__(self, trials: int) -> None:
        self.trials, self.ended, self.marks = trials, 0, [Mark.now()]

    def count(self) -> None:
        """Count one trial."""
        self.ended += 1
        if self.ended in {WARM, self.trials}:
            self.marks.append(Mark.now())

    def finished(self, request: TrialRequest, outcome: Outcome) -> None:
        """Count a trial of ours."""
        assert not outcome.failed, outcome.error
        self.count()

    @property
    def per_trial(self) -> tuple[float, float]:
        """Wall and processor seconds of each trial after the warm-up."""
        (wall, cpu), (wall_end, cpu_end) = self.marks[-2:]
        n = self.trials - WARM
        return (wall_end - wall) / n, (cpu_end - cpu) / n


# --- what a trial writes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Files:
    """The content of every file that a trial writes, by its path in the trial's folder."""

    small: dict[str, bytes]
    profiles: dict[str, bytes]
    scores: bytes


def files_of_a_trial(request: TrialRequest) -> Files:
    """Carry out a trial, and return what it wrote."""
    run_trial(request)
    folder = Path(request.run, "trials", request.spec.id)
    small = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    scores = Path(request.run, "results", f"{request.spec.id}.parquet").read_bytes()
    return Files(small, contents(folder / "profiles.zarr"), scores)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def write_files(files: Files, run: str, name: str) -> None:
    """Write what a trial writes, in its order and as durably."""
    folder = Path(run, "trials", name)
    whole(folder / "spec.json", files.small["spec.json"])
    (folder / "log.txt").write_bytes(files.small["log.txt"])
    scratch = folder / "scratch"
    scratch.mkdir()
    for _stage in ("begin", "fit", "predict", "score"):
        whole(folder / "attempt.json", files.small["attempt.json"], durable=False)
    whole(Path(run, "results", f"{name}.parquet"), files.scores)
    write_store(folder / "profiles.zarr", files.profiles)
    scratch.rmdir()
    whole(folder / "manifest.json", files.small["manifest.json"])


def whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file whole: flushed, renamed, its folder flushed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    scratch.rename(path)
    if durable:
        sync(path.parent)


def write_store(folder: Path, files: dict[str, bytes]) -> None:
    """Write a Zarr store beside its name, each file flushed, then rename it."""
    beside = folder.with_name(f".{folder.name}.partial")
    for name, content in files.items():
        file = beside / "store" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    (beside / "store").rename(folder)
    sync(folder.parent)
    shutil.rmtree(beside)


def sync(folder: Path) -> None:
    """Flush a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


# --- what a trial computes ----------------------------------------------------------------------


class InMemory:
    """Predicted cells and controls as one matrix; implements `harness.data.cells.Cells`."""

    scale = "log1p"

    def __init__(self, matrix: np.ndarray, labels: list[str], context: str, task: Any) -> None:
        self.matrix, self.genes = matrix, task.store.genes
        self.control_label = task.store.control_label
        self.perturbations = np.array(labels)
        self.contexts = np.full(len(labels), context)
        self.n_cells = len(labels)
        self.fingerprint = None

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return some genes of all cells."""
        return self.matrix[:, start:stop]


@cache
def prepared(request: TrialRequest) -> tuple[Any, Any, Any]:
    """Return what a process reads once: the task, the truth's part of the scores, the controls."""
    pinned(1).__enter__()  # for the rest of the process
    spec = request.spec
    split = parse_split(json.loads(spec.split_spec), spec.split)
    task = Task(open_store(request.store), split, spec.fold, controls=spec.controls)
    reading = ScoringOptions(scale="log1p", threads=1)
    truth = prepare(task.truth(spec.side), reading, suite=list(request.suites))
    return task, truth, held_controls(task.shown_controls(spec.side))


def compute(request: TrialRequest, seed: int) -> Any:
    """Fit, predict and score in memory, and return the score rows."""
    task, truth, controls = prepared(request)
    spec = request.spec
    model, view = make_model(spec.model, dict(spec.parameters), seed), task.train_view()
    queries = task.queries(spec.side)
    model.fit(view)
    answers = list(with_cells(model.predict(queries), view, spec.cells, seed))
    blocks = [controls.gene_block(0, len(view.genes)), *(answer.cells for answer in answers)]
    labels = list(controls.perturbations)
    for query in queries:
        labels += [query.perturbation] * query.n_cells
    cells = InMemory(np.concatenate(blocks), labels, queries[0].context, task)
    return score(truth, cells, suite=list(request.suites)).frame


# --- contenders ---------------------------------------------------------------------------------


def on_plain_ray(work: Callable[[int], None], trials: int) -> Counted:
    """Carry out tasks as the documentation of Ray advises: some in flight, in finish order."""
    import ray

    import harness.executors.ray  # noqa: F401 - sets what Ray reads

    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    task, counted, flying = ray.remote(work), Counted(trials), []
    for number in range(trials):
        flying.append(task.remote(number))
        while len(flying) >= 2 * CPUS or (number == trials - 1 and flying):
            [ready], flying = ray.wait(flying)
            ray.get(ready)
            counted.count()
    ray.shutdown()
    return counted


def writes(folder: Path, request: TrialRequest, files: Files, trials: int) -> Counted:
    """Write the same files in plain Ray tasks."""

    def work(number: int) -> None:
        write_files(files, str(folder / "writes"), f"{number:012}")

    return on_plain_ray(work, trials)


def science(folder: Path, request: TrialRequest, files: Files, trials: int) -> Counted:
    """Compute the same scores in plain Ray tasks, and write the same files."""

    def work(number: int) -> None:
        frame = compute(request, number)
        write_scores("memory://rows.parquet", frame.assign(trial=str(number)))  # encodes them
        write_files(files, str(folder / "science"), f"{number:012}")

    return on_plain_ray(work, trials)


def harness(folder: Path, request: TrialRequest, files: Files, trials: int) -> Counted:
    """Run the job."""
    counted = Counted(trials)
    run_job(str(folder / "job.yaml"), str(folder / "harness"), str(folder / "on.yaml"), counted)
    return counted


def tune(folder: Path, request: TrialRequest, files: Files, trials: int) -> Counted:
    """Write the same files as trials of Ray Tune, whose actors are used again."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune as ray_tune

    def trainable(config: dict[str, Any]) -> dict[str, Any]:
        write_files(files, str(folder / "tune"), f"{config['number']:012}")
        return {"done": 1}

    counted = Counted(trials)

    class Count(ray_tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            counted.count()

    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    space = {"number": ray_tune.grid_search(list(range(trials)))}
    config = ray_tune.TuneConfig(reuse_actors=True)
    where = ray_tune.RunConfig(storage_path=str(folder / "results"), verbose=0, callbacks=[Count()])
    ray_tune.Tuner(trainable, param_space=space, tune_config=config, run_config=where).fit()
    ray.shutdown()
    return counted


CONTENDERS = {each.__name__: each for each in (writes, science, harness, tune)}


def measure(name: str, folder: Path, request: TrialRequest, files: Files, trials: int) -> None:
    """Let one contender run, and write down what each trial took."""
    found = CONTENDERS[name](folder, request, files, trials).per_trial
    (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


def prepared_job(folder: Path, trials: int) -> tuple[TrialRequest, Files]:
    """Write the job, and find out what its trials write."""
    (folder / "job.yaml").write_text(JOB.format(trials=trials), encoding="utf-8")
    (folder / "on.yaml").write_text(CLUSTER, encoding="utf-8")
    plan = plan_job(str(folder / "job.yaml"), str(folder / "template"))
    request = plan.request(plan.trials[0])
    return request, files_of_a_trial(request)


def report(found: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Yield the lines of the table, and the ratios that are aimed at."""
    yield "| per trial | wall ms | processor ms |\n|---|---:|---:|"
    for name, (wall, cpu) in found.items():
        yield f"| {name} | {1000 * wall:.1f} | {1000 * cpu:.1f} |"
    if {"writes", "science", "harness"} <= found.keys():
        for place, what in enumerate(("wall", "processor")):
            plain = found["writes"][place]
            ours = found["harness"][place] - found["science"][place] + plain
            yield f"overhead, {what}: {1000 * ours:.1f} ms, {ours / plain:.2f} times plain tasks"


def main() -> None:
    """Measure the contenders, one after the other."""
    os.environ["RAY_AUTH_MODE"] = "disabled"  # or Ray leaves a token in the home folder
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    chosen = sys.argv[2:] or list(CONTENDERS)
    found = {}
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        folder = Path(scratch)
        request, files = prepared_job(folder, trials)
        for name in chosen:
            arguments = (name, folder, request, files, trials)
            process = multiprocessing.get_context("spawn").Process(target=measure, args=arguments)
            process.start()
            process.join()
            found[name] = tuple(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    print("\n".join(report(found)))


if __name__ == "__main__":
    # By its name: the workers of Ray have another main module.
    from tests.benchmarks import overhead

    overhead.main()
