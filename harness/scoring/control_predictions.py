"""Predictions that say what a metric is worth on a screen: controls, floors, and known tricks.

Each takes what a screen's halves offer in one context (`Halves`) and gives cells for every pair,
and with them the controls that they are measured from. Nothing here is a model: what is predicted
may be the other half of the truth itself, which is what makes it a control.

*Positive controls* know the answer as well as an experiment can: ``technical-duplicate``, the other
half of each pair's cells, and ``interpolated-duplicate``, its mean where the truth's half calls a
gene and the mean of the other perturbations where not (weight one minus the adjusted p-value;
Miller et al. 2025, bioRxiv 2025.10.20.683304). ``bootstrap`` draws the truth's own cells again.

*Negative controls and floors* know nothing of the pair: ``perturbed-mean``, the mean of the other
perturbations of the context; ``control-mean``, control cells as they are; ``shuffled-labels``, the
duplicate of another pair.

*Tricks* start from ``weak-model``, which knows a little of each pair as trained models do: the mean
of the others, and a third of the way to the duplicate's mean. They change it by something that
needs no knowledge of the pair. Whoever predicts nothing has nothing to blow up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KNOWN_SHARE = 0.33
"""How far ``weak-model`` goes from the mean of the others to the pair's own mean."""

RESCALED_BY = 20.0
"""What ``rescaled`` multiplies effects by."""

TWISTED_BY = 5.0
"""What ``twisted-controls`` multiplies the mean effect by before it is taken off the controls."""

ADDED_DEVIATION = 1.0
"""Standard deviation on the log1p scale of what ``added-variance`` adds."""

BELOW = 14.9
"""Log1p values stay below this; from 15 on, scorers refuse them."""


@dataclass(frozen=True)
class Halves:
    """One context of a screen in halves, on the log1p scale.

    Attributes
    ----------
    perturbations
        Names of the pairs.
    truth, duplicate
        For each pair (n_cells, n_genes) float32: the half that is scored against, and the other.
    controls
        (n_controls, n_genes) float32: the half that a model would be shown.
    called
        (n_pairs, n_genes) adjusted p-values of the truth's half against its controls.
    targets
        For each pair the columns of the genes that it acts on.
    depth
        (n_controls,) a control cell's total count by the screen's median; None: not known.
    """

    perturbations: tuple[str, ...]
    truth: tuple[np.ndarray, ...]
    duplicate: tuple[np.ndarray, ...]
    controls: np.ndarray
    called: np.ndarray
    targets: tuple[tuple[int, ...], ...]
    depth: np.ndarray | None = None

    @property
    def control_mean(self) -> np.ndarray:
        """(n_genes,) float64 mean of the shown controls."""
        mean: np.ndarray = self.controls.mean(axis=0, dtype=np.float64)
        return mean

    @property
    def means(self) -> np.ndarray:
        """(n_pairs, n_genes) float64 mean of each pair's duplicate."""
        return np.array([cells.mean(axis=0, dtype=np.float64) for cells in self.duplicate])

    @property
    def means_of_others(self) -> np.ndarray:
        """(n_pairs, n_genes) the mean of the other pairs' means; needs two pairs."""
        means = self.means
        others: np.ndarray = (means.sum(axis=0) - means) / (len(means) - 1)
        return others


class Predicted(NamedTuple):
    """Cells of each pair, and the controls beside them: each (n_cells, n_genes) float32."""

    pairs: tuple[np.ndarray, ...]
    controls: np.ndarray


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of prediction.

    Roles are ``positive``, ``negative``, ``floor``, ``base`` and ``trick``.
    """

    name: str
    role: str
    make: Callable[[Halves, np.random.Generator], Predicted]

    @property
    def summary(self) -> str:
        """What is predicted, in one line."""
        return (self.make.__doc__ or "").partition("\n")[0]


def _technical_duplicate(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict one half of each pair's cells by the other half."""
    return Predicted(halves.duplicate, halves.controls)


def _interpolated_duplicate(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict the duplicate's mean for genes that the truth calls, else the others' mean."""
    weight = 1.0 - np.nan_to_num(halves.called, nan=1.0)
    profiles = weight * halves.means + (1.0 - weight) * halves.means_of_others
    return _shifted(halves, profiles, rng)


def _bootstrap(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict the truth's own cells, drawn again with replacement."""
    drawn = tuple(cells[rng.integers(0, len(cells), len(cells))] for cells in halves.truth)
    return Predicted(drawn, halves.controls)


def _perturbed_mean(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict the mean of the context's other perturbations."""
    return _shifted(halves, halves.means_of_others, rng)


def _control_mean(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict control cells: no perturbation has an effect."""
    profiles = np.broadcast_to(halves.control_mean, (len(halves.truth), halves.controls.shape[1]))
    return _shifted(halves, profiles, rng)


def _shuffled_labels(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict the duplicate of another pair."""
    order = rng.permutation(len(halves.duplicate))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return Predicted(tuple(halves.duplicate[i] for i in other), halves.controls)


def _weak_profiles(halves: Halves) -> np.ndarray:
    others = halves.means_of_others
    weak: np.ndarray = others + KNOWN_SHARE * (halves.means - others)
    return weak


def _weak_model(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict the mean of the others, and a third of the way from there to the duplicate's mean."""
    return _shifted(halves, _weak_profiles(halves), rng)


def _rescaled(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Make every predicted effect twenty times as large."""
    origin = halves.control_mean
    return _shifted(halves, origin + RESCALED_BY * (_weak_profiles(halves) - origin), rng)


def _added_variance(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Add noise to every predicted value."""
    pairs, controls = _weak_model(halves, rng)
    noisy = (x + rng.normal(0.0, ADDED_DEVIATION, x.shape).astype(np.float32) for x in pairs)
    return Predicted(tuple(np.clip(x, 0.0, BELOW) for x in noisy), controls)


def _cancelling_scatter(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Scatter cells so that no mean changes: of each two, one gets both values, one none."""
    pairs, controls = _weak_model(halves, rng)
    for cells in pairs:
        half = len(cells) // 2
        one, other = cells[:half].copy(), cells[half : 2 * half].copy()
        both = one + other
        fits = both < BELOW
        first = rng.random(one.shape) < 0.5
        cells[:half] = np.where(fits, np.where(first, both, 0.0), one)
        cells[half : 2 * half] = np.where(fits, np.where(first, 0.0, both), other)
    return Predicted(pairs, controls)


def _log1p_of_counts(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Predict log1p of counts that were not scaled to a common library size."""
    assert halves.depth is not None
    depth = halves.depth
    pairs, _ = _weak_model(halves, rng)
    deep = tuple(_at_depth(x, rng.choice(depth, len(x))) for x in pairs)
    return Predicted(deep, _at_depth(halves.controls, depth))


def _twisted_controls(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Move the predicted controls away from the predicted effect, which is then larger."""
    pairs, controls = _weak_model(halves, rng)
    effect = halves.means.mean(axis=0) - halves.control_mean
    twisted = controls - (TWISTED_BY * effect).astype(np.float32)
    return Predicted(pairs, np.clip(twisted, 0.0, BELOW))


def _spiked_targets(halves: Halves, rng: np.random.Generator) -> Predicted:
    """Silence each pair's own target gene, which its name gives away."""
    pairs, controls = _weak_model(halves, rng)
    for cells, targets in zip(pairs, halves.targets, strict=True):
        cells[:, list(targets)] = 0.0
    return Predicted(pairs, controls)


POSITIVE, NEGATIVE, BASE = "technical-duplicate", "perturbed-mean", "weak-model"
"""Between the first two lies the dynamic range; tricks start from the third."""

KINDS = {
    kind.name: kind
    for kind in (
        Kind(POSITIVE, "positive", _technical_duplicate),
        Kind("interpolated-duplicate", "positive", _interpolated_duplicate),
        Kind("bootstrap", "positive", _bootstrap),
        Kind(NEGATIVE, "negative", _perturbed_mean),
        Kind("control-mean", "floor", _control_mean),
        Kind("shuffled-labels", "floor", _shuffled_labels),
        Kind(BASE, "base", _weak_model),
        Kind("rescaled", "trick", _rescaled),
        Kind("added-variance", "trick", _added_variance),
        Kind("cancelling-scatter", "trick", _cancelling_scatter),
        Kind("log1p-of-counts", "trick", _log1p_of_counts),
        Kind("twisted-controls", "trick", _twisted_controls),
        Kind("spiked-targets", "trick", _spiked_targets),
    )
}
"""Every kind of prediction, by name."""


def missing(kind: str, contexts: Sequence[Halves]) -> str:
    """Return why a kind cannot be made of these contexts; empty where it can."""
    if kind == "log1p-of-counts" and any(halves.depth is None for halves in contexts):
        return "the screen holds log1p values, not counts"
    if kind == "spiked-targets" and not any(any(h.targets) for h in contexts):
        return "no perturbation acts on a gene of the screen"
    return ""


def _shifted(halves: Halves, profiles: np.ndarray, rng: np.random.Generator) -> Predicted:
    """Give each profile as many cells as the truth has: control cells, moved to its mean.

    The same control cells for every kind with the same generator, so that kinds differ by what they
    are about.
    """
    origin, pairs = halves.control_mean, []
    for profile, truth in zip(profiles, halves.truth, strict=True):
        n = len(truth)
        drawn = rng.choice(len(halves.controls), size=n, replace=n > len(halves.controls))
        cells = halves.controls[drawn] + (profile - origin).astype(np.float32)
        pairs.append(np.clip(cells, 0.0, BELOW))
    return Predicted(tuple(pairs), halves.controls)


def _at_depth(cells: np.ndarray, depth: np.ndarray) -> np.ndarray:
    deep = np.log1p(np.expm1(cells) * depth[:, None].astype(np.float32))
    clipped: np.ndarray = np.clip(deep, 0.0, BELOW)
    return clipped
