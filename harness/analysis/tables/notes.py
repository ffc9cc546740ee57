"""What must be said beside the numbers: what they are means of, what is missing or undefined."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.analysis.statistics import FEW
from harness.analysis.tables.formatting import BASELINE_SIGN, CEILING_SIGN, FLOOR_SIGN, TIE_SIGN
from harness.analysis.tables.scale import WHOLE
from harness.analysis.tables.score_array import block_title
from harness.metrics import SCALES, registered_suites

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from harness.analysis.results import Results
    from harness.analysis.statistics import Bootstrap
    from harness.analysis.tables.estimates import Estimates
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope

SHOWN = 8


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


def about(blocks: Iterable[Block], suite: str, scales: Sequence[Scale]) -> Iterator[str]:
    """Say what a table is of: data with their versions, and the suite with its metrics'."""
    for block in blocks:
        title, contexts = block.title, block.pairs["context"].nunique()
        seeds, folds = (_numbers(block.trials[name]) for name in ("seed", "fold"))
        yield (
            f"{title + ': ' if title else ''}{counted(len(block.pairs), 'pair')} in "
            f"{counted(contexts, 'context')}; seeds {seeds}; folds {folds}."
        )
    metrics = ", ".join(f"{scale.name} v{scale.version}" for scale in scales) or "no scores"
    known = registered_suites().get(suite)
    oracle = f" ({known.oracle})" if known else ""
    yield f"Suite {suite}{oracle}: {metrics}."
    if whole := [scale.name for scale in scales if scale.per_context]:
        yield f"No interval and no test of {', '.join(whole)}: {WHOLE}, no sample of it."


def what_a_mean_is() -> str:
    """Say what a number in a table is."""
    return (
        "A number is the mean over pairs (perturbation, context), each first averaged over seeds "
        "and folds, so that repeated seeds do not count as samples."
    )


def what_an_interval_is(bootstrap: Bootstrap) -> str:
    """Say what stands in brackets."""
    return (
        f"In brackets the {100 * bootstrap.level:g} % percentile interval of {bootstrap.draws} "
        "bootstrap resamples of perturbations within each context and, where there are several, of "
        "a setting's seeds: how far the mean would move with others."
    )


def _where(block: Block, summaries: Sequence[Summary]) -> str:
    """Return the block's title for a sentence, empty where a table has one block."""
    title = block_title(block.key)
    return f" for {title}" if title and len(summaries) > 1 else ""


def _combined(scope: Scope, summaries: Sequence[Summary]) -> Iterator[str]:
    """Yield how the combined score is made, and why there is none where there is none."""
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
    """Yield how the score between anchors is made, and why a block has none."""
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
    """Say which settings lack pairs, and where an interval is missing or not to be trusted."""
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


def gaps(results: Results, suite: str) -> Iterator[str]:
    """Yield the undefined scores by metric, with reasons, and the trials that are left out."""
    trials, rows = results.trials, results.rows
    of_suite = (rows["suite"] == suite).to_numpy()
    scored = set(rows.loc[of_suite, "trial"].unique())
    rows = rows[of_suite & rows["value"].isna().to_numpy()]
    for metric, part in rows.groupby("metric", observed=True, sort=True):
        reasons = Counter(str(reason) or "no reason given" for reason in part["reason"])
        told = "; ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
        named = trials.loc[trials["trial"].isin(part["trial"].unique()), "model"]
        models = sorted({str(model) for model in named})
        yield f"NaN in {metric}: {counted(len(part), 'score')} of {cut(models)} ({told})."
    for state in ("failed", "missing"):
        chosen = trials[trials["state"] == state]
        if len(chosen):
            yield f"{counted(len(chosen), 'trial')} {state}: {cut(_named(chosen))}."
    done = trials[(trials["state"] == "done") & ~trials["trial"].isin(scored)]
    if results.n_unplanned:
        yield f"{counted(results.n_unplanned, 'trial')} left out, of an earlier state of the job."
    if len(done):
        yield f"{counted(len(done), 'trial')} done, without {suite} scores: {cut(_named(done))}."


def _named(trials: pd.DataFrame) -> list[str]:
    """Return each trial's name with its model, fold and seed."""
    columns = (trials[name] for name in ("trial", "model", "fold", "seed"))
    rows = zip(*columns, strict=True)
    return [f"{trial} ({model}, fold {fold}, seed {seed})" for trial, model, fold, seed in rows]


def _numbers(values: pd.Series[Any]) -> str:
    """Return ``0–4`` for what is consecutive, else a list."""
    numbers = sorted(int(value) for value in values.unique())
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]}–{numbers[-1]}"
    return cut([str(number) for number in numbers])


def counted(number: int, noun: str) -> str:
    """Return ``1 pair``, ``2 pairs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cut(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    text = ", ".join(names[:SHOWN])
    return f"{text} and {len(names) - SHOWN} more" if len(names) > SHOWN else text
