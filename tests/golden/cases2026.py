"""Inputs of the golden files of the 2026 challenge: raw counts, drawn again from a seed.

NumPy and the draws of `cases` only, for the oracle's environment imports this too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

try:
    from tests.golden import cases
except ModuleNotFoundError:  # in the oracle's environment, beside this file
    import cases  # type: ignore[import-not-found, no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable

Case, Matrix, CONTROL = cases.Case, cases.Matrix, cases.CONTROL
GENES, SIZES, TINY = cases.GENES, cases.SIZES, cases.TINY
EVEN = {CONTROL: 81, "G1": 41, "G2": 40, "G5": 35, "G7": 50, "G80": 40, "other": 31}


def _pair(truth: float = 6.0, prediction: float = 5.0) -> Case:
    return Case(cases.counts(100, EVEN, GENES, truth), cases.counts(200, EVEN, GENES, prediction))


def _both(case: Case, change: Callable[[Matrix], Matrix]) -> Case:
    return Case(change(case.truth), change(case.prediction))


def _sparse() -> Case:
    return _both(_pair(), lambda side: replace(side, X=sparse.csr_matrix(side.X)))


def _integers() -> Case:
    return _both(_pair(), lambda side: replace(side, X=side.X.astype(np.int64)))


def _zeros() -> Case:
    """Genes that nobody expresses, genes of the control alone, and genes of one side alone."""

    def change(side: Matrix) -> Matrix:
        X = side.X.copy()
        X[:, :5] = 0
        X[side.labels != CONTROL, 5:12] = 0
        X[side.labels == CONTROL, 12:20] = 0
        return replace(side, X=X)

    case = _both(_pair(), change)
    X = case.prediction.X.copy()
    X[:, 20:25] = 0
    return replace(case, prediction=replace(case.prediction, X=X))


def gated(side: Matrix) -> Matrix:
    """Let one gene take nearly all counts and thin half of the others: many lie near 5 CPM."""
    X = side.X.copy()
    X[:, -1] = 20_000 + np.floor(3000 * X[:, -1])
    kept = np.linspace(0.02, 1.0, X.shape[1] - 1)
    X[:, :-1] *= cases.uniforms(33, X.shape[0], X.shape[1] - 1) < kept
    return replace(side, X=X.astype(np.float32))


def _constant() -> Case:
    """The rounded mean of each perturbation as each of its cells."""
    case = _pair()
    rounded = {name: np.rint(mean) for name, mean in cases.means(case.prediction).items()}
    return replace(case, prediction=cases.tiled(case.prediction, rounded))


def _pasted_control() -> Case:
    """Some perturbations predicted by all control cells: effects of exactly zero, all tied."""
    case = _pair()
    control = case.truth.X[case.truth.labels == CONTROL]
    parts, labels = [case.prediction.X], [case.prediction.labels]
    for name in ("G2", "G7"):
        kept = labels[0] != name
        parts[0], labels[0] = parts[0][kept], labels[0][kept]
        parts.append(control)
        labels.append(np.repeat([name], len(control)))
    side = Matrix(np.vstack(parts), np.concatenate(labels), GENES)
    return replace(case, prediction=side)


def _pinned() -> Case:
    """All perturbations predicted alike, with the scatter of control cells: the budget binds."""
    case = _pair()
    control = case.truth.X[case.truth.labels == CONTROL]
    X = case.prediction.X.copy()
    for name in np.unique(case.prediction.labels):
        if name != CONTROL:
            mine = np.flatnonzero(case.prediction.labels == name)
            X[mine] = control[np.arange(len(mine)) % 31]
    return replace(case, prediction=replace(case.prediction, X=X))


def _scattered() -> Case:
    """Cells of very unlike depth, a few of them empty: noise above the truth's, so capped."""
    case = _pair()
    spread = np.floor(20 * cases.uniforms(44, len(case.prediction.labels)) ** 6)
    return replace(case, prediction=replace(case.prediction, X=case.prediction.X * spread[:, None]))


def _ties() -> Case:
    """Zeros and ones, and few library sizes."""

    def change(side: Matrix) -> Matrix:
        X = np.minimum(side.X, 1)
        X[:, -1] = 100 - X[:, :-1].sum(axis=1) % 100
        X[:, -1] += 40 * (cases.uniforms(55, len(X)) < 0.5)
        return replace(side, X=X.astype(np.float32))

    return _both(_pair(9.0, 8.0), change)


def _tiny_groups() -> Case:
    return Case(cases.counts(300, TINY, GENES[:40], 9.0), cases.counts(400, TINY, GENES[:40], 9.0))


def _one_perturbation() -> Case:
    sizes = {CONTROL: 60, "G3": 50}
    return Case(
        cases.counts(310, sizes, GENES[:60], 9.0), cases.counts(410, sizes, GENES[:60], 9.0)
    )


def _truth_itself() -> Case:
    case = _pair()
    return Case(case.truth, case.truth)


def _odd_names() -> Case:
    sizes = dict(zip(["10", "2", "B", "a", "é", "G3"], [30] * 6, strict=True))
    sizes = {CONTROL: 60, **sizes}
    return Case(
        cases.counts(700, sizes, GENES[:50], 7.0), cases.counts(800, sizes, GENES[:50], 6.0)
    )


def _exchanged() -> Case:
    """Every perturbation predicted by the cells of the next, controls shuffled among them."""
    case = _pair()
    names = [name for name in EVEN if name != CONTROL]
    nexts = dict(zip(names, names[1:] + names[:1], strict=True)) | {CONTROL: CONTROL}
    labels = np.array([nexts[str(label)] for label in case.prediction.labels])
    return replace(case, prediction=replace(case.prediction, labels=labels))


def _other_sizes() -> Case:
    """A prediction with other numbers of cells than the truth."""
    case = _pair()
    sizes = dict.fromkeys(EVEN, 25) | {"G1": 77, "other": 9}
    return replace(case, prediction=cases.counts(900, sizes, GENES, 5.0))


SIMULATED: dict[str, Callable[[], Case]] = {
    "plain": _pair,
    "sparse": _sparse,
    "integers": _integers,
    "all-zero-genes": _zeros,
    "genes-near-the-gate": lambda: _both(_pair(), gated),
    "constant-prediction": _constant,
    "pasted-control": _pasted_control,
    "pinned-prediction": _pinned,
    "scattered-prediction": _scattered,
    "ties": _ties,
    "tiny-groups": _tiny_groups,
    "one-perturbation": _one_perturbation,
    "truth-itself": _truth_itself,
    "names-that-are-no-genes": _odd_names,
    "other-group-sizes": _other_sizes,
    "nothing-significant-in-truth": lambda: _pair(1.2, 5.0),
    "nothing-significant-in-prediction": lambda: _pair(6.0, 0.0),
    "little-significant": lambda: _pair(2.0, 2.0),
    "exchanged": _exchanged,
    "no-effect-in-truth": lambda: replace(_pair(), truth=cases.counts(1000, EVEN, GENES, 0.0)),
}


def screens(truth: Matrix) -> dict[str, Case]:
    """Predictions made of a real screen of counts."""
    found = cases.screens(truth)
    return {name: found[name] for name in ("other-half", "next-perturbation")}


SCALED = ("plain", "sparse", "genes-near-the-gate", "all-zero-genes", "papalexi21:other-half")
"""Cases whose truth gets a baseline and a replicate anchor too."""
