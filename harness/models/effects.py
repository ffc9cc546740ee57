"""Mean effects of training perturbations, which several models are made of or fall back on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.tasks import TrainView


def mean_of(effects: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of at least one effect, each (n_genes,), held one at a time."""
    total: np.ndarray | None = None
    n = 0
    for effect in effects:
        total = effect.astype(np.float64) if total is None else total + effect
        n += 1
    if total is None:
        msg = "there is no effect to take the mean of"
        raise ValueError(msg)
    mean: np.ndarray = total / n
    return mean


class MeanEffects:
    """The mean effect over a context's training perturbations, for any context.

    Combinations count like any perturbation. A context without training pairs has the mean over the
    contexts that have some, each counted once; without any training pair the effect is zero.
    """

    def __init__(self, train: TrainView) -> None:
        pairs_of: dict[str, list[str]] = {}
        for perturbation, context in train.pairs:
            pairs_of.setdefault(context, []).append(perturbation)
        self.by_context = {
            context: mean_of(train.effect(p, context) for p in names)
            for context, names in pairs_of.items()
        }
        self.counts = {context: len(names) for context, names in pairs_of.items()}
        none = [np.zeros(len(train.genes))]
        self.overall = mean_of(list(self.by_context.values()) or none)

    def of(self, context: str) -> np.ndarray:
        """Return the mean effect in a context: (n_genes,), log1p scale."""
        return self.by_context.get(context, self.overall)

    def note(self, context: str) -> str:
        """Name the source of the effect; empty for a context with training pairs."""
        return "" if context in self.by_context else "the mean effect of other contexts is used"


def effects_elsewhere(train: TrainView) -> dict[str, dict[str, np.ndarray]]:
    """Return the training effects by perturbation, then by context: each (n_genes,)."""
    effects: dict[str, dict[str, np.ndarray]] = {}
    for perturbation, context in train.pairs:
        effects.setdefault(perturbation, {})[context] = train.effect(perturbation, context)
    return effects


def parts_of(perturbation: str, train: TrainView) -> list[str]:
    """Return the single perturbations that a combination is made of; itself if it is one."""
    separator = train.combination_separator
    return perturbation.split(separator) if separator else [perturbation]
