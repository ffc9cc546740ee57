"""Cells for models that predict a profile, by one shared step that the job declares.

``match-controls``, the default: shown control cells of the query's context, each value replaced by
the one of the same rank in a count distribution whose mean is the profile's
(`harness.kernels.ControlQuantiles`). The mean of the cells is the profile, clipped at 0. All
queries, models and trials on a screen take the controls in one order: a query of n cells takes the
first n, from the first again where there are fewer.

``shift-controls``: as many shown control cells as the query asks for, drawn by seed and query, each
shifted by the predicted effect, gene by gene on the log1p scale, and clipped at 0::

    cell = max(control cell + (profile - control pseudobulk), 0)

``tile-profile``: the profile, clipped at 0, once for each cell.

A model that predicts cells and a profile besides is registered with ``cells="own"``: a job may then
take one of these steps in place of its cells.

The choice moves scores, so it is part of a trial's identity. Matched cells have as many zeros and
as much scatter as real cells of that mean. Shifting keeps the scatter of control cells, but
clipping loses part of a decrease where a gene is zero in most cells, and an increase lifts every
zero, which a rank test sees at once. Tiled cells have the profile as their mean exactly, and no
variance.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import ModelError, listed
from harness.kernels import ControlQuantiles, shift_controls
from harness.models.base import query_rng

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.config import OwnCellStep
    from harness.tasks import Prediction, TrainView

POOL_BYTES = 256 * 1024 * 1024
"""Memory for the controls that are drawn from: 3,700 cells of 18,080 genes."""


def with_cells(
    predictions: Iterable[Prediction],
    train: TrainView,
    step: OwnCellStep,
    seed: int = 0,
    threads: int = 1,
) -> Iterator[Prediction]:
    """Yield the predictions, those without cells given some by the step.

    Control cells come from a pool that every query, model and seed on the screen shares. `seed` is
    of ``shift-controls``, which draws from it without replacement where there are enough.
    """
    pool = _Pool(train, threads)
    for prediction in predictions:
        if prediction.cells is not None:
            yield prediction
            continue
        query, profile = prediction.query, _checked(prediction, train.genes)
        if step == "own":
            raise ModelError(
                f"Prediction for {query.perturbation!r} in {query.context!r}: found a profile, "
                "expected the model's own cells. Let the job set cells to another step."
            )
        if step == "tile-profile":
            # One row seen n times: the writer copies it, memory does not grow with the cells.
            row = np.maximum(profile, 0).astype(np.float32)
            cells = np.broadcast_to(row, (query.n_cells, len(row)))
        elif step == "match-controls":
            cells = pool.quantiles(query.context).cells(profile, query.n_cells)
        else:
            controls = pool.cells(query.context)
            rng = query_rng(seed, query, "shift-controls")
            too_few = query.n_cells > len(controls)
            drawn = rng.choice(len(controls), size=query.n_cells, replace=too_few)
            effect = profile - train.control_pseudobulk(query.context)
            cells = shift_controls(controls[drawn], effect)
        yield replace(prediction, cells=cells)


def profiles_alone(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yield the predictions without cells, for a model whose own ones a job does not want."""
    for prediction in predictions:
        yield replace(prediction, cells=None)


def _checked(prediction: Prediction, genes: Sequence[str]) -> np.ndarray:
    """Return the profile; `ModelError` where it is none, or a step would hide what is wrong."""
    query, profile = prediction.query, prediction.profile
    expected = f"expected a profile of shape ({len(genes)},)."
    if profile is None:
        found = "neither cells nor a profile"
    elif not isinstance(profile, np.ndarray) or profile.dtype.kind not in "iuf":
        found = f"values of type {getattr(profile, 'dtype', type(profile).__name__)}"
        expected = f"expected an array of floats of shape ({len(genes)},)."
    elif profile.shape != (len(genes),):
        found = str(profile.shape)
    elif (endless := np.isneginf(profile)).any():  # cutting off at zero would make 0 of it
        where = listed(genes[i] for i in np.flatnonzero(endless).tolist())
        found, expected = f"minus infinity in {where}", "expected finite log1p values."
    else:
        return profile
    raise ModelError(
        f"Prediction for {query.perturbation!r} in {query.context!r}: found {found}, {expected}"
    )


class _Pool:
    """Control cells of the context asked for last; queries come sorted by context."""

    def __init__(self, train: TrainView, threads: int) -> None:
        self._train, self._threads = train, threads
        self.cells = lru_cache(maxsize=1)(self._drawn)
        self.quantiles = lru_cache(maxsize=1)(self._in_order)

    def _drawn(self, context: str) -> np.ndarray:
        size = max(1, POOL_BYTES // (4 * len(self._train.genes)))
        return self._train.controls(context, size)

    def _in_order(self, context: str) -> ControlQuantiles:
        controls = self._drawn(context)
        order = np.random.default_rng(0).permutation(len(controls))
        return ControlQuantiles(controls, self._threads, order)
