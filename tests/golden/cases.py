"""Inputs of the golden files, drawn again from a seed wherever they are needed.

Read by the scripts that run the oracles (in environments of their own) and by the tests, so this
module imports NumPy and SciPy only. Draws use uniforms of one bit generator and arithmetic, never
NumPy's distributions, whose streams may change between releases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL = "non-targeting"


@dataclass(frozen=True)
class Matrix:
    """One side: values, and the perturbation of each cell."""

    X: Any
    labels: np.ndarray
    genes: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A truth and a prediction."""

    truth: Matrix
    prediction: Matrix


def uniforms(seed: int, *shape: int) -> np.ndarray:
    """Draw uniforms in (0, 1) from a bit generator whose stream is fixed."""
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(11)).astype(np.float64).reshape(shape) + 0.5) / 2.0**53


def counts(seed: int, sizes: dict[str, int], genes: tuple[str, ...], strength: float) -> Matrix:
    """Draw overdispersed counts; effects, on a third of the genes, do not depend on the seed."""
    labels = np.repeat(list(sizes), list(sizes.values()))
    n_genes = len(genes)
    base = np.exp(2.5 * uniforms(1, n_genes) - 0.5)
    effect = {
        name: 2.0
        ** (strength * (uniforms(7 + at, n_genes) - 0.5) * (uniforms(70 + at, n_genes) < 0.35))
        for at, name in enumerate(sorted(sizes))
    }
    depth = np.exp(0.8 * (uniforms(seed, len(labels)) - 0.5))
    means = np.array([base if name == CONTROL else base * effect[name] for name in labels])
    means *= depth[:, None]
    drawn = np.floor(-np.log(uniforms(seed + 1, len(labels), n_genes)) * means)
    order = np.argsort(uniforms(seed + 2, len(labels)))
    return Matrix(drawn[order].astype(np.float32), labels[order], genes)


def logged(matrix: Matrix) -> Matrix:
    """Scale to 100 counts per cell and take log1p, in float32."""
    X = matrix.X.astype(np.float64)
    total = np.maximum(X.sum(axis=1, keepdims=True), 1)
    return replace(matrix, X=np.log1p(X / total * 100).astype(np.float32))


def tiled(matrix: Matrix, profiles: dict[str, np.ndarray]) -> Matrix:
    """Replace the cells of each perturbation by its profile; controls stay."""
    X = np.array(matrix.X.toarray() if sparse.issparse(matrix.X) else matrix.X, dtype=np.float32)
    for name, profile in profiles.items():
        X[matrix.labels == name] = profile
    return replace(matrix, X=X)


def means(matrix: Matrix) -> dict[str, np.ndarray]:
    """Mean profile of every label."""
    X = matrix.X.toarray() if sparse.issparse(matrix.X) else np.asarray(matrix.X)
    return {
        str(name): X[matrix.labels == name].mean(axis=0, dtype=np.float64)
        for name in np.unique(matrix.labels)
    }


def baseline(truth: Matrix) -> Matrix:
    """`cell-eval baseline`: the mean of all pseudobulks, the control's among them, as each cell."""
    profiles = means(truth)
    mean = np.mean(list(profiles.values()), axis=0)
    return tiled(truth, {name: mean for name in profiles if name != CONTROL})


GENES = tuple(f"G{number}" for number in range(90))
SIZES = {CONTROL: 90, "G1": 40, "G2": 40, "G5": 35, "G7": 50, "G80": 40, "other": 30}


def _plain() -> Case:
    return Case(
        logged(counts(100, SIZES, GENES, 6.0)),
        logged(counts(200, SIZES, GENES, 5.0)),
    )


def _sparse_truth() -> Case:
    plain = _plain()
    return replace(plain, truth=replace(plain.truth, X=sparse.csr_matrix(plain.truth.X)))


def _sparse_both() -> Case:
    case = _sparse_truth()
    X = sparse.csc_matrix(case.prediction.X)
    return replace(case, prediction=replace(case.prediction, X=X))


def _double() -> Case:
    plain = _plain()
    X = np.log1p(plain.prediction.X.astype(np.float64)) / np.log(2.5)
    return replace(plain, prediction=replace(plain.prediction, X=X))


def _zeros() -> Case:
    """Genes that nobody expresses, genes of the control alone, and genes of one perturbation."""
    case = _plain()
    sides = []
    for side in (case.truth, case.prediction):
        X = side.X.copy()
        X[:, :5] = 0
        X[side.labels != CONTROL, 5:12] = 0
        X[side.labels == CONTROL, 12:20] = 0
        sides.append(replace(side, X=X))
    return Case(*sides)


def _constant() -> Case:
    case = _plain()
    return replace(case, prediction=tiled(case.truth, means(case.prediction)))


def _baseline() -> Case:
    case = _plain()
    return replace(case, prediction=baseline(case.truth))


def _control_mean() -> Case:
    case = _plain()
    profile = means(case.truth)[CONTROL]
    names = [name for name in SIZES if name != CONTROL]
    return replace(case, prediction=tiled(case.truth, dict.fromkeys(names, profile)))


TINY = {CONTROL: 30, "G1": 1, "G2": 3, "G3": 8, "G4": 9, "G5": 40}


def _jittered(matrix: Matrix, seed: int) -> Matrix:
    X = matrix.X + 0.01 + 0.2 * uniforms(seed, *matrix.X.shape)
    return replace(matrix, X=X.astype(np.float32))


def _tiny_groups() -> Case:
    """Groups of one to nine cells; no values tied in the prediction, so its p-values are exact."""
    truth = logged(counts(300, TINY, GENES[:40], 9.0))
    return Case(truth, _jittered(logged(counts(400, TINY, GENES[:40], 9.0)), 5))


def _tiny_untied() -> Case:
    case = _tiny_groups()
    return replace(case, truth=_jittered(case.truth, 6))


def _few_controls() -> Case:
    sizes = {**TINY, CONTROL: 7, "G3": 20, "G6": 120}
    return Case(
        _jittered(logged(counts(500, sizes, GENES[:40], 9.0)), 8),
        logged(counts(600, sizes, GENES[:40], 9.0)),
    )


def _nothing_significant() -> Case:
    return Case(
        logged(counts(100, SIZES, GENES, 0.0)),
        logged(counts(200, SIZES, GENES, 0.0)),
    )


def _nothing_significant_in_truth() -> Case:
    return replace(_plain(), truth=logged(counts(100, SIZES, GENES, 0.0)))


def _nothing_significant_in_prediction() -> Case:
    return replace(_plain(), prediction=logged(counts(200, SIZES, GENES, 0.0)))


def _counts() -> Case:
    truth, prediction = counts(100, SIZES, GENES, 6.0), counts(200, SIZES, GENES, 5.0)
    return Case(replace(truth, X=sparse.csr_matrix(truth.X)), prediction)


def _integer_counts() -> Case:
    case = _counts()
    X = case.prediction.X.astype(np.int64)
    return replace(case, prediction=replace(case.prediction, X=X))


def _double_counts() -> Case:
    case = _counts()
    truth = replace(case.truth, X=case.truth.X.toarray().astype(np.float64))
    return Case(truth, replace(case.prediction, X=case.prediction.X.astype(np.float64)))


def _odd_names() -> Case:
    sizes = dict(zip(["10", "2", "B", "a", "é", "G3"], [30, 30, 30, 30, 30, 30], strict=True))
    sizes = {CONTROL: 60, **sizes}
    return Case(
        logged(counts(700, sizes, GENES[:50], 7.0)),
        logged(counts(800, sizes, GENES[:50], 6.0)),
    )


SIMULATED: dict[str, Callable[[], Case]] = {
    "plain": _plain,
    "sparse-truth": _sparse_truth,
    "sparse-both": _sparse_both,
    "double-precision-prediction": _double,
    "all-zero-genes-and-clipped-fold-changes": _zeros,
    "constant-prediction": _constant,
    "baseline": _baseline,
    "control-mean": _control_mean,
    "tiny-groups": _tiny_groups,
    "tiny-groups-without-ties": _tiny_untied,
    "few-controls": _few_controls,
    "nothing-significant": _nothing_significant,
    "nothing-significant-in-truth": _nothing_significant_in_truth,
    "nothing-significant-in-prediction": _nothing_significant_in_prediction,
    "counts": _counts,
    "integer-counts": _integer_counts,
    "double-precision-counts": _double_counts,
    "names-that-are-no-genes": _odd_names,
}


def screens(truth: Matrix) -> dict[str, Case]:
    """Predictions derived from a real screen of counts, deterministically."""
    even = np.arange(truth.X.shape[0]) % 2 == 0
    half, rest = (replace(truth, X=truth.X[at], labels=truth.labels[at]) for at in (even, ~even))
    names = [str(name) for name in np.unique(truth.labels) if name != CONTROL]
    nexts = dict(zip(names, names[1:] + names[:1], strict=True))
    swapped = np.array([nexts.get(str(label), CONTROL) for label in rest.labels])
    log_half = replace(half, X=logged(replace(half, X=half.X.toarray())).X)
    profiles = means(logged(replace(rest, X=rest.X.toarray())))
    del profiles[CONTROL]
    return {
        "other-half": Case(half, rest),
        "next-perturbation": Case(half, replace(rest, labels=swapped)),
        "baseline": Case(log_half, baseline(log_half)),
        "means-of-other-half": Case(log_half, tiled(log_half, profiles)),
    }
