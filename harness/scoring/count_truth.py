"""The truth's part of scores of raw counts, and predictions compared with it, by context.

The truth's controls are the origin of effects and the reference of the rank test for both sides;
controls in a prediction play no part and need not be there.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import DataError, listed
from harness.kernels import Groups
from harness.metrics import NO_GENE, CountComparison, CountSide, Ratio, registered, target_columns
from harness.scoring.checks import check_agreement
from harness.scoring.count_statistics import CellCounts, Picked, Stacked, measure_counts
from harness.scoring.group_statistics import check_genes, grouped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.data import Cells
    from harness.metrics import Metric
    from harness.scoring.count_statistics import Counts, CountStatistics

NO_TARGETS_METRICS = frozenset({"expr_real_mass_ratio"})
"""Metrics of counts that leave no gene out."""


class CountTruth:
    """A truth of raw counts, read once for many predictions.

    Labels and scale are checked at once, values when they are read. `labels` has the (context,
    perturbation) of each group, controls included, in byte order; `groups` the group of each cell.

    Parameters
    ----------
    cells
        The truth.
    name
        What errors call it.
    threads, memory
        How many threads; about how many bytes a block of genes may take.
    no_target_genes
        Whether the perturbations are known to act on no gene (drugs, cytokines): nothing is left
        out then, and names that are no genes are no mistake.
    """

    def __init__(
        self,
        cells: Cells,
        name: str = "truth",
        *,
        threads: int = 1,
        memory: int = 1 << 30,
        no_target_genes: bool = False,
    ) -> None:
        check_genes(tuple(cells.genes), name)
        self.counts = CellCounts(cells, name)
        self.labels, self.groups = grouped(cells, name)
        self.control_label, self.name = cells.control_label, name
        self.threads, self.memory = threads, memory
        self.no_target_genes = no_target_genes

    @cached_property
    def statistics(self) -> CountStatistics:
        """The statistics of the truth's groups, computed when first asked for."""
        return self.measured(self.counts, [self.groups])[0]

    def measured(self, counts: Counts, groupings: list[Groups]) -> list[CountStatistics]:
        """Measure counts with the truth's threads and memory."""
        return measure_counts(counts, groupings, threads=self.threads, memory=self.memory)

    @cached_property
    def sides(self) -> dict[str, CountSide]:
        """The truth's side of each context."""
        return self.sides_of(self.statistics)

    def sides_of(self, statistics: CountStatistics, first: int = 0) -> dict[str, CountSide]:
        """Split statistics whose groups from `first` on are the truth's, by context."""
        sides = {}
        for context, rows in self.rows.items():
            pairs, control = first + rows, first + self.control_of(context)
            sides[context] = CountSide(
                bulk=statistics.bulk[pairs],
                control_bulk=statistics.bulk[control],
                noise=statistics.noise[pairs],
                control_noise=float(statistics.noise[control]),
                cpm=statistics.cpm[pairs],
                control_cpm=statistics.cpm[control],
                u=statistics.u[pairs],
                ties=statistics.ties[pairs],
                sizes=statistics.sizes[pairs],
                n_controls=int(statistics.sizes[control]),
            )
        return sides

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The groups of each context's pairs, contexts without pairs aside."""
        rows: dict[str, list[int]] = {}
        for row, (context, perturbation) in enumerate(self.labels):
            if perturbation != self.control_label:
                rows.setdefault(context, []).append(row)
        return {context: np.array(found) for context, found in rows.items()}

    def control_of(self, context: str) -> int:
        """Return the group of a context's controls."""
        return int(self.groups.reference[self.rows[context][0]])

    def perturbations(self, context: str) -> tuple[str, ...]:
        """Return the perturbations of a context."""
        return tuple(self.labels[row][1] for row in self.rows[context])

    def predicted(self, cells: Cells, name: str) -> dict[str, CountSide]:
        """Read a prediction and return its side of each context.

        Raises
        ------
        DataError
            Its values are no counts, or its genes or pairs are not the truth's.
        """
        labels = list(zip(np.asarray(cells.contexts, str), cells.perturbations, strict=True))
        true, pairs = (
            frozenset((str(p), str(c)) for c, p in found if p != self.control_label)
            for found in (self.labels, labels)
        )
        check_agreement((self.counts.genes, true), (tuple(cells.genes), pairs), self.name, name)
        place = {label: row for row, label in enumerate(self.labels)}
        codes = np.array(
            [-1 if p == self.control_label else place[str(c), str(p)] for c, p in labels], np.int32
        )
        return self.compared(CellCounts(cells, name), codes)

    def compared(self, counts: Counts, codes: np.ndarray) -> dict[str, CountSide]:
        """Measure cells whose groups are given against the truth's controls."""
        is_control = np.append(self.groups.is_control, False)  # code -1 is in no group
        rows = np.flatnonzero(is_control[self.groups.codes])
        controls = Picked(self.counts, rows)
        joint = np.concatenate([codes, self.groups.codes[rows]])
        groups = Groups(joint, self.groups.reference)
        return self.sides_of(self.measured(Stacked(counts, controls), [groups])[0])

    def comparisons(
        self, predicted: Mapping[str, CountSide], true: Mapping[str, CountSide] | None = None
    ) -> dict[str, CountComparison]:
        """Put sides of every context beside the truth's own, or beside those given."""
        return {
            context: CountComparison(
                perturbations=self.perturbations(context),
                genes=self.counts.genes,
                truth=(true or self.sides)[context],
                prediction=side,
                targets=self.targets(context),
                threads=self.threads,
            )
            for context, side in predicted.items()
        }

    def targets(self, context: str) -> np.ndarray:
        """Return the column of the gene each perturbation of a context is named after."""
        names = self.perturbations(context)
        if self.no_target_genes:
            return np.full(len(names), NO_GENE)
        return target_columns(names, self.counts.genes)

    def check(
        self,
        comparisons: Mapping[str, CountComparison],
        metrics: Iterable[Metric],
        *,
        effects: bool = True,
    ) -> None:
        """Refuse a truth on which a metric has no meaning, as the oracle does.

        Parameters
        ----------
        effects
            Whether to look at the size of the true effects, too.

        Raises
        ------
        DataError
            No gene is expressed in the controls; no perturbation is named after a gene, or after
            one that is tested; or the true effects are no larger than noise in sum.
        """
        chosen = [metric for metric in metrics if "counts" in metric.needs]
        for context, comparison in comparisons.items():
            where = f"{self.name}, context {context}" if context else self.name
            if any(metric.name.startswith("de_") for metric in chosen):
                _check_tested(comparison, where)
            if not self.no_target_genes:
                _check_targets(comparison, chosen, where)
            for metric in chosen:
                if effects and isinstance(metric.reduce, Ratio):
                    _check_denominator(comparison, metric.reduce.denominator, where)


def _check_tested(comparison: CountComparison, where: str) -> None:
    for side in (comparison.truth, comparison.prediction):
        if not side.tested.any():
            raise DataError(
                f"{where}: no gene is tested. The controls' highest mean is "
                f"{side.control_cpm.max():.3g} counts per million, expected some above 5. "
                "Check that the control cells are right."
            )


def _check_targets(comparison: CountComparison, metrics: list[Metric], where: str) -> None:
    named = {
        metric.name.startswith("de_") for metric in metrics if metric.name not in NO_TARGETS_METRICS
    }
    unknown = bool(named) and (comparison.targets == NO_GENE).all()
    untested = True in named and (comparison.effective_targets == NO_GENE).all()
    if unknown or untested:
        what = "a gene of the screen" if unknown else "a gene that is tested"
        raise DataError(
            f"{where}: no perturbation is named after {what}, so that no target could be left out. "
            f"Found {listed(comparison.perturbations)} among genes such as "
            f"{listed(comparison.genes[:3])}. Name perturbations after their target genes, or say "
            "that they have none (no_target_genes)."
        )
    if "pds_cosine" in {metric.name for metric in metrics}:
        panel = set(comparison.targets.tolist()) - {NO_GENE}
        if len(panel) == len(comparison.genes):
            raise DataError(
                f"{where}: each of the {len(panel)} genes is the target of a perturbation, so that "
                "pds_cosine would leave out all of them. Expected other genes besides. Score more "
                "genes, or leave out this metric."
            )


def _check_denominator(comparison: CountComparison, name: str, where: str) -> None:
    total = float(registered()[name](comparison).values.sum())
    if not total > 0:
        raise DataError(
            f"{where}: the true effects cannot be told from noise. The sum of {name} over "
            f"{comparison.n_pairs} perturbations is {total:.3g}, expected a positive number. Use a "
            "truth with more cells or stronger perturbations."
        )
