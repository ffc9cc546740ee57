"""Whether a prediction is about the same genes and pairs as the truth; nothing is made to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import DataError, listed

if TYPE_CHECKING:
    from harness.data import Cells, Scale


Axes = tuple[tuple[str, ...], frozenset[tuple[str, str]]]
"""The genes of one side in their order, and its (perturbation, context) pairs."""


def check_agreement(truth: Axes, prediction: Axes, of: str, name: str) -> None:
    """Refuse a prediction whose genes or pairs are not the truth's."""
    (true_genes, true_pairs), (genes, pairs) = truth, prediction
    if true_genes != genes:
        raise DataError(f"{name}: {_gene_difference(true_genes, genes, of)}")
    missing, extra = true_pairs - pairs, pairs - true_pairs
    if missing or extra:
        found = " and ".join(
            f"{word} {listed(sorted(label_of(pair) for pair in differing))}"
            for word, differing in (("lacks", missing), ("has in addition", extra))
            if differing
        )
        raise DataError(
            f"{name}: the perturbations are not those of {of}: it {found}. Expected the same "
            "perturbations, in the same contexts, on both sides. Predict all of them and no others."
        )


def check_scales(truth: Scale, cells: Cells, of: str, name: str) -> None:
    """Refuse a prediction on another scale than the truth's; zeros alone are on either."""
    if cells.scale == truth or (cells.scale == "counts" and not cells.library_sizes().any()):
        return
    raise DataError(
        f"{name}: the values are {cells.scale}, those of {of} are {truth}: they would be brought "
        f"to log1p in different ways, if at all. Expected {truth}. Give both on one scale, or say "
        f"that this is meant: --prediction-scale {cells.scale} (in a job, prediction_scale)."
    )


def _gene_difference(truth: tuple[str, ...], prediction: tuple[str, ...], of: str) -> str:
    if sorted(truth) == sorted(prediction):
        at = next(i for i, (a, b) in enumerate(zip(truth, prediction, strict=True)) if a != b)
        return (
            f"the genes are those of {of} in another order: gene {at} is {prediction[at]!r}, "
            f"expected {truth[at]!r}. Put the columns into the truth's order."
        )
    missing, extra = sorted(set(truth) - set(prediction)), sorted(set(prediction) - set(truth))
    parts = [f"lacks {listed(missing)}"] * bool(missing) + [f"adds {listed(extra)}"] * bool(extra)
    return (
        f"the genes are not those of {of}: found {len(prediction)}, expected {len(truth)}; it "
        f"{' and '.join(parts) or 'gives some twice'}. Predict exactly the truth's genes."
    )


def label_of(pair: tuple[str, str]) -> str:
    """Name a (perturbation, context) pair in a message."""
    perturbation, context = pair
    return f"{perturbation} in {context}" if context else perturbation
