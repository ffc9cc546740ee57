"""Scores of a trial: its predictions, or a file that was made elsewhere, against held-out cells.

Models predict log1p cells. Suites of log1p values take them as they are; suites of raw counts take
the counts that `harness.scoring.CountedCells` makes of them, against the counts of the same
held-out cells.
"""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from harness.data import HeldPredictions, held_controls, open_predictions, open_store, with_controls
from harness.models import MeanEffects
from harness.scoring import CountedCells, Scorer, ScoringOptions
from harness.storage import paths, text_digest
from harness.tasks import Task, kept_mean, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from harness.data import Cells, Scale
    from harness.jobs import TrialSpec
    from harness.runs.request import TrialRequest
    from harness.scoring import Scores


class TrialScorer:
    """Scores predictions of a trial's model.

    Parameters
    ----------
    task
        Its held-out cells are the truth.
    request
        The trial, and by which suites it is scored.
    reference
        The folder that trials share.
    ceiling
        Whether the truth is one half of each pair's cells.
    validation
        A suite and a metric of it, to score by these on the validation pairs instead.
    """

    def __init__(
        self,
        task: Task,
        request: TrialRequest,
        reference: str,
        *,
        ceiling: bool = False,
        validation: tuple[str, str] | None = None,
    ) -> None:
        self.task, self.spec = task, request.spec
        spec, store = request.spec, task.store
        self.side = "validation" if validation else spec.side
        self.is_final = self.side == "test" and not ceiling
        # Where no perturbation acts on a gene of the screen, as with compounds, there is no target
        # gene to leave out of a score.
        names = {r.perturbation for r in store.ranges} - {store.control_label}
        without_targets = not any(store.targets(name) for name in names)
        options = partial(
            ScoringOptions,
            threads=request.threads,
            memory=request.memory,
            no_target_genes=without_targets,
        )
        # Trials of one fold in one process share the truth's part; validation has its own.
        shared = (spec.fingerprint, spec.split_spec, spec.fold, spec.side, spec.controls, ceiling)
        suite, metric = validation or (None, None)
        self.scorer = Scorer(
            lambda scale: task.truth(self.side, half=ceiling, scale=scale),
            [suite] if suite else request.suites,
            options(scale="log1p"),
            counts_options=options(scale="counts"),
            metrics=[metric] if metric else None,
            reference=reference,
            centre=training_mean(task, spec, reference),
            key=None if validation else shared,
        )

    def score(self, predicted: str | HeldPredictions, *, with_own_controls: bool) -> Scores:
        """Score predictions by all suites.

        Parameters
        ----------
        predicted
            A store as `PredictionWriter` leaves it, or predictions in memory.
        with_own_controls
            Whether effects are measured from controls in the predictions.
        """

        def cells(scale: Scale) -> Cells:
            if isinstance(predicted, HeldPredictions):
                if scale == "counts":  # effects are measured from the truth's controls
                    return CountedCells(predicted.cells(), self.spec.seed)
                return predicted.cells(self._controls())
            if scale == "counts":
                return CountedCells(open_predictions(predicted), self.spec.seed)
            if with_own_controls:
                return open_predictions(predicted)
            return with_controls(predicted, self._controls())

        return self.scorer.score(cells, strict=False, with_ends=self.is_final)

    def _controls(self) -> Cells:
        data, seed = self.spec.data, self.spec.seed
        return held_controls(self.task.shown_controls(self.side), data, seed if data else None)


def training_mean(task: Task, spec: TrialSpec, reference: str) -> Callable[[str], np.ndarray]:
    """Return a function that gives the profile of a context that effects are centred on.

    That is the mean of the shown controls plus the mean effect of the split's training
    perturbations in the context, or over the other contexts where it has none: (n_genes,), log1p.
    Data factors do not change it. It is kept in the folder that trials share, for each fold.
    """
    whole = Task(task.store, task.split, task.fold, controls=task.controls, cache=task.cache)

    @cache
    def effects() -> MeanEffects:
        return MeanEffects(whole.train_view())

    def profile(context: str) -> np.ndarray:
        def compute() -> np.ndarray:
            control = whole.train_view().control_pseudobulk(context)
            mean: np.ndarray = control + effects().of(context)
            return mean

        of = [spec.fingerprint, spec.split_spec, str(spec.fold), spec.controls, context]
        return kept_mean(
            paths.join(reference, "training-means"), text_digest("\0".join(of)), compute
        )

    return profile


def score_file(request: TrialRequest, reference: str) -> Scores:
    """Score a prediction that was made elsewhere against a file, or held-out cells of a store."""
    spec, suites = request.spec, request.suites
    options = ScoringOptions(
        **json.loads(spec.prediction)["reading"], threads=request.threads, memory=request.memory
    )
    truth: Any = request.store
    centre: Callable[[str], np.ndarray] | None = None
    if spec.split_spec:
        split = parse_split(json.loads(spec.split_spec), spec.split)
        task = Task(open_store(request.store), split, spec.fold, controls=spec.controls)
        truth = lambda scale: task.truth(spec.side, scale=scale)  # noqa: E731
        centre = training_mean(task, spec, reference)
    key = (request.store, spec.fingerprint, spec.split_spec, spec.fold, spec.side, spec.controls)
    scorer = Scorer(truth, suites, options, reference=reference, centre=centre, key=key)
    return scorer.score(request.prediction, strict=False, with_ends=True)
