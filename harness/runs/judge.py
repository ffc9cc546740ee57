"""How a trial's predictions are scored: each suite against the held-out cells on its own scale.

Models predict log1p cells. Suites of log1p values take them as they are; suites of raw counts take
what `harness.scoring.to_counts` makes of them, against the counts of the same held-out cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.data import HeldPredictions, held_controls, open_predictions, with_controls
from harness.scoring import SUITE, CountedCells, Reading, Scores, by_scale, prepare, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data import Cells, Scale
    from harness.runs.request import Errand
    from harness.scoring import PreparedTruth
    from harness.tasks import Task

_TRUTHS: dict[Scale, tuple[Any, PreparedTruth]] = {}
"""The last truth of each scale that this process scored against: each can be large."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores the predictions of one trial.

    Attributes
    ----------
    task
        Whose held-out cells are the truth.
    errand
        The trial, and by which suites it is scored.
    reference
        The folder of what trials share.
    ceiling
        Whether the truth is one half of each pair's cells.
    """

    task: Task
    errand: Errand
    reference: str
    ceiling: bool

    def score(self, predicted: str | HeldPredictions, *, with_own_controls: bool) -> Scores:
        """Score predictions by all suites of the errand, and say what their scales are.

        Parameters
        ----------
        predicted
            A file as `PredictionWriter` leaves it, or what is held in memory.
        with_own_controls
            Whether the controls that it is measured from are in the file.
        """
        order = {name: place for place, name in enumerate(self.errand.suites)}
        parts, scales = [], {}
        for scale, suites in by_scale(self.errand.suites):
            truth = self._truth(scale, suites)
            cells = self._predicted(predicted, scale, with_own_controls=with_own_controls)
            parts.append(score(truth, cells, suite=suites, strict=False).frame)
            if SUITE in suites and self._is_final:
                scales[SUITE] = truth.ends
        frame = pd.concat(parts, ignore_index=True)
        ordered = frame.sort_values("suite", key=lambda names: names.map(order), kind="stable")
        return Scores(ordered.reset_index(drop=True), name="predictions", scales=scales)

    @property
    def _is_final(self) -> bool:
        """Whether scores are of the test side, against all of its held-out cells."""
        return self.errand.spec.side == "test" and not self.ceiling

    def _predicted(
        self, predicted: str | HeldPredictions, scale: Scale, *, with_own_controls: bool
    ) -> Cells:
        spec = self.errand.spec
        if scale == "counts":  # effects are measured from the truth's controls
            own = open_predictions(predicted) if isinstance(predicted, str) else predicted.cells()
            return CountedCells(own, spec.seed)
        if with_own_controls and isinstance(predicted, str):
            return open_predictions(predicted)
        shown = self.task.shown_controls(spec.side)
        controls = held_controls(shown, spec.data, spec.seed if spec.data else None)
        if isinstance(predicted, str):
            return with_controls(predicted, controls)
        return predicted.cells(controls)

    def _truth(self, scale: Scale, suites: Sequence[str]) -> PreparedTruth:
        """Return the truth's part of the scores; trials of one fold in one process share it."""
        spec, errand = self.errand.spec, self.errand
        place = (spec.fingerprint, spec.split_spec, spec.fold, spec.side)
        key = (*place, spec.controls, self.ceiling, tuple(suites))
        if scale not in _TRUTHS or _TRUTHS[scale][0] != key:
            _TRUTHS.pop(scale, None)  # before the next one is read
            reading = Reading(
                scale=scale,
                threads=errand.threads,
                memory=errand.memory,
                no_target_genes=not self._has_targets,
            )
            truth = self.task.truth(spec.side, half=self.ceiling, scale=scale)
            found = prepare(truth, reading, suite=suites, reference=self.reference)
            _TRUTHS[scale] = key, found
        return _TRUTHS[scale][1]

    @property
    def _has_targets(self) -> bool:
        """Whether any perturbation of the screen acts on one of its genes.

        Where none does, as with compounds, there is no target gene to leave out of a score.
        """
        store = self.task.store
        names = {r.perturbation for r in store.ranges} - {store.control_label}
        return any(store.targets(name) for name in names)
