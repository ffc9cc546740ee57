"""What a trial does for a model that trains in steps.

It scores the model on the validation pairs, keeps its checkpoint and stores its learning curve.
Validation uses the validation side of the split and the held controls of its contexts, never a
test pair, and goes the same way as a trial's scores.

``trials/ID/checkpoint/training.bin`` is replaced whole each time, so that a worker killed at any
moment leaves the last one. ``trials/ID/curve.parquet`` has a row for each epoch and can be read
while the model trains.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.data import scratch_predictions
from harness.errors import ModelError, StoppedError, UnknownNameError
from harness.metrics import registered, registered_suites
from harness.runs.folder import RunFolder
from harness.runs.trial_scorer import TrialScorer
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.data import PredictionCollector
    from harness.models import Model
    from harness.runs.request import TrialRequest
    from harness.tasks import Query, Task, TrainView

    Report = Callable[[int, pd.DataFrame], bool]
    Answer = Callable[[Model, Sequence[Query], TrainView, PredictionCollector], None]

CHECKPOINT = "checkpoint"
CURVE = "curve.parquet"


class TrialSupervision:
    """Implements `harness.models.base.Supervision` for one trial.

    Parameters
    ----------
    request, task
        The trial, and its screen under the split.
    scratch
        A folder for predictions that are deleted again.
    answer
        Writes what a model answers to queries, with the trial's step to cells.
    report
        In a search: told the scores by the job's suites at each step, answers whether to go on.
    """

    def __init__(
        self, request: TrialRequest, task: Task, scratch: str, answer: Answer, report: Report | None
    ) -> None:
        self.request, self.task, self.scratch = request, task, scratch
        self.answer, self.report = answer, report
        self.view = task.train_view()
        self.queries = task.queries("validation")
        run, trial = RunFolder(request.run), request.spec.id
        self.checkpoint = paths.join(run.of_trial(trial, CHECKPOINT), "training.bin")
        self.curve = run.of_trial(trial, CURVE)
        self.reference = run.reference
        self._scorer: TrialScorer | None = None

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric, as ``suite:name``, is better."""
        found = registered()[_parted(metric)[1]]
        if found.higher_is_better is None or "counts" in found.needs:
            what = "needs raw counts" if "counts" in found.needs else "is a mere count"
            raise ModelError(
                f"stop_on is {metric!r}, which {what}. Expected a metric of log1p values that has "
                "a direction, such as 'cell-eval:pearson_delta'."
            )
        return found.higher_is_better

    def validate(self, model: Model, step: int, metric: str) -> float | None:
        """Return the mean of a metric over the validation pairs; None without any.

        Raises
        ------
        StoppedError
            The search that the trial is part of has seen enough.
        """
        if not self.queries:
            return None
        path = paths.join(self.scratch, "validation.zarr")
        paths.remove(path)
        label = self.task.store.control_label
        writer = scratch_predictions(path, self.queries, genes=self.view.genes, control_label=label)
        self.answer(model, self.queries, self.view, writer)
        if self._scorer is None:
            self._scorer = TrialScorer(
                self.task, self.request, self.reference, validation=_parted(metric)
            )
        frame = self._scorer.score(writer.result, with_own_controls=False).frame
        if self.report is not None and self.request.spec.side == "validation":
            scorer = TrialScorer(self.task, self.request, self.reference)
            if not self.report(step, scorer.score(writer.result, with_own_controls=False).frame):
                raise StoppedError(
                    f"stopped early at step {step} (ASHA): other settings scored better"
                )
        paths.remove(path)
        return float(frame["value"].mean())

    def load(self) -> bytes | None:
        """Return what an interrupted attempt saved last."""
        try:
            return paths.read_bytes(self.checkpoint)
        except FileNotFoundError:
            return None

    def save(self, state: bytes) -> None:
        """Put a checkpoint in place of the one before."""
        paths.write_atomic(self.checkpoint, state)

    def record(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Store the learning curve so far."""
        buffer = io.BytesIO()
        pd.DataFrame(list(curve)).to_parquet(buffer, index=False)
        paths.write_atomic(self.curve, buffer.getvalue())


def _parted(metric: str) -> tuple[str, str]:
    """Split ``suite:name``; an error with a near match where there is no such."""
    suite, colon, name = metric.partition(":")
    if not colon:
        raise ModelError(f"stop_on is {metric!r}, expected SUITE:METRIC.")
    if suite not in registered_suites():
        raise UnknownNameError("suite", suite, tuple(registered_suites()))
    if name not in registered():
        raise UnknownNameError("metric", name, tuple(registered()))
    return suite, name
