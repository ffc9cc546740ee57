"""What must come out: on screens whose truth is known, models rank as the screens were built.

``pearson_delta`` and the discrimination score by cosine, as `cell-eval` has them: neither is moved
by how large a prediction is, so that a model that shrinks what it is unsure of is not punished.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.data.predictions import PredictionWriter, with_controls
from harness.models import make_model, registered_classes, with_cells
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import tiny_screen

if TYPE_CHECKING:
    from pathlib import Path

EFFECT, PDS = "pearson_delta", "discrimination_score_cosine"
SUITE = ["cell-eval:anndata"]

# c1 is held out but for half of its perturbations. What c0 does, c1 does; c2 answers by itself.
SHARED = {"c0": 0.9, "c1": 0.9, "c2": 0.1}


RANKING = {
    "replicate": {},
    "context-regression": {},
    "context-transfer": {},
    "linear": {"rank": 6},
    "perturbation-mean": {},
    "control-mean": {},
}
"""As the screen is built: each knows something of the effects that the next one does not."""


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """The mean of each metric over some seeds, by model, on a context of which half is shown.

    Over seeds, since maps from six programmes to six that are drawn apart resemble each other, or
    each other's opposite, by chance: one screen alone has contexts that agree by luck.
    """

    def ranked(models, seeds, **screen):
        found = [
            {name: means(tmp_path_factory.mktemp(name), task_of(seed, screen), name, options)}
            for seed in range(seeds)
            for name, options in models.items()
        ]
        return {
            name: {
                metric: np.mean([one[name][metric] for one in found if name in one])
                for metric in (EFFECT, PDS)
            }
            for name in models
        }

    return ranked


def task_of(seed: int, screen: dict[str, object]) -> Task:
    sizes = {"n_perturbations": 40, "n_combinations": 0, "n_cells": 40, "n_controls": 500}
    drawn = tiny_screen(contexts=("c0", "c1", "c2"), seed=seed, **sizes, **screen)
    return Task(drawn, parse_split({"kind": "few-shot-context", "contexts": ["c1"]}))


def means(folder: Path, task: Task, name: str, options: dict[str, object]) -> dict[str, float]:
    info = registered_classes()[name]
    view = task.replicate_view() if info.ceiling else task.train_view()
    queries = task.queries(half=info.ceiling)
    answers = make_model(name, options).fit(view).predict(queries)
    path = str(folder / "predictions.zarr")
    with PredictionWriter(
        path, queries, genes=view.genes, control_label="control", compression="none"
    ) as writer:
        for answer in with_cells(answers, view, "shift-controls"):
            writer.add(answer)
        writer.finish()
    truth = prepare(task.truth(half=info.ceiling), ScoringOptions(scale="log1p"), suite=SUITE)
    found = score(truth, with_controls(path, task.shown_controls()), suite=SUITE)
    return dict(found.frame.groupby("metric", observed=True)["value"].mean())


def test_models_rank_by_what_they_know_of_effects_that_contexts_share(ranked):
    found = ranked(RANKING, 4, shared=SHARED)
    for better, worse in pairwise(RANKING):
        for metric in (EFFECT, PDS):
            # The smallest distances, to the regression, are 0.03 and 0.01.
            assert found[better][metric] > found[worse][metric], (metric, better, worse)
    assert found["replicate"][EFFECT] > 0.9
    assert found["replicate"][PDS] > 0.99
    assert abs(found["control-mean"][EFFECT]) < 0.1


def test_without_anything_in_common_transfer_gains_nothing(ranked):
    # Not even what silencing takes from the target, which all contexts have in common otherwise.
    models = ["context-transfer", "context-regression", "similar-perturbations"]
    options = {name: {} for name in (*models, "perturbation-mean")}
    found = ranked(options, 6, shared=0.0, silencing=0.0)
    mean = found["perturbation-mean"]
    assert found["context-transfer"][EFFECT] < mean[EFFECT] - 0.05
    assert found["context-transfer"][PDS] < mean[PDS] + 0.05
    # It finds out how far the others can be trusted, and falls back to the mean effect.
    assert found["context-regression"][EFFECT] > mean[EFFECT] - 0.01
    assert found["context-regression"][PDS] > mean[PDS] - 0.01
    # Which perturbations are alike is in common even here: of the same loadings, another map.
    assert found["similar-perturbations"][EFFECT] > mean[EFFECT] + 0.05
    assert found["similar-perturbations"][PDS] > mean[PDS] + 0.2
