"""What a table is made of: the suite, its metrics, the blocks, and the setting to measure from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.results import distinct_metrics
from harness.analysis.statistics import DEFAULT, Bootstrap, resample
from harness.analysis.tables.combined_score import combination
from harness.analysis.tables.estimates import metric_ranks, pair_means, ranked_settings
from harness.analysis.tables.notes import about, counted, gaps
from harness.analysis.tables.scale import Scale
from harness.analysis.tables.score_array import BLOCK, Block, block_title, blocks
from harness.analysis.tables.table import Table
from harness.errors import UnknownNameError, listed
from harness.metrics import registered, registered_suites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from harness.analysis.results import Results
    from harness.analysis.tables.text import Section
    from harness.metrics import Suite


@dataclass(frozen=True)
class Scope:
    """What a table is made of.

    Attributes
    ----------
    suite
        By which the scores were made.
    baseline
        The model to measure from, as it was named; None for none.
    """

    results: Results
    suite: str
    baseline: str | None = None
    bootstrap: Bootstrap = DEFAULT

    @classmethod
    def of(
        cls,
        results: Results,
        suite: str | None = None,
        baseline: str | None = None,
        bootstrap: Bootstrap = DEFAULT,
    ) -> Scope:
        """Return a scope; suite and baseline are what the runs' jobs say unless given."""
        baseline = baseline or results.score_options.get("baseline")
        return cls(results, suite or only_suite(results), baseline, bootstrap)

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """The metrics, in the suite's order."""
        return scales_of(self.results, self.suite)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What can be compared: one for each dataset, split and way of dividing controls."""
        return tuple(blocks(self.results, self.suite, [scale.name for scale in self.scales]))

    @property
    def directed(self) -> list[tuple[int, Scale, bool]]:
        """The metrics that have a direction: column, scale, whether higher is better."""
        return [
            (column, scale, scale.higher_is_better)
            for column, scale in enumerate(self.scales)
            if scale.higher_is_better is not None
        ]

    def reference(self, block: Block) -> int | None:
        """Return the place of the setting to measure from; None where the name fits none or two."""
        found = candidates(block, self.baseline)
        return found[0] if len(found) == 1 else None

    def about(self) -> Iterator[str]:
        """Yield the notes on the data and metrics of a table."""
        return about(self.blocks, self.suite, self.scales)

    def gaps(self) -> Iterator[str]:
        """Yield the notes on undefined scores and on trials that are not in a table."""
        return gaps(self.results, self.suite)

    def table(
        self,
        kind: str,
        frames: Sequence[pd.DataFrame],
        notes: Iterable[str],
        layout: Callable[[Table], Iterable[Section]],
    ) -> Table:
        """Return a table of the rows of `frames`; its own notes stand between those of all."""
        every = (*self.about(), *notes, *self.gaps())
        level = self.bootstrap.level
        return Table(kind, self.suite, self.scales, joined(frames), every, layout, level)


def joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all frames; an empty frame of none."""
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the settings of a block stand: arrays of (n_settings, ...).

    Attributes
    ----------
    means, places
        (n_settings, n_metrics) means over pairs, and ranks by them; NaN for what is not ranked.
    mean_rank, combined
        (n_settings,) NaN where undefined.
    order
        The ranked settings, best first: by combined score, then by mean rank.
    """

    means: NDArray[np.float64]
    places: NDArray[np.float64]
    mean_rank: NDArray[np.float64]
    combined: NDArray[np.float64]
    order: tuple[int, ...]


def standing(block: Block, scales: Sequence[Scale], reference: int | None) -> Standing:
    """Return where the settings of a block stand; `reference` is what to measure from, if any."""
    means, ranked = pair_means(block.values), ranked_settings(block)
    places = metric_ranks(means, scales, ranked)
    mean_rank = mean_over_metrics(places)
    combined = _combined(block, scales, reference, means)
    key = pd.DataFrame({"score": -combined, "rank": mean_rank}, dtype=np.float64)
    order = [
        place for place in key.sort_values(["score", "rank"], kind="stable").index if ranked[place]
    ]
    return Standing(means, places, mean_rank, combined, tuple(order))


def _combined(
    block: Block, scales: Sequence[Scale], reference: int | None, means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the combined scores (n_settings,); what was not scored has none."""
    whole = slice(0, len(block.settings))
    resamples = resample(list(block.pairs["context"]), Bootstrap(draws=1))
    found = combination(block, scales, reference, resamples)
    if found is None:
        return np.full(len(block.settings), np.nan)
    scores, _ = found.scores(whole, (means, means[None]))
    return np.where(block.scored.any(axis=1), scores, np.nan)


def mean_over_metrics(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean rank (n_settings,) over the metrics by which a setting is ranked."""
    n_ranked = (~np.isnan(places)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(places, axis=1) / np.where(n_ranked, n_ranked, np.nan)
    return mean


def scales_of(results: Results, suite: str) -> tuple[Scale, ...]:
    """Return the metrics that `results` has of a suite, in the suite's order, others after."""
    known = distinct_metrics(results.rows)
    chosen = known.loc[known["suite"] == suite, ["metric", "version"]]
    versions = {str(name): int(version) for name, version in chosen.itertuples(index=False)}
    declared = registered_suites().get(suite)
    order = list(declared.metrics) if declared else []
    names = sorted(versions, key=lambda n: (order.index(n) if n in order else len(order), n))
    return tuple(_scale(name, versions[name], declared) for name in names)


def _scale(name: str, version: int, suite: Suite | None) -> Scale:
    known = registered()
    if name not in known:
        raise UnknownNameError("metric", name, tuple(known))
    metric = known[name]
    best = metric.best if suite and name in suite.combined else None
    anchored = suite is not None and name in suite.anchored
    return Scale(name, version, metric.higher_is_better, best, metric.per_context, anchored)


def only_suite(results: Results) -> str:
    """Return the suite of the results; an error where there are several."""
    known = suite_names(results)
    if len(known) > 1:
        raise ValueError(f"The results have the suites {listed(known)}: say which one to compare.")
    return known[0] if known else declared_suites(results)[0]


def declared_suites(results: Results) -> list[str]:
    """Return the suites that the runs' jobs name: titles of tables before anything is scored."""
    suites = results.score_options.get("suite", "vcc2025")
    return [suites] if isinstance(suites, str) else list(suites)


def suite_names(results: Results) -> list[str]:
    """Return the suites by which any of the trials was scored."""
    return [
        str(name) for name in results.rows["suite"].cat.remove_unused_categories().cat.categories
    ]


def candidates(block: Block, baseline: str | None) -> list[int]:
    """Return the places of the settings with scores that `baseline` may mean."""
    scored = np.flatnonzero(block.scored.any(axis=1)).tolist()
    exact = [place for place in scored if block.settings[place].title == baseline]
    return exact or [place for place in scored if block.settings[place].model == baseline]


def identity(block: Block, baseline: int | None, *, factors: bool = False) -> pd.DataFrame:
    """Return what each setting's row is about: dataset and split, model, setting, role, factors."""
    names = [name for name in BLOCK if name in block.trials]
    columns: dict[str, Any] = dict(zip(names, block.key, strict=True))
    if "dataset_version" in block.trials:
        columns = {"dataset": block.key[0], "dataset_version": block.version, **columns}
    columns["model"] = [setting.model for setting in block.settings]
    columns["setting"] = [setting.label for setting in block.settings]
    columns["role"] = [
        "ceiling" if setting.ceiling else "baseline" if place == baseline else ""
        for place, setting in enumerate(block.settings)
    ]
    if not factors:
        return pd.DataFrame(columns)
    names = [name for name, _ in block.settings[0].factors if name != "model"]
    values = [dict(setting.factors) for setting in block.settings]
    # Objects, for pandas would write the whole number 4 as 4.0 beside a model without a rank.
    columns |= {n: pd.Series([value[n] for value in values], dtype=object) for n in names}
    return pd.DataFrame(columns)


def by_block(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the title and the rows of each dataset and split of a table's frame."""
    names = [name for name in BLOCK if name in frame]
    for key, part in frame.groupby(names, sort=False) if names else [((), frame)]:
        version = part["dataset_version"].iloc[0] if "dataset_version" in part else None
        title = block_title([str(value) for value in key], version) if names else ""
        yield title, part


def best_of_each_model(
    block: Block, order: Sequence[int], most: int
) -> tuple[list[int], list[str]]:
    """Return the first setting of each model, `most` of them; and what must be said of it."""
    first: dict[str, int] = {}
    for place in order:
        first.setdefault(block.settings[place].model, place)
    chosen = [*first.values()][:most]
    n = len(order) - len(chosen)
    said = f"Shown: the best setting of each model; {counted(n, 'setting')} more in the CSV."
    return chosen, [said] if n else []
