"""One trial from specification to scores, in the process that calls.

Open the screen, divide it, fit the model to what it may see, let it answer every query, score the
answers against the held-out cells, write the scores, say so. Everything is written under the run
folder and the manifest goes last, so that an attempt which dies anywhere leaves nothing that could
be taken for a result.
"""

from __future__ import annotations

import json
import logging
import platform
import tempfile
import traceback
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__, paths
from harness.data_factors import DataFactors
from harness.errors import DataError, StoppedError
from harness.given import score_given
from harness.identity import content_digest
from harness.models import make_model, notes, registered, with_cells
from harness.predictions import PredictionWriter, open_predictions, with_controls, write_profiles
from harness.pulse import Pulse, Stopwatch, peak_memory
from harness.results import write_scores
from harness.runs import RunFolder
from harness.score import PreparedTruth, Reading, prepare, score
from harness.splits import parse_split
from harness.store import open_store
from harness.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pandas as pd

    from harness.models import Model
    from harness.scores import Scores
    from harness.specs import TrialSpec
    from harness.tasks import Query, TrainView

    Report = Callable[[int, pd.DataFrame], bool]

_TRUTH: dict[str, Any] = {}
"""The last truth that this process scored against: at most one, since each can be large."""

SCRATCH = "scratch"
"""The folder in a trial's own for what is deleted after scoring."""

log = logging.getLogger("harness.trial")


@dataclass(frozen=True, slots=True)
class Errand:
    """A trial, and what a worker needs besides to carry it out.

    Attributes
    ----------
    spec
        What is computed.
    run
        The run folder, as a path that the worker can reach.
    store
        The screen, likewise.
    suites
        What to score by.
    keep
        What stays in the trial's folder after scoring.
    threads
        How many threads scoring may use.
    given
        The file of a prediction that was made elsewhere; `store` may then be a file, too.
    """

    spec: TrialSpec
    run: str
    store: str
    suites: tuple[str, ...] = ("vcc2025",)
    keep: tuple[str, ...] = ("scores", "profiles")
    threads: int = 1
    memory: str = "1GiB"
    given: str = ""


def run_trial(errand: Errand, report: Report | None = None) -> dict[str, Any]:
    """Carry out a trial, and return its manifest; what it found is in the run folder.

    A trial whose predictions were kept is scored again, not fitted again. An exception leaves
    ``failure.json`` beside the log, and goes on to the caller.

    Parameters
    ----------
    errand
        The trial, and what is needed for it.
    report
        Told, for a model that ``reports``, how well it does at each step; answers whether to go on.

    Raises
    ------
    StoppedError
        `report` said no.
    """
    run, trial = RunFolder(errand.run), errand.spec.id
    paths.remove(run.of_trial(trial, "manifest.json"))
    paths.write_atomic(run.of_trial(trial, "spec.json"), errand.spec.to_json())
    with _recorded(run.log(trial)) as show, Pulse(run, trial, show) as pulse:
        log.info("%s: begins on %s", errand.spec, platform.node())
        try:
            if errand.given:
                manifest = _score_given(errand, run, pulse)
            else:
                manifest = _carry_out(errand, _Ways(errand, run, report), pulse)
        except (Exception, SystemExit) as error:
            log.exception("failed")
            cause = "stopped" if isinstance(error, StoppedError) else "raised"
            said = f"{type(error).__name__}: {error}"
            record_failure(errand, said, traceback.format_exc(), cause=cause)
            raise
    run.write_manifest(trial, manifest)
    return manifest


def record_failure(
    errand: Errand, error: str, trace: str, *, cause: str = "raised", attempts: int = 1
) -> None:
    """Write down how an attempt failed; also for a worker that could not do so itself."""
    run = RunFolder(errand.run)
    failure = {
        "trial": errand.spec.id,
        "cause": cause,
        "error": error,
        "traceback": trace,
        "attempts": attempts,
        "host": platform.node(),
        "log": run.log(errand.spec.id),
    }
    run.write_failure(errand.spec.id, failure)


def _carry_out(errand: Errand, ways: _Ways, pulse: Pulse) -> dict[str, Any]:
    """Fit, predict, score and keep; return the manifest."""
    trial, run = errand.spec.id, ways.run
    kept = run.of_trial(trial, "predictions.zarr")
    paths.remove(run.of_trial(trial, SCRATCH))
    watch = Stopwatch(pulse)
    with _scratch(run.of_trial(trial, SCRATCH)) as scratch:
        notes: tuple[str, ...] = ()
        predicted = kept
        if not paths.is_published(kept, "zarr.json"):
            predicted = paths.join(scratch, "predictions.zarr")
            notes = ways.predict(predicted, scratch, watch)
        with watch.stage("score"):
            scores = ways.score(predicted)
        write_scores(run.results(trial), scores.frame.assign(trial=trial))
        if predicted != kept:
            ways.keep(scratch)
    return _manifest(errand, scores.frame, watch.seconds, notes, ceiling=ways.ceiling)


def _score_given(errand: Errand, run: RunFolder, pulse: Pulse) -> dict[str, Any]:
    """Score a prediction that was made elsewhere; return the manifest."""
    watch = Stopwatch(pulse)
    options = {"threads": errand.threads, "memory": errand.memory, "reference": run.reference}
    with watch.stage("score"):
        found = score_given(errand.spec, errand.store, errand.given, errand.suites, **options)
    write_scores(run.results(errand.spec.id), found.frame.assign(trial=errand.spec.id))
    return _manifest(errand, found.frame, watch.seconds, (), ceiling=False)


class _Ways:
    """How one trial goes from a screen to scores; holds what its stages share."""

    def __init__(self, errand: Errand, run: RunFolder, report: Report | None = None) -> None:
        self.errand, self.run, self.spec = errand, run, errand.spec
        self.report = report
        self.ceiling = registered()[self.spec.model].ceiling
        store = open_store(errand.store)
        if store.fingerprint != self.spec.fingerprint:
            raise DataError(
                f"{errand.store} has other content than when the job was planned: found "
                f"fingerprint {store.fingerprint}, expected {self.spec.fingerprint}. Run again."
            )
        self.task = Task(
            store,
            parse_split(json.loads(self.spec.split_spec), self.spec.split),
            self.spec.fold,
            controls=self.spec.controls,
            cache=run.reference,
            data=DataFactors.of(self.spec.data, self.spec.seed),
        )

    def predict(self, path: str, scratch: str, watch: Stopwatch) -> tuple[str, ...]:
        """Fit the model, write its predictions and profiles, and return its notes."""
        task, spec = self.task, self.spec
        self._check_inputs()
        model = make_model(spec.model, dict(spec.parameters), spec.seed)
        queries = task.queries(spec.side, half=self.ceiling)
        view = task.replicate_view(spec.side) if self.ceiling else task.train_view()
        if getattr(model, "reports", False):
            judged = paths.join(scratch, "judged.zarr")
            setattr(model, "report_", partial(self._judge, model, queries, view, judged))  # noqa: B010 - a model need not have it
        with watch.stage("fit"):
            model.fit(view)
        kept = "predictions" in self.errand.keep
        writer = PredictionWriter(
            path,
            queries,
            genes=view.genes,
            control_label=task.store.control_label,
            controls=task.shown_controls(spec.side) if kept else None,
            model=spec.model,
            compression="zstd" if kept else "none",
        )
        with watch.stage("predict"):
            self._answer(model, queries, view, writer)
        self._write_profiles(paths.join(scratch, "profiles.zarr"), queries, writer.profiles, view)
        return notes(model)

    def _check_inputs(self) -> None:
        """Raise where a file that the model reads is not what it was when the job was planned."""
        for name, digest in self.spec.inputs:
            path = str(dict(self.spec.parameters)[name])
            if content_digest(path) != digest:
                raise DataError(
                    f"{path} has other content than when the job was planned. Found it changed, "
                    f"expected what {name} names to stay as it is until the run is over. Run again."
                )

    def _answer(
        self, model: Model, queries: Sequence[Query], view: TrainView, writer: PredictionWriter
    ) -> None:
        answers = model.predict(queries)
        if self.spec.cells is not None:
            answers = with_cells(answers, view, self.spec.cells, self.spec.seed)
        with writer:
            for prediction in answers:
                writer.add(prediction)
            writer.finish()

    def _judge(
        self, model: Model, queries: Sequence[Query], view: TrainView, path: str, step: int
    ) -> None:
        """Score what a model answers in the middle of its fit, and end it if it is to stop."""
        if self.report is None:
            return
        label = self.task.store.control_label
        paths.remove(path)
        writer = PredictionWriter(path, queries, genes=view.genes, control_label=label)
        self._answer(model, queries, view, writer)
        if not self.report(step, self.score(path).frame):
            raise StoppedError(f"stopped after step {step}: others did better by then")

    def _write_profiles(
        self, path: str, queries: Sequence[Query], profiles: np.ndarray, view: TrainView
    ) -> None:
        if "profiles" not in self.errand.keep:
            return
        contexts = dict.fromkeys(query.context for query in queries)
        write_profiles(
            path,
            queries,
            profiles,
            genes=view.genes,
            control_label=self.task.store.control_label,
            controls={context: view.control_pseudobulk(context) for context in contexts},
        )

    def score(self, path: str) -> Scores:
        """Score the predictions at `path` against the held-out cells."""
        kept = path == self.run.of_trial(self.spec.id, "predictions.zarr")
        own = kept or "predictions" in self.errand.keep
        controls = None if own else self.task.shown_controls(self.spec.side)
        return score(
            self._truth(),
            open_predictions(path) if controls is None else with_controls(path, controls),
            suite=list(self.errand.suites),
        )

    def _truth(self) -> PreparedTruth:
        """Return the truth's part of the scores; trials of one fold in one process share it."""
        spec, errand = self.spec, self.errand
        place = (spec.fingerprint, spec.split_spec, spec.fold, spec.side)
        key = (*place, spec.controls, self.ceiling, errand.suites)
        if _TRUTH.get("key") != key:
            reading = Reading(scale="log1p", threads=errand.threads, memory=errand.memory)
            prepared = prepare(
                self.task.truth(spec.side, half=self.ceiling),
                reading,
                suite=list(errand.suites),
                reference=self.run.reference,
            )
            _TRUTH.update(key=key, truth=prepared)
        truth: PreparedTruth = _TRUTH["truth"]
        return truth

    def keep(self, scratch: str) -> None:
        """Move what the job keeps from the scratch folder to the trial's."""
        for what in ("profiles", "predictions"):
            name = f"{what}.zarr"
            final = self.run.of_trial(self.spec.id, name)
            paths.remove(final)
            if what in self.errand.keep:
                paths.publish(paths.join(scratch, name), final, last="zarr.json")


@contextmanager
def _scratch(beside: str) -> Iterator[str]:
    """Give a folder for what is deleted after scoring.

    It lies in the trial's own folder, not under the machine's temporary one, so that what a killed
    worker leaves behind is found and removed by the next attempt. A run on an object store has no
    such place.
    """
    if paths.is_remote(beside):
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            yield folder
        return
    Path(beside).mkdir(parents=True)
    try:
        yield beside
    finally:
        paths.remove(beside)


@contextmanager
def _recorded(path: str) -> Iterator[Callable[[], None]]:
    """Send what is printed and logged in the block to the trial's log, which ends up at `path`.

    The file is written as things happen where the run is local, so that a hanging trial can be
    watched. On an object store it is put there at the end, and by each call of what is yielded.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        local = Path(folder, "log.txt") if paths.is_remote(path) else Path(path)
        handler = logging.FileHandler(local, mode="w", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        level, root.level = root.level, logging.INFO
        root.addHandler(handler)

        def show() -> None:
            handler.flush()
            if paths.is_remote(path):
                paths.write_atomic(path, local.read_bytes())

        try:
            with redirect_stdout(handler.stream), redirect_stderr(handler.stream):
                yield show
        finally:
            root.removeHandler(handler)
            root.level = level
            try:
                show()
            finally:
                handler.close()


def _manifest(
    errand: Errand,
    frame: pd.DataFrame,
    seconds: dict[str, float],
    notes: tuple[str, ...],
    *,
    ceiling: bool,
) -> dict[str, Any]:
    """Return what a finished trial says of itself."""
    scored = frame[["suite", "metric", "version"]].drop_duplicates()
    return {
        "trial": errand.spec.id,
        "model": errand.spec.model,
        "ceiling": ceiling,
        "scored": {f"{s}:{m}": int(v) for s, m, v in scored.to_numpy().tolist()},
        "kept": sorted(errand.keep),
        "undefined": int(frame["value"].isna().sum()),
        "notes": list(notes),
        "seconds": seconds,
        "peak_memory": peak_memory(),
        "host": platform.node(),
        "harness": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
