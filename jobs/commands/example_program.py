"""A program that the harness can run as a model: copy it, and put yours in place of the sums.

It is started twice. `train` reads training cells and controls (`.h5ad`, log1p) and leaves what it
learned in a folder; `predict` reads cells to fill in, which are controls labelled with what is
asked, and writes as many of them. It never sees a cell that is held out. Whatever it prints is in
the trial's log; a status other than 0 fails the trial.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np

PERTURBATION, CONTEXT, CONTROL = (
    "target_gene",
    "context",
    "non-targeting",
)  # as `labels` in the declaration has them


def train(cells: Path, model: Path) -> None:
    """Keep the mean effect of each perturbation over the contexts where it was seen."""
    screen = anndata.read_h5ad(cells)
    effects: dict[str, list[np.ndarray]] = {}
    for context in screen.obs[CONTEXT].unique():
        here = screen[screen.obs[CONTEXT] == context]
        control = _mean(here[here.obs[PERTURBATION] == CONTROL])
        for perturbation in here.obs[PERTURBATION].unique():
            if perturbation != CONTROL:
                effect = _mean(here[here.obs[PERTURBATION] == perturbation]) - control
                effects.setdefault(perturbation, []).append(effect)
    means = {name: np.mean(many, axis=0) for name, many in effects.items()}
    np.savez(model / "effects.npz", **means)
    print(f"learned {len(effects)} perturbations from {screen.n_obs} cells")


def predict(model: Path, queries: Path, output: Path, strength: float) -> None:
    """Add a perturbation's effect to each of its cells; the mean effect where it was never seen."""
    asked = anndata.read_h5ad(queries)
    with np.load(model / "effects.npz") as file:
        effects = {name: file[name] for name in file.files}
    unseen = np.mean(list(effects.values()), axis=0)
    cells = asked.X.toarray()
    for perturbation in asked.obs[PERTURBATION].unique():
        if perturbation != CONTROL:
            rows = (asked.obs[PERTURBATION] == perturbation).to_numpy()
            cells[rows] += strength * effects.get(perturbation, unseen)
    asked.X = np.maximum(cells, 0)  # log1p values are never negative
    asked.write_h5ad(output)


def _mean(cells: anndata.AnnData) -> np.ndarray:
    return np.asarray(cells.X.mean(axis=0)).ravel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["train", "predict"])
    for name in ("cells", "model", "queries", "output"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--strength", type=float, default=1.0)
    given = parser.parse_args()
    if given.step == "train":
        train(given.cells, given.model)
    else:
        predict(given.model, given.queries, given.output, given.strength)
