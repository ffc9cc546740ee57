"""What perturbations did elsewhere, weighted by how well it has told what they do here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import NonNegative, at_least, register
from harness.models.effects import MeanEffects, effects_elsewhere
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("context-regression")
class ContextRegression:
    """Predicts effects in a context from those in others, by slopes that its shown pairs teach.

    For a context c with shown perturbations S, and the other contexts c' as regressors::

        effect of p in c  =  b_c + Σ over c' of β_c' (effect of p in c' − b_c')

    (n_genes,), log1p scale, b the mean effects over S, which makes β the slopes of a least-squares
    fit with an intercept for each gene. Genes that p itself acts on have slopes of their own: what
    silencing takes from its target is alike everywhere, whatever else differs. With slopes 1 / n it
    is context-transfer, with 0 perturbation-mean, and below 0 where a context answers the other way
    round, as activation does to interference.

    Few shown pairs say little, so that all of it is shrunk, as in the empirical Bayes of Efron and
    Morris, JASA 1973. Slopes: to a prior that counts for `shrinkage` perturbations, the slope with
    which the other contexts predict each other, or 1 where there is one other only. The mean effect
    b_c: to what the slopes make of the others' (James and Stein's estimator), by how far it is from
    that compared with what the slopes leave unexplained. A context with fewer than two shown pairs
    has what the others say alone. Transfer between covariates is the task of Wu et al.,
    PerturBench 2024, and the shift of scGen (see `ContextTransfer`) its simplest answer. A
    perturbation that was trained on in no other context gets the mean effect, and a note.
    """

    def __init__(self, *, shrinkage: NonNegative = 2.0) -> None:
        self.shrinkage = shrinkage

    def fit(self, train: TrainView) -> Self:
        """Compute the effect of every training pair; slopes follow once a context is asked for."""
        at_least(0.0, shrinkage=self.shrinkage)
        self.train_ = train
        self.effects_ = effects_elsewhere(train)
        self.means_ = MeanEffects(train)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the regressed effect on top of the context's controls."""
        self.notes_ = []
        fitted: dict[str, _Regression] = {}
        for query in queries:
            context = query.context
            if context not in fitted:
                fitted[context] = _Regression(self, context)
            if set(self.effects_.get(query.perturbation, {})) - {context}:
                effect = fitted[context].effect(query.perturbation)
            else:
                effect = self.means_.of(context)
                self.notes_.append(
                    f"{query.perturbation} in {context}: trained on in no other context, "
                    "the mean effect is used"
                )
            yield Prediction(query, profile=self.train_.control_pseudobulk(context) + effect)


class _Regression:
    """The slopes of one context on the others."""

    def __init__(self, model: ContextRegression, context: str) -> None:
        self._model, self._context = model, context
        train = model.train_
        self._rows = {gene: row for row, gene in enumerate(train.genes)}
        shown = [p for p, c in train.pairs if c == context]
        self._sources = [c for c in model.means_.by_context if c != context]
        self._origins = {c: self._origin(c, shown) for c in self._sources}
        prior = self._prior()
        self._slopes = [self._fit(shown, prior, own=own) for own in (False, True)]
        self._mean = self._shrunken_mean(shown)

    def effect(self, perturbation: str) -> np.ndarray:
        """Predict the effect of a perturbation: (n_genes,)."""
        sources = self._deviations(perturbation)
        effect: np.ndarray = self._mean + self._slopes[False] @ sources
        own = self._own(perturbation)
        effect[own] = self._mean[own] + self._slopes[True] @ sources[:, own]
        return effect

    def _shrunken_mean(self, shown: Sequence[str]) -> np.ndarray:
        """Return the mean effect over the shown, its intercept shrunk: (n_genes,)."""
        mean, slopes = self._model.means_.of(self._context), self._slopes[False]
        if not self._sources:
            return mean
        predicted = slopes @ np.array(list(self._origins.values()))
        everywhere = np.mean([self._model.means_.of(c) for c in self._sources], axis=0)
        prior: np.ndarray = predicted + (1 - slopes.sum()) * everywhere
        distance = mean - prior
        if len(shown) < 2 or not distance.any():
            return prior
        left = [self._true(p) - slopes @ self._deviations(p) for p in shown]
        error = np.var(left, axis=0, ddof=1).mean() / len(shown)
        kept = max(0.0, 1.0 - float(error / (distance**2).mean()))
        shrunken: np.ndarray = prior + kept * distance
        return shrunken

    def _true(self, perturbation: str) -> np.ndarray:
        """Look up the effect of a shown perturbation in the context: (n_genes,)."""
        effect: np.ndarray = self._model.effects_[perturbation][self._context]
        return effect

    def _origin(self, source: str, shown: Sequence[str]) -> np.ndarray:
        """Return a source's mean effect over the shown perturbations, or over all it has."""
        effects = self._model.effects_
        common = [effects[p][source] for p in shown if source in effects[p]]
        return np.mean(common, axis=0) if common else self._model.means_.of(source)

    def _deviations(self, perturbation: str) -> np.ndarray:
        """Return a perturbation's effects less their means in each source: (n_sources, n_genes).

        A context where it was not measured has 0, the mean of what it could be.
        """
        known = self._model.effects_[perturbation]
        found = np.zeros((len(self._sources), len(self._rows)))
        for i, source in enumerate(self._sources):
            if source in known:
                found[i] = known[source] - self._origins[source]
        return found

    def _own(self, perturbation: str) -> list[int]:
        return [self._rows[gene] for gene in self._model.train_.targets(perturbation)]

    def _fit(self, shown: Sequence[str], prior: float, *, own: bool) -> np.ndarray:
        """Return the slopes, (n_sources,), of the targets' own rows or of all others."""
        n = len(self._sources)
        moments, products, count = np.zeros((n, n)), np.zeros(n), 0
        for perturbation in shown:
            x = self._deviations(perturbation)
            y = self._true(perturbation) - self._model.means_.of(self._context)
            rows = np.isin(np.arange(x.shape[1]), self._own(perturbation), invert=not own)
            moments += x[:, rows] @ x[:, rows].T
            products += x[:, rows] @ y[rows]
            count += bool(x.any())
        expected = np.full(n, prior / max(n, 1))
        if not count or not moments.any():
            return expected
        weight = np.diag(np.diag(moments)) * (self._model.shrinkage / count)
        weight += np.eye(n) * (1e-9 * np.trace(moments) / n)
        slopes: np.ndarray = np.linalg.solve(moments + weight, products + weight @ expected)
        return slopes

    def _prior(self) -> float:
        """Return the slope of each source on the mean of the others, pooled; 1 for one source."""
        product = moment = 0.0
        for known in self._model.effects_.values():
            found = [known[c] - self._origins[c] for c in self._sources if c in known]
            total = np.sum(found, axis=0) if len(found) > 1 else 0.0
            for deviation in found if len(found) > 1 else ():
                others = (total - deviation) / (len(found) - 1)
                product += float(others @ deviation)
                moment += float(others @ others)
        return product / moment if moment else 1.0
