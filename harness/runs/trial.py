"""One trial from specification to scores, in the process that calls.

Open the screen, divide it, fit the model to the training pairs, let it predict every query, score
the predictions against the held-out cells, write the scores. Everything is written under the run
folder and the manifest goes last, so an attempt that dies anywhere leaves nothing that could be
taken for a result. A call may carry out some stages only; `stages` keeps the files between them.
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
from harness.runs.heartbeat import Heartbeat, StageTimer, total_cost
from harness.runs.log import recorded, scratch_folder
from harness.runs.provenance import VERSION
from harness.runs.request import TrialRequest, record_failure
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
from harness.runs.trial_scorer import TrialScorer, score_file
from harness.storage import content_digest, paths, store_here
from harness.tasks import DataFactors, Task, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from harness.data import HeldPredictions, PredictionCollector, Store
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


def run_trial(request: TrialRequest, report: Report | None = None) -> dict[str, Any]:
    """Carry out a trial, and return its manifest; its scores are in the run folder.

    A trial whose predictions were kept is scored again, not fitted again. An exception leaves
    ``failure.json`` beside the log, and is raised again. A call that ends before the scores returns
    its costs.

    Parameters
    ----------
    request
        The trial, and what is needed for it.
    report
        For a model that reports: called with each step and its scores, returns whether to go on.

    Raises
    ------
    StoppedError
        `report` said no.
    """
    run, trial = RunFolder(request.run), request.spec.id
    earlier = run.manifest(trial) or {}
    paths.remove(run.of_trial(trial, "manifest.json"))
    paths.write_atomic(run.of_trial(trial, "spec.json"), request.spec.to_json())
    goes_on, call = request.stages[0] != STAGES[0], ", ".join(request.stages)
    with (
        recorded(run.log(trial), goes_on=goes_on) as show,
        Heartbeat(run, trial, call, show) as heartbeat,
    ):
        log.info("%s: begins on %s", request.spec, platform.node())
        timer = StageTimer(heartbeat, request.gpus)
        try:
            if request.prediction:
                manifest = _score_file(request, run, timer)
            else:
                manifest = TrialPipeline(request, run, timer, report).run_stages(earlier)
        except (Exception, SystemExit) as error:
            log.exception("failed")
            with suppress(OSError):  # the error itself is to be reported
                heartbeat.write()
            if not isinstance(error, StorageError | MemoryError):  # no mistake of the model
                paths.remove(run.of_trial(trial, "stages"))
            cause = "raised"
            if isinstance(error, StoppedError):  # its checkpoint is of no use any more
                cause = "stopped"
                paths.remove(run.of_trial(trial, CHECKPOINT))
            message = f"{type(error).__name__}: {error}"
            record_failure(request, message, traceback.format_exc(), cause=cause)
            raise
    if "scored" in manifest:
        run.write_manifest(trial, {**manifest, "attempts": heartbeat.attempts})
    return manifest


def _score_file(request: TrialRequest, run: RunFolder, timer: StageTimer) -> dict[str, Any]:
    """Score a prediction that was made elsewhere; return the manifest."""
    with timer.stage("score"):
        scores = score_file(request, run.reference)
    write_scores(run.results(request.spec.id), scores.frame.assign(trial=request.spec.id))
    return _manifest(request, scores, timer.costs)


class TrialPipeline:
    """A trial's stages: fit, predict, score, keep.

    Parameters
    ----------
    request, run, report
        As for `run_trial`.
    timer
        Measures each stage.
    """

    def __init__(
        self, request: TrialRequest, run: RunFolder, timer: StageTimer, report: Report | None
    ) -> None:
        self.request, self.run, self.timer, self.report = request, run, timer, report
        self.spec = spec = request.spec
        self.ceiling = is_ceiling(spec)
        model = class_for(spec, request.command)
        self.code = code_of_model(spec.model, request.command)
        self.trains = bool(getattr(model, "trains", False))
        self.stages = StageFiles(run, spec.id, code_of(model))
        store = _opened(store_here(request.store))
        if store.fingerprint != spec.fingerprint:
            raise DataError(
                f"{request.store} has other content than when the job was planned: found "
                f"fingerprint {store.fingerprint}, expected {spec.fingerprint}. Run again."
            )
        self.task = Task(
            store,
            parse_split(json.loads(spec.split_spec), spec.split),
            spec.fold,
            controls=spec.controls,
            cache=run.reference,
            data=DataFactors.of(spec.data, spec.seed),
        )
        # Writes the profiles into a folder, when it is known where they are kept.
        self.write_profiles: Callable[[str], None] | None = None

    def run_stages(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out the stages of this call.

        Parameters
        ----------
        earlier
            The manifest of a finished trial whose predictions are scored again; else empty.

        Returns
        -------
        The manifest, or the costs of the stages where scoring is left to another call.
        """
        request, trial = self.request, self.spec.id
        kept = self.run.of_trial(trial, PREDICTIONS)
        predicted: Predicted | None
        with scratch_folder(self.run.of_trial(trial, SCRATCH)) as scratch:
            if paths.is_published(kept, "zarr.json"):
                predicted, said = kept, tuple(earlier.get("notes", ()))
                costs: dict[str, Cost] = dict(earlier.get("stages", {}))
                code = earlier.get("code", {})
            else:
                predicted, said = self.predictions(scratch)
                costs, code = self.stages.costs, self.code
            if "score" not in request.stages:
                return {"trial": trial, "stages": self.timer.costs}
            assert predicted is not None  # a call that scores also predicts
            with self.timer.stage("score"):
                scores = self.score(predicted)
            write_scores(self.run.results(trial), scores.frame.assign(trial=trial))
            if predicted != kept:
                self.keep(scratch)
        self.stages.forget()
        if self.trains and "checkpoints" not in request.keep:
            paths.remove(self.run.of_trial(trial, CHECKPOINT))
        manifest = _manifest(request, scores, costs | self.timer.costs, said, ceiling=self.ceiling)
        return {**manifest, "code": code}

    def predictions(self, scratch: str) -> tuple[Predicted | None, tuple[str, ...]]:
        """Fit and predict, as far as this call does and no earlier one did.

        Returns
        -------
        The predictions, None where another call makes them, and the model's notes on them.
        """
        done, stages = self.stages.records, self.request.stages
        if "predict" in done:
            return self.stages.path(PREDICTIONS), self.stages.notes
        # A call that scores also predicts if the predictions of another are gone: that worker was
        # lost after it had tidied up, and before it could report.
        predicts = "predict" in stages or "score" in stages
        if not predicts and "fit" in done:
            return None, ()
        for name, digest in self.spec.inputs:
            path = str(dict(self.spec.parameters)[name])
            if content_digest(path) != digest:
                raise DataError(
                    f"{path} has other content than when the job was planned. Found it changed, "
                    f"expected what {name} names to stay as it is until the run is over. Run again."
                )
        view = self.task.replicate_view(self.spec.side) if self.ceiling else self.task.train_view()
        queries = self.task.queries(self.spec.side, half=self.ceiling)
        model = self.fitted(queries, view, scratch)
        if not predicts:
            local = paths.join(scratch, MODEL)
            save_model(model, local)
            self.stages.leave(local, MODEL)
            self.stages.finish("fit", self.timer.costs["fit"])
            return None, ()
        predicted = self.predict(model, queries, view, scratch)
        said = notes(model)
        if "score" not in stages:
            self.stages.leave(paths.join(scratch, PREDICTIONS), PREDICTIONS)
            if "profiles" in self.request.keep:
                self.stages.leave(paths.join(scratch, PROFILES), PROFILES)
            self.stages.finish("predict", self.timer.costs["predict"], notes=said)
        return predicted, said

    def fitted(self, queries: Sequence[Query], view: TrainView, scratch: str) -> Model:
        """Return the model as an earlier call fitted it, or fit it now."""
        request = self.request
        model = model_for(self.spec, request.command, scratch, request.threads)
        if "fit" in self.stages.records:
            with self.stages.fetched(MODEL) as folder:
                return load_model(model, folder, view)

        def judge(step: int) -> None:
            """Score the model in the middle of its fit, and end the fit if the search says so."""
            if self.report is None:
                return
            place = paths.join(scratch, "judged.zarr")
            paths.remove(place)
            label = self.task.store.control_label
            writer = scratch_predictions(place, queries, genes=view.genes, control_label=label)
            self.answer(model, queries, view, writer)
            if not self.report(step, self.score(writer.result).frame):
                raise StoppedError(
                    f"stopped early at step {step} (ASHA): other settings scored better"
                )

        if getattr(model, "reports", False):
            setattr(model, "report_", judge)  # noqa: B010 - a model need not have it
        if self.trains:
            offered = TrialSupervision(request, self.task, scratch, self.answer, self.report)
            setattr(model, "supervision_", offered)  # noqa: B010 - likewise
        with self.timer.stage("fit"):
            model.fit(view)
        return model

    def predict(
        self, model: Model, queries: Sequence[Query], view: TrainView, scratch: str
    ) -> Predicted:
        """Let a fitted model predict; return the predictions, in memory or in `scratch`."""
        keep, last = self.request.keep, "score" in self.request.stages
        place = paths.join(scratch, PREDICTIONS)
        label = self.task.store.control_label
        options: Any = {"genes": view.genes, "control_label": label, "model": self.spec.model}
        writer: PredictionCollector
        if last and "predictions" not in keep:
            writer = scratch_predictions(place, queries, **options)
        else:
            kept = "predictions" in keep
            writer = PredictionWriter(
                place,
                queries,
                **options,
                controls=self.task.shown_controls(self.spec.side) if kept else None,
                compression="zstd" if kept else "none",
            )
        with self.timer.stage("predict"):
            self.answer(model, queries, view, writer)
        if "profiles" in keep:
            contexts = dict.fromkeys(query.context for query in queries)
            self.write_profiles = partial(
                write_profiles,
                queries=queries,
                profiles=writer.profiles,
                genes=view.genes,
                control_label=label,
                controls={context: view.control_pseudobulk(context) for context in contexts},
            )
            if not last:
                self.write_profiles(paths.join(scratch, PROFILES))
        return writer.result

    def answer(
        self, model: Model, queries: Sequence[Query], view: TrainView, writer: PredictionCollector
    ) -> None:
        """Write a model's predictions, with cells made from its profiles as the trial says."""
        predicted = answers(model, queries)
        if self.spec.cells is not None:
            if self.spec.cells != "own" and has_own_cells(self.spec):
                predicted = profiles_alone(predicted)
            predicted = with_cells(
                predicted, view, self.spec.cells, self.spec.seed, self.request.threads
            )
        with writer:
            for prediction in predicted:
                writer.add(prediction)
            writer.publish()

    def score(self, predicted: Predicted) -> Scores:
        """Score predictions against the held-out cells."""
        kept = predicted == self.run.of_trial(self.spec.id, PREDICTIONS)
        own = kept or "predictions" in self.request.keep
        scorer = TrialScorer(self.task, self.request, self.run.reference, ceiling=self.ceiling)
        return scorer.score(predicted, with_own_controls=own)

    def keep(self, scratch: str) -> None:
        """Put what the job keeps into the trial's folder, from where this or another call made it.

        On an object store nothing can be moved, so it is fetched and sent again.
        """
        for what, name in (("profiles", PROFILES), ("predictions", PREDICTIONS)):
            final = self.run.of_trial(self.spec.id, name)
            paths.remove(final)
            if what not in self.request.keep:
                continue
            if what == "profiles" and self.write_profiles is not None:
                self.write_profiles(final)
            elif "predict" not in self.stages.records:
                paths.publish(paths.join(scratch, name), final, last="zarr.json")
            else:
                with self.stages.fetched(name) as made:
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
    request: TrialRequest,
    scores: Scores,
    costs: Mapping[str, Cost],
    said: tuple[str, ...] = (),
    *,
    ceiling: bool = False,
) -> dict[str, Any]:
    """Return the manifest of a finished trial."""
    frame = scores.frame
    ends = {suite: ends or why for suite, (ends, why) in scores.scales.items()}
    scored = dict.fromkeys(zip(frame["suite"], frame["metric"], frame["version"], strict=True))
    return {
        "trial": request.spec.id,
        "model": request.spec.model,
        "ceiling": ceiling,
        "scored": {f"{s}:{m}": int(v) for s, m, v in scored},
        "kept": sorted(request.keep),
        "undefined": int(frame["value"].isna().sum()),
        "notes": list(said),
        **({"ends": ends} if ends else {}),
        **total_cost(costs),
        "host": platform.node(),
        "harness": VERSION,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
