"""What must be said beside the numbers: what they are means of, what is missing or undefined."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.analysis.tables.scale import WHOLE
from harness.metrics import registered_suites

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

    from harness.analysis.results import Results
    from harness.analysis.statistics import Bootstrap
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block

SHOWN = 8


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
