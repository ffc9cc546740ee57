"""The notes beneath a comparison: how combined scores are made, signs, and what is unlike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.analysis.statistics import FEW
from harness.analysis.tables.formatting import BASELINE_SIGN, CEILING_SIGN, FLOOR_SIGN, TIE_SIGN
from harness.analysis.tables.notes import about, cut, what_a_mean_is, what_an_interval_is
from harness.analysis.tables.score_array import block_title
from harness.metrics import SCALES, registered_suites

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.analysis.tables.estimates import Estimates
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope


class Summary(NamedTuple):
    """A block, what was found in it, and the settings that the name of the baseline fits."""

    block: Block
    found: Estimates
    baselines: tuple[str, ...]


def table_notes(scope: Scope, summaries: Sequence[Summary]) -> Iterator[str]:
    """Yield the notes of a comparison, one paragraph each."""
    yield from about([summary.block for summary in summaries], scope.suite, scope.scales)
    yield (
        f"{what_a_mean_is()} {what_an_interval_is(scope.bootstrap)} #n is the rank; ties share "
        "the better one."
    )
    yield from _combined(scope, summaries)
    yield from _signs(summaries)
    for summary in summaries:
        yield from _unlike(summary)
    yield from scope.gaps()


def _where(block: Block, summaries: Sequence[Summary]) -> str:
    """Return the block's title for a sentence, empty where a table has one block."""
    title = block_title(block.key)
    return f" for {title}" if title and len(summaries) > 1 else ""


def _combined(scope: Scope, summaries: Sequence[Summary]) -> Iterator[str]:
    """Write the note on the combined score: its formula, or the reason why it is missing."""
    suite, baseline = scope.suite, scope.baseline
    declared = registered_suites().get(suite)
    if declared is not None and declared.anchored:
        yield from _between(summaries)
        return
    members = [scale.name for scale in scope.scales if scale.best is not None]
    if not members:
        yield f"No combined score: suite {suite} defines none for these metrics."
        return
    if baseline is None:
        yield "No combined score: no baseline is named, by the job (score: baseline:) or here."
        return
    for summary in summaries:
        where = _where(summary.block, summaries)
        if not summary.baselines:
            yield f"No combined score{where}: the baseline {baseline} has no scores there."
        elif len(summary.baselines) > 1:
            yield (
                f"No combined score{where}: the baseline may be any of "
                f"{cut(summary.baselines)}. Name one with its setting."
            )
    if any(len(summary.baselines) == 1 for summary in summaries):
        yield (
            f"combined: each mean u of {', '.join(members)} on the scale from that of the baseline "
            f"({baseline}) b to the best value, (u − b)/(1 − b) or 1 − u/b, NaN and negatives 0; "
            "averaged."
        )


def _between(summaries: Sequence[Summary]) -> Iterator[str]:
    """Write the notes on the score between anchors: its formula, and why blocks lack it."""
    for block in (summary.block for summary in summaries):
        if block.ends is None:
            why = block.no_ends or "not all of its members were scored"
            yield f"No combined score{_where(block, summaries)}: {why.removesuffix('.')}."
    bounded = [
        f"{name} within {scale.low:g} and {scale.high:g}".replace(" and inf", " and ∞")
        for name, scale in SCALES.items()
        if np.isfinite(scale.low) or np.isfinite(scale.high)
    ]
    if any(summary.block.ends is not None for summary in summaries):
        yield (
            f"combined: each mean u of {', '.join(SCALES)} on the scale from the mean response of "
            "the truth, b, to its replicate r (halves of it against each other, five seeded "
            f"splits), (u − b)/(r − b), {', '.join(bounded)}; averaged within each context, then "
            "over contexts. Intervals hold b and r as they are."
        )


def _signs(summaries: Sequence[Summary]) -> Iterator[str]:
    if any(setting.ceiling for summary in summaries for setting in summary.block.settings):
        yield (
            f"{CEILING_SIGN} ceiling: one half of the held-out cells as a prediction of the other; "
            "not ranked."
        )
    if any(len(summary.baselines) == 1 for summary in summaries):
        yield f"{BASELINE_SIGN} baseline."
    if any(summary.found.ties.any() for summary in summaries):
        yield (
            f"{TIE_SIGN} not told from the best of that metric: the interval of its paired "
            "difference holds 0."
        )
    if any((~np.isnan(summary.found.floors)).any() for summary in summaries):
        between = any(summary.block.ends is not None for summary in summaries)
        floor = "that of the truth's mean response" if between else "the baseline's own mean"
        yield (
            f"{FLOOR_SIGN} misses the floor of that metric: {floor}, unless the job says otherwise."
        )


def _unlike(summary: Summary) -> Iterator[str]:
    """Write notes on settings that lack pairs, and on intervals that are missing or too narrow."""
    block, n_pairs = summary.block, len(summary.block.pairs)
    lacking = [
        f"{setting.title} ({scored} of {n_pairs})"
        for setting, scored in zip(block.settings, block.scored.sum(axis=1), strict=True)
        if scored < n_pairs
    ]
    title = block_title(block.key)
    where = f" in {title}" if title else ""
    if lacking:
        yield (
            f"Not like with like{where}: not all pairs have scores of "
            f"{cut(lacking)}. Means and intervals are over the pairs that a model has, and its "
            "combined score compares it with the baseline on those."
        )
    if 1 < n_pairs < FEW:
        yield (
            f"Only {n_pairs} pairs{where}: with fewer than {FEW}, "
            "bootstrap intervals are too narrow."
        )
    single = (summary.found.n_defined == 1).any(axis=1)
    if single.any():
        names = [s.title for s, one in zip(block.settings, single, strict=True) if one]
        yield f"No interval for a metric with one defined pair: {cut(names)}."
