"""Whether perturbations that are alike in the truth are alike in the prediction.

Kept apart from the other metrics for what it needs: scanpy's neighbours and igraph's communities,
which take seconds to import and which nothing else uses. Both are optional.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics.base import Values, metric

if TYPE_CHECKING:
    from harness.metrics.comparison import Comparison, Side

RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
"""At which predicted pseudobulks are clustered; the true ones are at 1."""

N_NEIGHBOURS = 15
N_ITERATIONS = 2
NEEDED = ("scanpy", "igraph", "sklearn")

NOT_INSTALLED = "not installed: pip install 'virtual-cell-harness[clustering]'"
"""Why there is no value: the packages that define it are missing."""


@metric("clustering_agreement", needs="profiles", higher_is_better=True, best=1.0, per_context=True)
def clustering_agreement(comparison: Comparison) -> Values:
    """Compare clusters of predicted with those of true pseudobulks by adjusted mutual information.

    Pseudobulks of a context's perturbations, log1p scale, float64; a graph of the 15 nearest by
    Euclidean distance (`scanpy.pp.neighbors`), divided by Leiden's algorithm (`scanpy.tl.leiden`,
    igraph, two iterations, seed 0) at resolution 1 for the truth and at 0.2, 0.4, 0.6, 0.8, 1, 1.5
    and 2 for the prediction, of which the best agreement counts, at least 0. One value for all
    perturbations of a context. It depends on the installed releases of scanpy, umap-learn and
    igraph, with few perturbations strongly: all of fewer than about ten are often one cluster, and
    then any prediction that is one cluster, too, scores 1. Undefined for fewer than three, where
    the oracle fails, and where the packages are not installed.
    """
    n_pairs = comparison.n_pairs
    if n_pairs < 3:
        return Values.for_all(np.nan, n_pairs, "fewer than three perturbations")
    if any(find_spec(name) is None for name in NEEDED):
        return Values.for_all(np.nan, n_pairs, NOT_INSTALLED)
    from sklearn.metrics import adjusted_mutual_info_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages' own futures
        (true,) = _clusters(_exact(comparison.truth), (1.0,))
        found = _clusters(_exact(comparison.prediction), RESOLUTIONS)
        scores = [float(adjusted_mutual_info_score(true, predicted)) for predicted in found]
    return Values.for_all(max(0.0, *scores), n_pairs)


def _exact(side: Side) -> np.ndarray:
    return side.pseudobulk if side.exact is None else side.exact


def _clusters(profiles: np.ndarray, resolutions: tuple[float, ...]) -> list[np.ndarray]:
    """Return the cluster of each profile at every resolution; one graph for all."""
    import scanpy

    annotated: Any = scanpy.AnnData(np.array(profiles))
    n_neighbours = min(N_NEIGHBOURS, len(profiles) - 1)
    scanpy.pp.neighbors(annotated, n_neighbors=n_neighbours, use_rep="X")
    found = []
    for resolution in resolutions:
        scanpy.tl.leiden(
            annotated,
            resolution=resolution,
            key_added="cluster",
            flavor="igraph",
            n_iterations=N_ITERATIONS,
        )
        found.append(annotated.obs["cluster"].to_numpy().astype(str))
    return found
