"""What must be said beside the numbers: what they are means of, what is missing or undefined."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.analysis.statistics import FEW
from harness.analysis.tables.formatting import BASELINE_SIGN, CEILING_SIGN, FLOOR_SIGN, TIE_SIGN
from harness.analysis.tables.scale import WHOLE
from harness.metrics import SCALES, registered_suites

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from harness.analysis.results import Results
    from harness.analysis.statistics import Bootstrap
    from harness.analysis.tables.estimates import Estimates
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block

SHOWN = 8


class Summary(NamedTuple):
    """A block, what was found in it, and the settings that the name of the baseline fits."""

    block: Block
    found: Estimates
    baselines: tuple[str, ...]


def table_notes(
    results: Results,
    suite: str,
    scales: Sequence[Scale],
    summaries: Sequence[Summary],
    *,
    baseline: str | None,
    bootstrap: Bootstrap,
) -> tuple[str, ...]:
    """Return the notes of a comparison, one paragraph each."""
    notes = [*about([summary.block for summary in summaries], suite, scales)]
    notes.append(
        f"{what_a_mean_is()} {what_an_interval_is(bootstrap)} #n is the rank; ties share "
        "the better one."
    )
    notes += _combined(suite, scales, summaries, baseline)
    notes += _signs(summaries)
    notes += [note for summary in summaries for note in _unlike(summary)]
    notes += gaps(results, suite)
    return tuple(notes)


def about(blocks: Iterable[Block], suite: str, scales: Sequence[Scale]) -> Iterator[str]:
    """Say what a table is of: data with their versions, and the suite with its metrics'."""
    for block in blocks:
        yield _data(block)
    metrics = ", ".join(f"{scale.name} v{scale.version}" for scale in scales) or "no scores"
    known = registered_suites().get(suite)
    oracle = f" ({known.oracle})" if known else ""
    yield f"Suite {suite}{oracle}: {metrics}."
    if whole := [scale.name for scale in scales if scale.per_context]:
        yield f"No interval and no test of {', '.join(whole)}: {WHOLE}, no sample of it."


def gaps(results: Results, suite: str) -> Iterator[str]:
    """Say what is not in a table: undefined scores with reasons, and trials."""
    yield from _undefined(results, suite)
    yield from _trials(results, suite)


def block_title(block_key: Sequence[str], version: object = None) -> str:
    """Return ``papalexi21 v1, unseen-perturbation``; what is empty is left out."""
    dataset, split = block_key[0], block_key[1]
    named = f"{dataset} v{version}" if dataset and version is not None else dataset
    controls = ["controls shared"] if "shared" in block_key[2:] else []
    return ", ".join(part for part in (named, split, *controls) if part)


def _data(block: Block) -> str:
    trials = block.trials
    version = trials["dataset_version"].iloc[0] if "dataset_version" in trials else None
    contexts = block.pairs["context"].nunique()
    seeds, folds = (_numbers(trials[name]) for name in ("seed", "fold"))
    title = block_title(block.key, version)
    return (
        f"{title + ': ' if title else ''}{counted(len(block.pairs), 'pair')} in "
        f"{counted(contexts, 'context')}; seeds {seeds}; folds {folds}."
    )


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


def _combined(
    suite: str, scales: Sequence[Scale], summaries: Sequence[Summary], baseline: str | None
) -> Iterator[str]:
    declared = registered_suites().get(suite)
    if declared is not None and declared.anchored:
        yield from _between(summaries)
        return
    members = [scale.name for scale in scales if scale.best is not None]
    if not members:
        yield f"No combined score: suite {suite} defines none for these metrics."
        return
    if baseline is None:
        yield "No combined score: no baseline is named, by the job (score: baseline:) or here."
        return
    for summary in summaries:
        title = block_title(summary.block.key)
        where = f" for {title}" if title and len(summaries) > 1 else ""
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
    """Say what the score between anchors is, and where there is none and why."""
    for block in (summary.block for summary in summaries):
        if block.ends is None:
            title = block_title(block.key)
            where = f" for {title}" if title and len(summaries) > 1 else ""
            why = block.no_ends or "not all of its members were scored"
            yield f"No combined score{where}: {why.removesuffix('.')}."
    if any(summary.block.ends is not None for summary in summaries):
        yield (
            f"combined: each mean u of {', '.join(SCALES)} on the scale from the mean response of "
            "the truth, b, to its replicate r (halves of it against each other, five seeded "
            f"splits), {_scaling()}; averaged within each context, then over contexts. Intervals "
            "hold b and r as they are."
        )


def _scaling() -> str:
    """Return how the members of the 2026 score are scaled, and which are held within bounds."""
    bounded = [
        f"{name} within {scale.low:g} and {scale.high:g}".replace(" and inf", " and ∞")
        for name, scale in SCALES.items()
        if np.isfinite(scale.low) or np.isfinite(scale.high)
    ]
    return f"(u − b)/(r − b), {', '.join(bounded)}"


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
        yield (
            f"{FLOOR_SIGN} misses the floor of that metric: {_floor(summaries)}, unless the "
            "job says otherwise."
        )


def _floor(summaries: Sequence[Summary]) -> str:
    between = any(summary.block.ends is not None for summary in summaries)
    return "that of the truth's mean response" if between else "the baseline's own mean"


def _unlike(summary: Summary) -> Iterator[str]:
    """Say which settings lack pairs, and where an interval is missing or not to be trusted."""
    block, n_pairs = summary.block, len(summary.block.pairs)
    lacking = [
        f"{setting.title} ({scored} of {n_pairs})"
        for setting, scored in zip(block.settings, block.scored.sum(axis=1), strict=True)
        if scored < n_pairs
    ]
    where = block_title(block.key)
    if lacking:
        yield (
            f"Not like with like{' in ' + where if where else ''}: not all pairs have scores of "
            f"{cut(lacking)}. Means and intervals are over the pairs that a model has, and its "
            "combined score compares it with the baseline on those."
        )
    if 1 < n_pairs < FEW:
        yield (
            f"Only {n_pairs} pairs{' in ' + where if where else ''}: with fewer than {FEW}, "
            "bootstrap intervals are too narrow."
        )
    single = (summary.found.n_defined == 1).any(axis=1)
    if single.any():
        names = [s.title for s, one in zip(block.settings, single, strict=True) if one]
        yield f"No interval for a metric with one defined pair: {cut(names)}."


def _undefined(results: Results, suite: str) -> Iterator[str]:
    """Count NaN by metric, with reasons and models."""
    rows = results.rows
    rows = rows[(rows["suite"] == suite).to_numpy() & rows["value"].isna().to_numpy()]
    if rows.empty:
        return
    model = dict(zip(results.trials["trial"], results.trials["model"], strict=True))
    for metric, part in rows.groupby("metric", observed=True, sort=True):
        reasons = Counter(str(reason) or "no reason given" for reason in part["reason"])
        told = "; ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
        models = sorted({str(model[trial]) for trial in part["trial"].unique()})
        yield f"NaN in {metric}: {counted(len(part), 'score')} of {cut(models)} ({told})."


def _trials(results: Results, suite: str) -> Iterator[str]:
    """Name the trials that are not in the table."""
    trials, rows = results.trials, results.rows
    for state in ("failed", "missing"):
        chosen = trials[trials["state"] == state]
        if len(chosen):
            yield f"{counted(len(chosen), 'trial')} {state}: {cut(_named(chosen))}."
    scored = set(rows.loc[rows["suite"] == suite, "trial"].unique())
    done = trials[(trials["state"] == "done") & ~trials["trial"].isin(scored)]
    if results.n_unplanned:
        yield f"{counted(results.n_unplanned, 'trial')} left out, of an earlier state of the job."
    if len(done):
        yield f"{counted(len(done), 'trial')} done, without {suite} scores: {cut(_named(done))}."


def _named(trials: pd.DataFrame) -> list[str]:
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
