"""What models on features share: what to learn from, and answers as weighted sums of it.

The residual of a perturbation is what it does beyond what all do: the mean, over the contexts where
it was trained on, of its effect less the mean effect of the context. A perturbation counts once,
however many contexts it was seen in, so that leaving one out leaves all of it out.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.models.base import at_least
from harness.models.effects import MeanEffects
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.models.features import Features, Missing
    from harness.tasks import Pair, Query, TrainView

PENALTIES = 10.0 ** np.arange(-3, 3.5, 0.5)
"""Ridge penalties to choose from, in units of the mean squared length of a feature vector."""


class Residuals:
    """Training perturbations that have features: their residuals and their vectors.

    Vectors are centred, and divided by one number so that their mean squared length is 1: how they
    differ from each other stays as it is, and a penalty means the same for every kind of features.

    Attributes
    ----------
    names
        (n,) perturbations.
    values
        Their residuals on the log1p scale: (n, n_genes).
    vectors
        (n, n_features).
    """

    def __init__(self, train: TrainView, features: Features, missing: Missing) -> None:
        self._train = train
        self._features = features
        self._missing = missing
        self.means = MeanEffects(train)
        vectors = {name: features.of(name) for name in train.perturbations}
        features.refuse_missing(train.perturbations, missing)
        self.names = tuple(name for name, vector in vectors.items() if vector is not None)
        self.values = self._residuals()
        raw = [vector for vector in vectors.values() if vector is not None]
        together = np.array(raw).reshape(len(raw), features.n_features)
        self._centre = together.mean(axis=0) if raw else np.zeros(features.n_features)
        centred = together - self._centre
        self._scale = float(np.sqrt((centred**2).sum(axis=1).mean())) if raw else 1.0
        self.vectors = centred / (self._scale or 1.0)

    def others(self, train: TrainView, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors and true residuals of other pairs, those without features left out.

        Parameters
        ----------
        train
            A view that shows them.

        Returns
        -------
        :
            (m, n_features), as `vectors`, and (m, n_genes), beyond the mean effects known here.
        """
        vectors = [self._features.of(pair.perturbation) for pair in pairs]
        found = [(p, v) for p, v in zip(pairs, vectors, strict=True) if v is not None]
        true = [train.effect(*pair) - self.means.of(pair.context) for pair, _ in found]
        raw = np.reshape([v for _, v in found], (len(found), self._features.n_features))
        return self._scaled(raw), np.reshape(true, (len(found), len(train.genes)))

    def answers(
        self,
        queries: Sequence[Query],
        residual_of: Callable[[np.ndarray], np.ndarray],
        notes: list[str],
    ) -> Iterator[Prediction]:
        """Yield for each query the mean effect of its context and a residual.

        Parameters
        ----------
        residual_of
            Returns a residual, (n_genes,), for a vector, (n_features,); called only where there is
            a perturbation to have learned from.
        notes
            Gets a sentence for each query that the mean effect alone has to answer.
        """
        vectors = {query.perturbation: self._features.of(query.perturbation) for query in queries}
        self._features.refuse_missing(vectors, self._missing)
        for query in queries:
            effect, vector = self.means.of(query.context), vectors[query.perturbation]
            if vector is None or not self.names:
                notes.append(f"{query.perturbation} in {query.context}: {self._why(vector)}")
            else:
                effect = effect + residual_of(self._scaled(vector))
            control = self._train.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + effect)

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = (raw - self._centre) / (self._scale or 1.0)
        return scaled

    def _why(self, vector: np.ndarray | None) -> str:
        if vector is not None:
            return "no training perturbation has features, the mean effect is used"
        if self._features.source == "identity":
            return "it, or a part of it, was not trained on, the mean effect is used"
        if self._features.table:
            return f"{self._features.table} has no row for it, the mean effect is used"
        return "its target is no gene of the screen, the mean effect is used"

    def _residuals(self) -> np.ndarray:
        """Return the residual of each perturbation that has features: (n, n_genes)."""
        rows = {name: row for row, name in enumerate(self.names)}
        total = np.zeros((len(rows), len(self._train.genes)))
        counts = np.zeros((len(rows), 1))
        for perturbation, context in self._train.pairs:
            if perturbation in rows:
                row = rows[perturbation]
                effect = self._train.effect(perturbation, context)
                total[row] += effect - self.means.of(context)
                counts[row] += 1
        residuals: np.ndarray = total / counts
        return residuals


class RidgePath:
    """Ridge regression on a kernel, solved for any penalty by one decomposition.

    Attributes
    ----------
    values
        Y, the residuals of the training perturbations: (n, n_genes).
    sizes, axes
        Eigenvalues, none below 0, and eigenvectors of the kernel K: (n,) and (n, n).
    """

    def __init__(self, kernel: np.ndarray, values: np.ndarray) -> None:
        sizes, self.axes = np.linalg.eigh(kernel)
        self.sizes = np.maximum(sizes, 0.0)
        self.values = values

    @cached_property
    def gram(self) -> np.ndarray:
        """``Y Yᵀ``: (n, n)."""
        gram: np.ndarray = self.values @ self.values.T
        return gram

    def shrinkage(self, penalty: float) -> np.ndarray:
        """Return the eigenvalues of ``(K + λI)⁻¹``: (n,).

        Without a penalty, what no perturbation tells of has 0: the least of all solutions.
        """
        at_least(0.0, penalty=penalty)
        total = self.sizes + penalty
        told = total > total.max(initial=0.0) * 1e-12
        shrinkage: np.ndarray = np.divide(1.0, total, out=np.zeros_like(total), where=told)
        return shrinkage

    def inverse(self, penalty: float) -> np.ndarray:
        """Return ``(K + λI)⁻¹``: (n, n)."""
        inverse: np.ndarray = (self.axes * self.shrinkage(penalty)) @ self.axes.T
        return inverse

    def weights(self, penalty: float) -> np.ndarray:
        """Return ``(K + λI)⁻¹ Y``: (n, n_genes)."""
        weights: np.ndarray = self.axes @ (
            self.shrinkage(penalty)[:, None] * (self.axes.T @ self.values)
        )
        return weights

    def least_left_out_error(self) -> float:
        """Return the one of `PENALTIES` by which each perturbation is best told by all others.

        That needs no further fit: with ``H = K (K + λI)⁻¹`` the error is
        ``(Y − HY)ᵢ / (1 − Hᵢᵢ)``.
        """
        axes, inner = self.axes, self.axes.T @ self.gram @ self.axes
        errors = []
        for penalty in PENALTIES:
            left = penalty / (self.sizes + penalty)  # the eigenvalues of I - H
            residual = np.einsum("ij,jk,ik->i", axes * left, inner, axes * left, optimize=True)
            errors.append((residual / ((axes**2) @ left) ** 2).sum())
        return float(PENALTIES[int(np.argmin(errors))])
