"""Regression of what perturbations do on their features, for every penalty by one decomposition.

Every such model predicts a weighted sum of the training perturbations' residuals Y (n, n_genes),
with weights that depend on the inner products of Y alone. So the error of a penalty for left-out
perturbations costs nothing that grows with the genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.models.features import features_of
from harness.models.penalty_choice import Choice, Penalty, chosen
from harness.models.residuals import PENALTIES, Residuals, RidgePath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.models.features import Features, Missing
    from harness.tasks import Pair, TrainView

    Kernel = Callable[[np.ndarray], np.ndarray]
    """Returns the inner products of vectors, (m, n_features), with the training ones: (m, n)."""


class InnerProducts:
    """The linear kernel: inner products with the training vectors, (n, n_features)."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return (m, n) for rows (m, n_features)."""
        product: np.ndarray = rows @ self.vectors.T
        return product


class FeatureRegression:
    """Base of the models that regress residuals on features with a penalty.

    A subclass declares the parameters, and may have another kernel or other weights.
    """

    features: str
    n_features: int | None
    penalty: Penalty | None
    missing: Missing

    def _kernel_of(self, vectors: np.ndarray) -> Kernel:
        """Return the kernel for training vectors, (n, n_features)."""
        return InnerProducts(vectors)

    def _combined(self, path: RidgePath, rows: np.ndarray, penalty: float) -> np.ndarray:
        """Return the weights of training residuals in predictions: (m, n) for a kernel's rows."""
        combined: np.ndarray = rows @ path.inverse(penalty)
        return combined

    def _regress(self, train: TrainView) -> RidgePath:
        """Set what all these models learn, and return the regression for any penalty."""
        with train.remembering():
            features = features_of(train, self.features, self.n_features)
            self.residuals_ = Residuals(train, features, self.missing)
            self.kernel_ = self._kernel_of(self.residuals_.vectors)
            path = RidgePath(self.kernel_(self.residuals_.vectors), self.residuals_.values)
            self.choice_ = self._choice(train, features, path)
        self.penalty_ = self.choice_.penalty
        self.notes_: list[str] = []
        return path

    def _choice(self, train: TrainView, features: Features, path: RidgePath) -> Choice:
        if self.penalty is None:
            return Choice(path.least_left_out_error(), "")
        if not isinstance(self.penalty, str):
            return Choice(self.penalty, "")

        def errors(view: TrainView, pairs: Sequence[Pair]) -> np.ndarray:
            seen = features if features.fixed else self._features_of(view)
            return self._errors(Residuals(view, seen, self.missing), train, pairs)

        return chosen("penalty", PENALTIES, train, errors, path.least_left_out_error)

    def _features_of(self, view: TrainView) -> Features:
        return features_of(view, self.features, self.n_features)

    def _errors(self, known: Residuals, train: TrainView, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the squared error of left-out pairs, by penalty and up to a constant.

        With T (m, n_genes) the true residuals and C the weights, ``|T − C Y|² − |T|²`` is
        ``Σ C ∘ (C Y Yᵀ − 2 T Yᵀ)``.
        """
        vectors, true = known.others(train, pairs)
        if not len(vectors) or not known.names:
            return np.zeros(len(PENALTIES))
        kernel = self._kernel_of(known.vectors)
        path, rows = RidgePath(kernel(known.vectors), known.values), kernel(vectors)
        shared = 2 * true @ known.values.T
        weights = (self._combined(path, rows, penalty) for penalty in PENALTIES)
        return np.array([(C * (C @ path.gram - shared)).sum() for C in weights])
