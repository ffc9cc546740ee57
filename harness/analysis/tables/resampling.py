"""Resampled means of settings: what intervals, differences and ranks of a table are made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.analysis.statistics import defined_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harness.analysis.statistics import Resamples
    from harness.analysis.tables.score_array import Block

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

ALL = slice(None)
_DRAWN_AT_ONCE = 8_000_000  # resampled means, or what they are of, in memory: 64 MB


def parts(block: Block, draws: int) -> Iterator[slice]:
    """Yield ranges of settings whose scores and resampled means fit into memory together."""
    n_settings, n_pairs, n_metrics = block.values.shape
    repeats = max((len(names) for names in block.repeats), default=1)
    step = max(1, _DRAWN_AT_ONCE // max(1, n_metrics * max(draws, n_pairs * repeats)))
    for start in range(0, n_settings, step):
        yield slice(start, min(start + step, n_settings))


def drawn_means(
    block: Block,
    part: slice,
    resamples: Resamples,
    where: Bools | None = None,
    columns: slice = ALL,
) -> tuple[Floats, Floats]:
    """Return the means (n, n_metrics) of some settings, and (n_draws, n, n_metrics) resampled.

    Parameters
    ----------
    part, columns
        Which settings, n of them, and which metrics.
    where
        (n, n_pairs, n_metrics) or what broadcasts to it: the scores to take; all by default.
    """
    values = block.values[part, :, columns]
    if where is not None:
        values = np.where(where, values, np.nan)
    defined = ~np.isnan(values)
    mean = defined_mean(values, axis=1)
    n, n_pairs, n_metrics = values.shape
    draws = np.empty((resamples.draws, n, n_metrics))
    start = part.indices(len(block.settings))[0]
    for names, members in _by_repeats(block, part).items():
        scores = np.empty((len(names), n_pairs, len(members), n_metrics))
        for place, at in enumerate(members):
            fits = values[at][None] if len(names) == 1 else block.fits_of(start + at)[..., columns]
            scores[:, :, place] = np.where(defined[at], fits, np.nan)
        flat = scores.reshape(len(names), n_pairs, -1)
        drawn = resamples.repeated_means(flat, names).reshape(-1, len(members), n_metrics)
        if len(members) == n:  # no need for a copy
            return mean, drawn
        draws[:, members] = drawn
    return mean, draws


def _by_repeats(block: Block, part: slice) -> dict[tuple[str, ...], list[int]]:
    """Return the places within `part` of the settings that have the same repeats.

    Settings with one repeat each belong together, whatever its name.
    """
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, names in enumerate(block.repeats[part]):
        found[names if len(names) > 1 else ("",)].append(place)
    return found


@dataclass(slots=True)
class Opponent:
    """A setting that others are measured from, over the pairs that each of them has.

    `columns` says by which metrics.
    """

    block: Block
    place: int
    resamples: Resamples
    columns: slice = field(default_factory=lambda: ALL)
    known: dict[bytes, tuple[Floats, Floats]] = field(default_factory=dict)

    def over(self, pairs: Bools) -> tuple[Floats, Floats]:
        """Return its means (n, n_metrics) and (n_draws, n, n_metrics) over each of `pairs`.

        Parameters
        ----------
        pairs
            (n, n_pairs), or (n, n_pairs, n_metrics); few of them differ.
        """
        found = [self._over(one) for one in pairs]
        if all(one is found[0] for one in found):  # broadcast rather than copied
            return np.repeat(found[0][0], len(found), axis=0), found[0][1]
        means, draws = zip(*found, strict=True)
        return np.concatenate(means), np.concatenate(draws, axis=1)

    def differences(self, part: slice, known: tuple[Floats, Floats] | None = None) -> Differences:
        """Return how other settings differ from this one over the pairs that both have.

        `known` is what `drawn_means` gave for them over the pairs that each has; it is used where
        this setting lacks none of these.
        """
        values = self.block.values[:, :, self.columns]
        defined = ~np.isnan(values[part])
        shared = defined & ~np.isnan(values[self.place])
        if known is not None and (shared == defined).all():
            mean, draws = (one[..., self.columns] for one in known)
        else:
            mean, draws = drawn_means(self.block, part, self.resamples, shared, self.columns)
        own_mean, own_draws = self.over(shared)
        return Differences(shared.sum(axis=1), mean - own_mean, draws - own_draws)

    def _over(self, pairs: Bools) -> tuple[Floats, Floats]:
        key = pairs.tobytes()
        if key not in self.known:
            where = (pairs if pairs.ndim == 2 else pairs[:, None])[None]
            place = slice(self.place, self.place + 1)
            self.known[key] = drawn_means(self.block, place, self.resamples, where, self.columns)
        return self.known[key]


class Differences(NamedTuple):
    """Differences of n settings from one other, over the pairs that both have.

    Attributes
    ----------
    n_pairs, mean
        (n, n_metrics) how many pairs; the mean difference.
    draws
        (n_draws, n, n_metrics) resampled, both settings together.
    """

    n_pairs: NDArray[np.int64]
    mean: Floats
    draws: Floats
