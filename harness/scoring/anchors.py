"""The two ends of the 2026 score, both made of the truth alone, and the score between them.

0 is a prediction of the mean response: control cells drawn anew, each gene rescaled so that the
controls' mean becomes that of the perturbations (a perturbation's own target not counted in). 1 is
a replicate: half of the truth's cells as a prediction of the other half, each tested against its
own half of the controls, averaged over seeded splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.errors import DataError, listed
from harness.kernels import Groups
from harness.metrics import MIN_GENES, NO_GENE, SCALES, aggregates, fault, registered, scaled
from harness.scoring.count_statistics import MILLION, Picked, Rescaled, Stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.metrics import CountComparison, CountSide
    from harness.scoring.count_truth import CountTruth

Ends = dict[str, dict[str, tuple[float, float]]]
"""Baseline and replicate of each member of the 2026 score, by context and metric."""

SUITE = "vcc2026"
"""The suite whose score is placed between anchors."""

N_SPLITS = 5
FOLD_CHANGE_ERROR = "de_wilcoxon_lfc_nmae"


@dataclass(frozen=True)
class Anchors:
    """The ends of the scale of one truth.

    Parameters
    ----------
    baseline
        Columns context, metric, value: the aggregates of the mean response.
    splits
        Columns context, split, seed, metric, value, n_pairs: the aggregates of every split half.
    """

    baseline: pd.DataFrame
    splits: pd.DataFrame

    @property
    def replicate(self) -> pd.DataFrame:
        """Columns context, metric, value, sd, min, max: over the splits."""
        values = self.splits.groupby(["context", "metric"])["value"]
        columns = {
            "value": values.mean(),
            "sd": values.std(ddof=0),
            "min": values.min(),
            "max": values.max(),
        }
        return pd.DataFrame(columns).reset_index()

    @property
    def ends(self) -> Ends:
        """Baseline and replicate of every member, by context and metric.

        Raises
        ------
        DataError
            Ends leave nothing to scale.
        """
        base, top = (
            part.set_index(["context", "metric"])["value"]
            for part in (self.baseline, self.replicate)
        )
        found: Ends = {}
        for context in dict.fromkeys(self.baseline["context"]):
            for name in SCALES:
                ends = float(base[context, name]), float(top[context, name])
                if why := fault(name, *ends):
                    raise DataError(
                        f"{_place(name, context)} cannot be scaled: {why}. Expected a truth whose "
                        "replicate beats its mean response. Use one with more cells."
                    )
                found.setdefault(str(context), {})[name] = ends
        return found

    def score(self, aggregated: pd.DataFrame) -> Scaled:
        """Place a prediction's aggregates (columns context, metric, value) between the ends.

        Raises
        ------
        DataError
            A member is missing, or its ends leave nothing to scale.
        """
        keys = ["context", "metric"]
        user, rows = aggregated.set_index(keys)["value"], []
        for context, members in self.ends.items():
            for name, ends in members.items():
                if (context, name) not in user.index:
                    raise DataError(
                        f"{_place(name, context)} was not scored. The 2026 score needs all of "
                        f"{listed(SCALES)}. Score the whole suite."
                    )
                value = float(user[context, name])
                rows.append((context, name, value, *ends, scaled(name, value, *ends)))
        columns = [*keys, "value", "baseline", "replicate", "scaled"]
        return Scaled(pd.DataFrame(rows, columns=columns))


@dataclass(frozen=True)
class Scaled:
    """A prediction between its truth's anchors.

    Parameters
    ----------
    members
        Columns context, metric, value, baseline, replicate, scaled.
    """

    members: pd.DataFrame

    @property
    def contexts(self) -> dict[str, float]:
        """The score of each context: the mean of its members."""
        means = self.members.groupby("context", sort=False)["scaled"].mean()
        return {str(context): float(value) for context, value in means.items()}

    @property
    def score(self) -> float:
        """The mean over contexts."""
        return float(np.mean(list(self.contexts.values())))


def aggregate_table(
    comparisons: Mapping[str, CountComparison], names: Sequence[str]
) -> pd.DataFrame:
    """Compute metrics and aggregate them by context: columns context, metric, value, n_pairs."""
    rows = []
    for context, comparison in comparisons.items():
        values = {name: registered()[name](comparison).values for name in names}
        for name, value in aggregates(values).items():
            rows.append((context, name, value, int((~np.isnan(values[name])).sum())))
    return pd.DataFrame(rows, columns=["context", "metric", "value", "n_pairs"])


def anchors(
    truth: CountTruth, names: Sequence[str], *, n_splits: int = N_SPLITS, base_seed: int = 0
) -> Anchors:
    """Compute both ends of the scale.

    Parameters
    ----------
    truth
        The truth. Its cells are read three times, however many splits there are.
    names
        The metrics to aggregate.
    n_splits, base_seed
        How many splits; what their seeds, and the baseline's draws, derive from.

    Raises
    ------
    DataError
        The truth has too few cells, perturbations or effects for it.
    """
    comparisons = truth.comparisons(mean_response(truth, base_seed))
    truth.check(comparisons, [registered()[name] for name in names])
    baseline = aggregate_table(comparisons, names).drop(columns="n_pairs")
    return Anchors(baseline, replicates(truth, names, n_splits=n_splits, base_seed=base_seed))


def mean_response(truth: CountTruth, seed: int = 0) -> dict[str, CountSide]:
    """Return the sides of the baseline prediction.

    For each context and each of its perturbations in byte order, as many control cells are drawn as
    it has, with replacement, by one generator per context; then counts are rescaled by gene. They
    are not rounded to whole numbers.
    """
    codes, parts = [], []
    for context, rows in truth.rows.items():
        control = truth.control_of(context)
        controls = np.flatnonzero(truth.groups.codes == control)
        sizes = truth.statistics.sizes[rows]
        rng = np.random.default_rng(seed)
        draws = [rng.integers(0, len(controls), size=int(size)) for size in sizes]
        factors = _factors(truth, context)
        emitted = Rescaled(Picked(truth.counts, controls), factors, truth.memory)
        if emitted.sizes.max() > MILLION:
            raise DataError(
                f"{truth.name}: the mean response cannot be a prediction: one of its cells has a "
                f"total of {emitted.sizes.max():g}, expected at most {MILLION:,.0f}. Leave out "
                "genes that few control cells express, or control cells of extreme depth."
            )
        parts.append(Picked(emitted, np.concatenate(draws)))
        codes.append(np.repeat(rows, sizes))
    stacked = parts[0] if len(parts) == 1 else Stacked(*parts)
    return truth.compared(stacked, np.concatenate(codes).astype(np.int32))


def _factors(truth: CountTruth, context: str) -> np.ndarray:
    """Compute each gene's factor from the controls' mean to the mean response.

    0 for genes without counts in the controls, which no rescaling can reach.
    """
    statistics, rows = truth.statistics, truth.rows[context]
    means = statistics.counts[rows] / statistics.sizes[rows][:, None]
    targets = truth.targets(context)
    known = np.flatnonzero(targets != NO_GENE)
    if len(rows) < 2 and len(known):
        raise DataError(
            f"{truth.name}: a mean response needs two perturbations where targets are left out. "
            f"Found {listed(truth.perturbations(context))}. Use a truth with more of them."
        )
    number = np.full(means.shape[1], float(len(rows)))
    np.subtract.at(number, targets[known], 1.0)
    total = means.sum(axis=0)
    np.subtract.at(total, targets[known], means[known, targets[known]])
    if (number <= 0).any():
        genes = [truth.counts.genes[gene] for gene in np.flatnonzero(number <= 0)]
        raise DataError(
            f"{truth.name}: every perturbation targets {listed(genes)}, which leaves no mean "
            "response there. Expected perturbations of other genes. Use a truth that has some."
        )
    control = truth.control_of(context)
    base = statistics.counts[control] / statistics.sizes[control]
    factors: np.ndarray = np.divide(total / number, base, out=np.zeros_like(base), where=base > 0)
    return factors


def replicates(
    truth: CountTruth, names: Sequence[str], *, n_splits: int = N_SPLITS, base_seed: int = 0
) -> pd.DataFrame:
    """Score halves of the truth against each other; all splits in one pass over the genes.

    Returns
    -------
    Columns context, split, seed, metric, value, n_pairs. `de_wilcoxon_lfc_nmae` is that of the two
    halves' fold changes over the genes significant in the whole truth, relative to their size
    there, since half the cells find fewer genes.
    """
    thin = [
        label for label, size in zip(truth.labels, truth.statistics.sizes, strict=True) if size < 2
    ]
    if thin:
        raise DataError(
            f"{truth.name}: {len(thin)} groups have one cell: {listed([p for _, p in thin])}. "
            "Expected at least two, for a half each. Leave these perturbations out of the truth."
        )
    seeds = [int(seed) for seed in np.random.SeedSequence(base_seed).generate_state(n_splits)]
    halves = truth.measured(truth.counts, [split_groups(truth, seed) for seed in seeds])
    tables = []
    for split, (seed, statistics) in enumerate(zip(seeds, halves, strict=True)):
        first = truth.sides_of(statistics)
        second = truth.sides_of(statistics, len(truth.labels))
        comparisons = truth.comparisons(second, first)
        truth.check(comparisons, [registered()[name] for name in names])
        table = aggregate_table(comparisons, names)
        for context in comparisons:
            at = (table["context"] == context) & (table["metric"] == FOLD_CHANGE_ERROR)
            found = _fold_change_error(truth, context, first[context], second[context])
            table.loc[at, "value"] = float(found.mean()) if len(found) else np.nan
            table.loc[at, "n_pairs"] = len(found)
        _check_defined(truth, table, seed)
        table.insert(1, "split", split)
        table.insert(2, "seed", seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def split_groups(truth: CountTruth, seed: int) -> Groups:
    """Divide every group of the truth into two halves at random.

    The first halves are groups 0 to n - 1 in the truth's order, the second n to 2n - 1; the odd
    cell is in neither. Labels are permuted in byte order, by one generator per context. (The oracle
    takes the order of categories where labels are categorical; files that anndata wrote have them
    in natural order, so that its halves of such files are others than these.)
    """
    n_groups, codes = len(truth.labels), np.full(truth.groups.n_cells, -1, np.int32)
    cells = np.argsort(truth.groups.codes, kind="stable")
    starts = np.searchsorted(truth.groups.codes[cells], np.arange(n_groups + 1))
    for context, rows in truth.rows.items():
        rng = np.random.default_rng(seed)
        for group in sorted([*rows.tolist(), truth.control_of(context)]):
            shuffled = rng.permutation(cells[starts[group] : starts[group + 1]])
            half = len(shuffled) // 2
            codes[shuffled[:half]] = group
            codes[shuffled[half : 2 * half]] = n_groups + group
    reference = truth.groups.reference
    return Groups(codes, np.concatenate([reference, reference + n_groups]))


def _fold_change_error(
    truth: CountTruth, context: str, first: CountSide, second: CountSide
) -> np.ndarray:
    """Return the halves' fold change error of each pair with enough significant genes."""
    whole = truth.sides[context]
    calls = truth.comparisons(truth.sides)[context].true_calls
    one, other = (np.where(half.tested, half.log2_fold_change, 0.0) for half in (first, second))
    size = np.where(calls, np.abs(whole.log2_fold_change), 0.0).sum(axis=1)
    error = np.where(calls, np.abs(one - other), 0.0).sum(axis=1)
    enough = (calls.sum(axis=1) >= MIN_GENES) & (size > 0)
    return np.asarray(error[enough] / size[enough])


def _check_defined(truth: CountTruth, table: pd.DataFrame, seed: int) -> None:
    missing = table[~np.isfinite(table["value"])]
    if len(missing):
        rows = zip(missing["metric"], missing["context"], strict=True)
        found = listed([_place(metric, context) for metric, context in rows])
        raise DataError(
            f"{truth.name}: halves of the truth (seed {seed}) give no value of {found}. Expected "
            "one of every metric. The truth has too few cells or significant genes to be scaled by."
        )


def _place(metric: str, context: str) -> str:
    return f"{metric} in {context}" if context else metric
