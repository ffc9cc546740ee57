"""Make calibrated.json with scPertEval; run in an environment with `scperteval==0.2.0`.

    pip install scperteval==0.2.0
    python tests/golden/make_calibrated.py papalexi21.h5ad

The oracle's metric functions are called as its runner calls them: on pseudobulks less its
leave-one-out mean of the other perturbations, and on matrices of cells. One thing is given to it:
the statistic that weighs genes, which is its `de_mwu` standardised rather than as Cliff's delta,
made here from `scipy.stats` alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.stats import mannwhitneyu, rankdata
from scperteval.protocols import metrics as oracle

sys.path.insert(0, str(Path(__file__).parent))
import cases

HERE = Path(__file__).parent
SIMULATED = (
    "plain",
    "sparse-both",
    "all-zero-genes-and-clipped-fold-changes",
    "constant-prediction",
    "baseline",
    "tiny-groups",
    "nothing-significant",
    "counts",
    "names-that-are-no-genes",
)


def dense(side: cases.Matrix) -> cases.Matrix:
    """Return the side as dense log1p values, counts scaled to the median library size."""
    X = side.X.toarray() if sparse.issparse(side.X) else np.asarray(side.X)
    if np.modf(X)[0].any():
        return cases.replace(side, X=X)
    sizes = X.sum(axis=1, dtype=np.float64)
    factors = (sizes / np.median(sizes[sizes > 0])).astype(np.float32)
    factors[factors == 0] = 1
    return cases.replace(side, X=np.log1p(X.astype(np.float32) / factors[:, None]))


def standardised(cells: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Z of the rank test of every gene, with correction for ties and none for continuity."""
    n, m = len(cells), len(control)
    z = np.zeros(cells.shape[1])
    for gene in range(cells.shape[1]):
        # SciPy sums ranks in the precision of the values.
        x, y = cells[:, gene].astype(np.float64), control[:, gene].astype(np.float64)
        _, counts = np.unique(rankdata(np.concatenate([x, y])), return_counts=True)
        ties = float((counts.astype(float) ** 3 - counts).sum())
        variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
        if len(counts) > 1:
            z[gene] = (mannwhitneyu(x, y).statistic - n * m / 2) / math.sqrt(variance)
    return z


def scored(case: cases.Case) -> dict[str, Any]:
    """Score every perturbation of a case with the oracle's functions."""
    truth, prediction = dense(case.truth), dense(case.prediction)
    names = sorted({str(name) for name in truth.labels} - {cases.CONTROL}, key=str.encode)
    cells = [truth.X[truth.labels == name] for name in names]
    guesses = [prediction.X[prediction.labels == name] for name in names]
    true, predicted = (
        np.array([part.mean(axis=0, dtype=np.float64) for part in side])
        for side in (cells, guesses)
    )
    control = truth.X[truth.labels == cases.CONTROL]
    found: dict[str, list[float]] = {}
    for at in range(len(names)):
        others = np.delete(true, at, axis=0).mean(axis=0)
        context = weighing(standardised(cells[at], control))
        t, p = true[at] - others, predicted[at] - others
        values = {
            "pearson_delta_perturbed_mean": oracle.pearson(t, p, context),
            "r2_delta_perturbed_mean": oracle.r2(t, p, context),
            "wmse": oracle.weighted_mse(t, p, context),
            "weighted_r2_delta_perturbed_mean": oracle.weighted_r2(t, p, context),
            "energy_distance": oracle.energy_distance(cells[at], guesses[at], context),
            "mmd2": oracle.unbiased_mmd_median(cells[at], guesses[at], context),
        }
        for name, value in values.items():
            found.setdefault(name, []).append("NaN" if math.isnan(value) else value)
    found["nir"] = oracle.nir(list(true), list(predicted), None).tolist()
    return {"perturbation": names, **found}


def weighing(statistic: np.ndarray) -> Any:
    """Stand in for the oracle's context, of which weighted metrics ask the truth's statistic."""
    return SimpleNamespace(
        current_pert="",
        cfg=SimpleNamespace(truth=""),
        de=lambda *_: SimpleNamespace(statistic=statistic),
    )


def main(*screens: str) -> None:
    """Write the golden file."""
    import anndata

    found = {name: scored(cases.SIMULATED[name]()) for name in SIMULATED}
    for path in map(Path, screens):
        annotated = anndata.read_h5ad(path)
        labels = annotated.obs["target_gene"].astype(str).replace({"control": cases.CONTROL})
        side = cases.Matrix(annotated.X.tocsr(), labels.to_numpy(), tuple(annotated.var_names))
        for name in ("other-half", "means-of-other-half"):
            found[f"{path.stem}:{name}"] = scored(cases.screens(side)[name])
    packages = ("scperteval", "scipy", "numpy", "scikit-learn")
    made = {name: importlib.metadata.version(name) for name in packages}
    made["python"] = sys.version.split()[0]
    text = json.dumps({"made_with": made, "cases": found}, separators=(",", ":"))
    (HERE / "calibrated.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
