"""Perturbations and contexts as numbers, from the training data alone.

A perturbation is told by its name (one-hot; the parts of a combination each) and by features of
the genes that it acts on, so that one which was never seen is near those that act on similar
genes. A context is told by its name and by where its control pseudobulk lies among the same
features, so that a context of controls only has a place as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.models.effects import MeanEffects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.tasks import TrainView

MOST_PAIRS = 512
"""Pseudobulks that principal components are computed from, evenly among the training pairs."""


class Encoding:
    """Turns names into arrays; see the module.

    Attributes
    ----------
    names, contexts
        What has a one-hot column: single perturbations and contexts that were trained on.
    genes
        (n_genes, rank) features of genes: standardised scores on the first principal components of
        the training pseudobulks, genes as observations.
    """

    def __init__(self, train: TrainView, rank: int) -> None:
        self.separator = train.combination_separator
        parts = {part for name in train.perturbations for part in self._parts(name)}
        self.names = {name: column for column, name in enumerate(sorted(parts))}
        contexts = sorted({pair.context for pair in train.pairs})
        self.contexts = {context: column for column, context in enumerate(contexts)}
        self.rows = {gene: row for row, gene in enumerate(train.genes)}
        self.genes = _gene_features(train, rank)
        self._train = train
        self._means = MeanEffects(train)
        places = np.array([self._projected(context) for context in train.contexts])
        self._centre, self._spread = places.mean(axis=0), places.std(axis=0) + 1e-6

    @property
    def rank(self) -> int:
        """How many features a gene has: fewer than asked for where the pairs span no more."""
        return int(self.genes.shape[1])

    def perturbation(self, name: str, targets: Sequence[str]) -> np.ndarray:
        """Return a perturbation: (n_names + rank,) float32."""
        ids = np.zeros(len(self.names), dtype=np.float32)
        for part in self._parts(name):
            if part in self.names:
                ids[self.names[part]] += 1
        features = self.genes[[self.rows[gene] for gene in targets]].sum(axis=0)
        return np.concatenate([ids, features]).astype(np.float32)

    def context(self, name: str) -> np.ndarray:
        """Return a context: (n_contexts + rank,) float32."""
        ids = np.zeros(len(self.contexts), dtype=np.float32)
        if name in self.contexts:
            ids[self.contexts[name]] = 1
        features = (self._projected(name) - self._centre) / self._spread
        return np.concatenate([ids, features]).astype(np.float32)

    def origin(self, context: str) -> np.ndarray:
        """Return the control pseudobulk of a context: (n_genes,) float32."""
        return self._train.control_pseudobulk(context).astype(np.float32)

    def mean_effect(self, context: str) -> np.ndarray:
        """Return the mean effect in a context, from which networks start: (n_genes,) float32."""
        return self._means.of(context).astype(np.float32)

    def knows(self, name: str, targets: Sequence[str]) -> bool:
        """Whether anything tells the perturbation from others."""
        return bool(targets) or any(part in self.names for part in self._parts(name))

    def _parts(self, name: str) -> list[str]:
        return name.split(self.separator) if self.separator else [name]

    def _projected(self, context: str) -> np.ndarray:
        control = self._train.control_pseudobulk(context)
        projected: np.ndarray = control @ self.genes / len(control)
        return projected


def _gene_features(train: TrainView, rank: int) -> np.ndarray:
    pairs = train.pairs
    if len(pairs) > MOST_PAIRS:
        pairs = tuple(pairs[i] for i in np.linspace(0, len(pairs) - 1, MOST_PAIRS).astype(int))
    bulks = np.array([train.pseudobulk(*pair) for pair in pairs]).T
    centred = bulks - bulks.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = np.flatnonzero(values > values.max(initial=0.0) * 1e-10)[::-1][:rank]
    scores = centred @ vectors[:, kept]
    # The sign of an eigenvector is the library's choice, and a seed would give other networks.
    largest = np.abs(scores).argmax(axis=0)
    scores *= np.sign(scores[largest, np.arange(len(kept))])
    scaled: np.ndarray = (scores - scores.mean(axis=0)) / (scores.std(axis=0) + 1e-12)
    return scaled
