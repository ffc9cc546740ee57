"""Perturbations and contexts as numbers, from the training data and what the user knows besides.

A perturbation is told by its name (one-hot; the parts of a combination each) and by features, of
the genes that it acts on or from a table, so that one which was never seen is near those that are
like it. A context is told by its name and by where its control pseudobulk lies among the
features of genes, so that a context of controls only has a place as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.models.effects import MeanEffects, parts_of
from harness.models.features import features_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.models.features import Features, Missing
    from harness.models.networks.base import Embedding
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
    features
        Features of perturbations from elsewhere; None: the sums of those of their genes.

    Raises
    ------
    ModelError
        A table of features lacks what was trained on.
    """

    def __init__(
        self,
        train: TrainView,
        rank: int,
        source: str = "principal-components",
        missing: Missing = "error",
        embedding: Embedding = "both",
    ) -> None:
        parts = {part for name in train.perturbations for part in parts_of(name, train)}
        self.names = {name: column for column, name in enumerate(sorted(parts))}
        contexts = sorted({pair.context for pair in train.pairs})
        self.contexts = {context: column for column, context in enumerate(contexts)}
        self.rows = {gene: row for row, gene in enumerate(train.genes)}
        self.genes = _gene_features(train, rank)
        self.features: Features | None = None
        self.missing: Missing = "mean-effect" if embedding == "names" else missing
        self.embedding = embedding
        if source != "principal-components":
            self.features = features_of(train, source, rank).standardised()
            self.features.refuse_missing(train.perturbations, self.missing)
        self._train = train
        self._means = MeanEffects(train)
        places = np.array([self._projected(context) for context in train.contexts])
        self._centre, self._spread = places.mean(axis=0), places.std(axis=0) + 1e-6

    @property
    def rank(self) -> int:
        """How many features a gene has: fewer than asked for where the pairs span no more."""
        return int(self.genes.shape[1])

    @property
    def n_features(self) -> int:
        """How many features a perturbation has."""
        return self.rank if self.features is None else self.features.n_features

    def perturbation(self, name: str, targets: Sequence[str]) -> np.ndarray:
        """Return a perturbation: (n_names + n_features,) float32."""
        ids = np.zeros(len(self.names), dtype=np.float32)
        for part in parts_of(name, self._train):
            if part in self.names:
                ids[self.names[part]] += 1
        features = self._features_of(name, targets)
        if features is None:
            features = np.zeros(self.n_features)
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
        """Whether anything that the network is told tells the perturbation from others."""
        named = any(part in self.names for part in parts_of(name, self._train))
        featured = self._features_of(name, targets) is not None
        return (named and self.embedding != "targets") or (featured and self.embedding != "names")

    def gives_up(self, name: str, targets: Sequence[str]) -> bool:
        """Whether a table lacks the perturbation, and nothing else tells of it."""
        by_table = self.features is not None and bool(self.features.table)
        return by_table and self.embedding != "names" and not self.knows(name, targets)

    def refuse_missing(self, perturbations: Iterable[str]) -> None:
        """Raise `ModelError` where the table of features lacks some, unless that is allowed."""
        if self.features is not None:
            self.features.refuse_missing(perturbations, self.missing)

    def _features_of(self, name: str, targets: Sequence[str]) -> np.ndarray | None:
        if self.features is not None:
            return self.features.of(name)
        if not targets:
            return None
        total: np.ndarray = self.genes[[self.rows[gene] for gene in targets]].sum(axis=0)
        return total

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
