"""One trial from specification to scores, in the process that calls.

Open the screen, divide it, fit the model to what it may see, let it answer every query, score the
answers against the held-out cells, write the scores, say so. Everything is written under the run
folder and the manifest goes last, so that an attempt which dies anywhere leaves nothing that could
be taken for a result. A call may carry out some of the stages only; `stages` says what then lies
between them.
"""

from __future__ import annotations

import json
import logging
import platform
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis import write_scores
from harness.data import PredictionWriter, open_store, scratch_predictions, write_profiles
from harness.errors import DataError, StoppedError, StorageError
from harness.executors import STAGES
from harness.models import answers, code_of_model, notes, profiles_alone, with_cells
from harness.runs.folder import RunFolder
from harness.runs.given import score_given
from harness.runs.heartbeat import Heartbeat, StageTimer, total_cost
from harness.runs.judge import Judge
from harness.runs.log import recorded, scratch_folder
from harness.runs.provenance import VERSION
from harness.runs.request import Errand, record_failure
from harness.runs.stages import (
    MODEL,
    PREDICTIONS,
    PROFILES,
    StageFiles,
    code_of,
    load_model,
    save_model,
)
from harness.runs.training_monitor import CHECKPOINT, TrialSupervision
from harness.runs.trial_models import class_for, has_own_cells, is_ceiling, model_for
from harness.storage import content_digest, paths, store_here
from harness.tasks import DataFactors, Task, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd

    from harness.data import Answered, HeldPredictions, Store
    from harness.models import Model
    from harness.runs.heartbeat import Cost
    from harness.scoring import Scores
    from harness.tasks import Query, TrainView

    Predicted = str | HeldPredictions
    Report = Callable[[int, pd.DataFrame], bool]

SCRATCH = "scratch"
"""The folder in a trial's own for what is deleted after scoring."""

log = logging.getLogger("harness.trial")

_SCREEN: dict[tuple[object, ...], Store] = {}


def run_trial(errand: Errand, report: Report | None = None) -> dict[str, Any]:
    """Carry out a trial, and return its manifest; what it found is in the run folder.

    A trial whose predictions were kept is scored again, not fitted again. An exception leaves
    ``failure.json`` beside the log, and goes on to the caller. A call that ends before the scores
    returns what it took.

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
    earlier = run.manifest(trial) or {}
    paths.remove(run.of_trial(trial, "manifest.json"))
    paths.write_atomic(run.of_trial(trial, "spec.json"), errand.spec.to_json())
    goes_on, call = errand.stages[0] != STAGES[0], ", ".join(errand.stages)
    with (
        recorded(run.log(trial), goes_on=goes_on) as show,
        Heartbeat(run, trial, call, show) as heartbeat,
    ):
        log.info("%s: begins on %s", errand.spec, platform.node())
        try:
            if errand.given:
                said = _score_given(errand, run, heartbeat)
            else:
                said = _carry_out(errand, _Ways(errand, run, report), heartbeat, earlier)
        except (Exception, SystemExit) as error:
            log.exception("failed")
            with suppress(OSError):  # the error itself is what is to be told
                heartbeat.write()
            if not isinstance(error, StorageError | MemoryError):  # no mistake of the model
                paths.remove(run.of_trial(trial, "stages"))
            cause = "raised"
            if isinstance(error, StoppedError):  # it will not be gone on with
                cause = "stopped"
                paths.remove(run.of_trial(trial, CHECKPOINT))
            found = f"{type(error).__name__}: {error}"
            record_failure(errand, found, traceback.format_exc(), cause=cause)
            raise
    if "scored" in said:
        run.write_manifest(trial, {**said, "attempts": heartbeat.attempts})
    return said


def _carry_out(
    errand: Errand, ways: _Ways, heartbeat: Heartbeat, earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """Fit, predict, score and keep; return the manifest, or what it took where that is not all."""
    trial, run = errand.spec.id, ways.run
    kept = run.of_trial(trial, PREDICTIONS)
    predicted: Predicted = ""
    watch = StageTimer(heartbeat, errand.gpus)
    with scratch_folder(run.of_trial(trial, SCRATCH)) as scratch:
        if paths.is_published(kept, "zarr.json"):
            predicted, said = kept, tuple(earlier.get("notes", ()))
            costs: dict[str, Cost] = dict(earlier.get("stages", {}))
            code = earlier.get("code", {})
        else:
            predicted, said = ways.predicted(scratch, watch)
            costs, code = ways.between.costs, ways.code
        if "score" not in errand.stages:
            return {"trial": trial, "stages": watch.costs}
        with watch.stage("score"):
            scores = ways.score(predicted)
        write_scores(run.results(trial), scores.frame.assign(trial=trial))
        if predicted != kept:
            ways.keep(scratch)
    ways.between.forget()
    if ways.trains and "checkpoints" not in errand.keep:
        paths.remove(run.of_trial(trial, CHECKPOINT))
    made = _manifest(errand, scores, costs | watch.costs, said, ceiling=ways.ceiling)
    return {**made, "code": code}


def _score_given(errand: Errand, run: RunFolder, heartbeat: Heartbeat) -> dict[str, Any]:
    """Score a prediction that was made elsewhere; return the manifest."""
    watch = StageTimer(heartbeat, errand.gpus)
    options = {"threads": errand.threads, "memory": errand.memory, "reference": run.reference}
    with watch.stage("score"):
        found = score_given(errand.spec, errand.store, errand.given, errand.suites, **options)
    write_scores(run.results(errand.spec.id), found.frame.assign(trial=errand.spec.id))
    return _manifest(errand, found, watch.costs, (), ceiling=False)


class _Ways:
    """How one trial goes from a screen to scores; holds what its stages share."""

    def __init__(self, errand: Errand, run: RunFolder, report: Report | None = None) -> None:
        self.errand, self.run, self.spec = errand, run, errand.spec
        self.report = report
        self.ceiling = is_ceiling(self.spec)
        self._profiles: Callable[[str], None] | None = None
        model = class_for(self.spec, errand.command)
        self.code = code_of_model(self.spec.model, errand.command)
        self.trains = bool(getattr(model, "trains", False))
        self.between = StageFiles(run, self.spec.id, code_of(model))
        store = _opened(store_here(errand.store))
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

    def predicted(self, scratch: str, watch: StageTimer) -> tuple[Predicted, tuple[str, ...]]:
        """Do what is asked for of fitting and predicting, and return the predictions and notes.

        Nothing is returned where predictions are left to another call.
        """
        between, stages = self.between, self.errand.stages
        if "predict" in between.records:
            return between.path(PREDICTIONS), between.notes
        # A call that scores predicts, too, where what another left is gone: its worker was lost
        # after it had tidied up, and before it could say that it was done.
        predicts = "predict" in stages or "score" in stages
        if not predicts and "fit" in between.records:
            return "", ()
        self._check_inputs()
        view = self.task.replicate_view(self.spec.side) if self.ceiling else self.task.train_view()
        queries = self.task.queries(self.spec.side, half=self.ceiling)
        model = self._fitted(queries, view, scratch, watch)
        if not predicts:
            local = paths.join(scratch, MODEL)
            save_model(model, local)
            between.leave(local, MODEL)
            between.finish("fit", watch.costs["fit"])
            return "", ()
        predicted = self.predict(model, queries, view, scratch, watch)
        said = notes(model)
        if "score" not in stages:
            self._leave(scratch)
            between.finish("predict", watch.costs["predict"], notes=said)
        return predicted, said

    def _fitted(
        self, queries: Sequence[Query], view: TrainView, scratch: str, watch: StageTimer
    ) -> Model:
        """Return the model as an earlier call fitted it, or fit it now."""
        errand = self.errand
        model = model_for(self.spec, errand.command, scratch, errand.threads)
        if "fit" in self.between.records:
            with self.between.fetched(MODEL) as folder:
                return load_model(model, folder, view)
        if getattr(model, "reports", False):
            judged = paths.join(scratch, "judged.zarr")
            setattr(model, "report_", partial(self._judge, model, queries, view, judged))  # noqa: B010 - a model need not have it
        if self.trains:
            offered = TrialSupervision(self.errand, self.task, scratch, self._answer, self.report)
            setattr(model, "supervision_", offered)  # noqa: B010 - likewise
        with watch.stage("fit"):
            model.fit(view)
        return model

    def predict(
        self,
        model: Model,
        queries: Sequence[Query],
        view: TrainView,
        scratch: str,
        watch: StageTimer,
    ) -> str | HeldPredictions:
        """Let a fitted model predict; return what to score, or where it was left."""
        errand, last = self.errand, "score" in self.errand.stages
        place = paths.join(scratch, PREDICTIONS)
        asked: Any = {
            "genes": view.genes,
            "control_label": self.task.store.control_label,
            "model": self.spec.model,
        }
        if last and "predictions" not in errand.keep:
            writer = scratch_predictions(place, queries, **asked)
        else:
            kept = "predictions" in errand.keep
            writer = PredictionWriter(
                place,
                queries,
                **asked,
                controls=self.task.shown_controls(self.spec.side) if kept else None,
                compression="zstd" if kept else "none",
            )
        with watch.stage("predict"):
            self._answer(model, queries, view, writer)
        if last:
            self._profiles = partial(self._write_profiles, queries, writer.profiles, view)
        else:
            self._write_profiles(queries, writer.profiles, view, paths.join(scratch, PROFILES))
        return writer.made

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
        self, model: Model, queries: Sequence[Query], view: TrainView, writer: Answered
    ) -> None:
        predicted = answers(model, queries)
        if self.spec.cells is not None:
            if self.spec.cells != "own" and has_own_cells(self.spec):
                predicted = profiles_alone(predicted)
            predicted = with_cells(predicted, view, self.spec.cells, self.spec.seed)
        with writer:
            for prediction in predicted:
                writer.add(prediction)
            writer.publish()

    def _judge(
        self, model: Model, queries: Sequence[Query], view: TrainView, path: str, step: int
    ) -> None:
        """Score what a model answers in the middle of its fit, and end it if it is to stop."""
        if self.report is None:
            return
        paths.remove(path)
        label = self.task.store.control_label
        writer = scratch_predictions(path, queries, genes=view.genes, control_label=label)
        self._answer(model, queries, view, writer)
        if not self.report(step, self.score(writer.made).frame):
            raise StoppedError(f"stopped after step {step}: others did better by then")

    def _write_profiles(
        self, queries: Sequence[Query], profiles: np.ndarray, view: TrainView, path: str
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

    def score(self, predicted: Predicted) -> Scores:
        """Score predictions against the held-out cells."""
        kept = predicted == self.run.of_trial(self.spec.id, PREDICTIONS)
        own = kept or "predictions" in self.errand.keep
        judge = Judge(self.task, self.errand, self.run.reference, self.ceiling)
        return judge.score(predicted, with_own_controls=own)

    def _leave(self, scratch: str) -> None:
        """Move what was predicted to where the call finds it that scores."""
        for name in (PREDICTIONS, PROFILES):
            if name == PREDICTIONS or "profiles" in self.errand.keep:
                self.between.leave(paths.join(scratch, name), name)

    def keep(self, scratch: str) -> None:
        """Put what the job keeps into the trial's folder, from where this or another call made it.

        On an object store nothing can be moved, so it is fetched and sent again.
        """
        for what, name in (("profiles", PROFILES), ("predictions", PREDICTIONS)):
            final = self.run.of_trial(self.spec.id, name)
            paths.remove(final)
            if what not in self.errand.keep:
                continue
            if what == "profiles" and self._profiles is not None:
                self._profiles(final)
            elif "predict" not in self.between.records:
                paths.publish(paths.join(scratch, name), final, last="zarr.json")
            else:
                with self.between.fetched(name) as made:
                    paths.publish(made, final, last="zarr.json")


def _opened(path: str) -> Store:
    """Open a screen: the same one as the last trial of this process, if that is the same file."""
    try:
        found = Path(path.removeprefix("file://"), "zarr.json").stat()
    except OSError:  # at a URL, or nowhere: opening it tells
        return open_store(path)
    key = path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    if key not in _SCREEN:
        store = open_store(path)
        _SCREEN.clear()
        _SCREEN[key] = store
    return _SCREEN[key]


def _manifest(
    errand: Errand,
    scores: Scores,
    costs: Mapping[str, Cost],
    notes: tuple[str, ...],
    *,
    ceiling: bool,
) -> dict[str, Any]:
    """Return what a finished trial says of itself."""
    frame = scores.frame
    ends = {suite: ends or why for suite, (ends, why) in scores.scales.items()}
    scored = dict.fromkeys(zip(frame["suite"], frame["metric"], frame["version"], strict=True))
    return {
        "trial": errand.spec.id,
        "model": errand.spec.model,
        "ceiling": ceiling,
        "scored": {f"{s}:{m}": int(v) for s, m, v in scored},
        "kept": sorted(errand.keep),
        "undefined": int(frame["value"].isna().sum()),
        "notes": list(notes),
        **({"ends": ends} if ends else {}),
        **total_cost(costs),
        "host": platform.node(),
        "harness": VERSION,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
