"""One score of several metrics: from a baseline to the best values, or between the truth's anchors.

The suite decides which. Both are scores of means over pairs, never means of scores, and both are
resampled as their means are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.statistics import defined_mean
from harness.analysis.tables.resampling import Opponent, drawn_means
from harness.metrics import combine_scores, scaled_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from harness.analysis.statistics import Resamples
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Means = tuple[Floats, Floats]


def combination(
    block: Block, scales: Sequence[Scale], baseline: int | None, resamples: Resamples
) -> FromBaseline | BetweenEnds | None:
    """Return how a block's settings are combined; None where there is nothing to measure from."""
    if block.ends is not None:
        return BetweenEnds(block, scales, resamples)
    if baseline is None or not any(scale.best is not None for scale in scales):
        return None
    return FromBaseline(block, scales, baseline, resamples)


class FromBaseline:
    """The combined score of 2025: each member between the baseline's mean and the best value.

    Baseline and setting share their resamples, and a setting that lacks pairs is scaled from the
    baseline's means over the pairs that it has.
    """

    def __init__(
        self, block: Block, scales: Sequence[Scale], baseline: int, resamples: Resamples
    ) -> None:
        best = np.array([np.nan if scale.best is None else scale.best for scale in scales])
        self.block, self.baseline, self.resamples = block, baseline, resamples
        self.members = ~np.isnan(best)
        self.best = best[self.members]
        self.opponent = Opponent(block, baseline, resamples)

    def scores(self, part: slice, known: Means) -> Means:
        """Return the scores (n,) of some settings, and (n_draws, n) resampled.

        `known` is what `drawn_means` gives for them.
        """
        base = self.opponent.over(self.block.scored[part])
        mean, draws = (
            combine_scores(u[..., self.members], b[..., self.members], self.best)
            for u, b in zip(known, base, strict=True)
        )
        return mean, draws

    def shared(self, places: Sequence[int], pairs: Bools) -> Iterator[Means]:
        """Yield the scores (1,) and (n_draws, 1) of single settings over some pairs (n_pairs,).

        Of the pairs, those count that the baseline has.
        """
        where = (pairs & self.block.scored[self.baseline])[None, :, None]
        found = [
            drawn_means(self.block, slice(at, at + 1), self.resamples, where)
            for at in (*places, self.baseline)
        ]
        *users, base = ([part[..., self.members] for part in one] for one in found)
        for user in users:
            mean, draws = (combine_scores(u, b, self.best) for u, b in zip(user, base, strict=True))
            yield mean, draws

    def floors(self, part: slice) -> Floats:
        """Return the means (n, n_metrics) at which members are worth 0; NaN for the others."""
        mean, _ = self.opponent.over(self.block.scored[part])
        return np.where(self.members, mean, np.nan)


@dataclass(frozen=True, slots=True)
class _Context:
    """One context of a block: its pairs as a block of their own, and their resamples."""

    block: Block
    pairs: Bools
    resamples: Resamples


class BetweenEnds:
    """The score of 2026: each member between the truth's anchors, averaged; then over contexts.

    The anchors are held as they are: an interval is of the prediction's means alone.
    """

    def __init__(self, block: Block, scales: Sequence[Scale], resamples: Resamples) -> None:
        self.block = block
        self.members = np.array([scale.anchored for scale in scales], dtype=bool)
        self.names = [scale.name for scale in scales if scale.anchored]
        self.contexts = [*_contexts(block, resamples)]

    def scores(self, part: slice, known: Means) -> Means:
        """Return the scores as `FromBaseline` does."""
        return self._scores(part, known if len(self.contexts) == 1 else None)

    def shared(self, places: Sequence[int], pairs: Bools) -> Iterator[Means]:
        """Yield the scores as `FromBaseline` does, over all of the pairs."""
        for place in places:
            yield self._scores(slice(place, place + 1), None, pairs)

    def floors(self, part: slice) -> Floats:
        """Return the means (n, n_metrics) of the truth's mean response."""
        return self._ends(self.block, self.block.scored[part])[..., 0]

    def _scores(self, part: slice, known: Means | None, pairs: Bools | None = None) -> Means:
        """Return the mean over the contexts that a setting has scores in; NaN where in none."""
        means, draws = [], []
        for one in self.contexts:
            scored, where = one.block.scored[part], None
            if pairs is not None:
                scored = scored & pairs[one.pairs]
                where = scored[..., None]
            u, drawn = known or drawn_means(one.block, part, one.resamples, where)
            ends = self._ends(one.block, scored)
            inside = scored.any(axis=1)
            means.append(np.where(inside, self._scaled(u, ends), np.nan))
            lost = np.isnan(drawn) & ~np.isnan(u)  # a draw without any defined pair tells nothing
            undefined = lost[..., self.members].any(axis=-1) | ~inside
            draws.append(np.where(undefined, np.nan, self._scaled(drawn, ends)))
        return defined_mean(np.array(means), axis=0), defined_mean(np.array(draws), axis=0)

    def _scaled(self, means: Floats, ends: Floats) -> Floats:
        base, top = (ends[:, self.members, end] for end in (0, 1))
        scaled = scaled_members(self.names, means[..., self.members], base, top)
        average: Floats = scaled.mean(axis=-1)
        return average

    @staticmethod
    def _ends(block: Block, scored: Bools) -> Floats:
        """Return the ends (n, n_metrics, 2) of settings: means over the pairs that each has."""
        assert block.ends is not None
        flat = block.ends.reshape(len(block.pairs), -1)
        known, taken = ~np.isnan(flat), scored.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = taken @ np.where(known, flat, 0.0) / (taken @ known)
        ends: Floats = mean.reshape(len(scored), *block.ends.shape[1:])
        return ends


def _contexts(block: Block, resamples: Resamples) -> Iterator[_Context]:
    """Yield a block's contexts; the whole block itself where it has one."""
    names = block.pairs["context"].to_numpy()
    for name in np.unique(names):
        at = names == name
        if at.all():
            yield _Context(block, at, resamples)
            continue
        assert block.ends is not None
        counts = resamples.counts[:, at] if at.sum() > 1 else np.ones((resamples.draws, 1))
        inner = replace(
            block,
            pairs=block.pairs[at],
            values=block.values[:, at],
            scored=block.scored[:, at],
            fits=block.fits[:, at],
            ends=block.ends[at],
        )
        yield _Context(inner, at, replace(resamples, counts=counts))
