"""Score a prediction against the truth, pair by pair.

`prepare` computes the truth's part; `score` takes that (or the truth itself) and one prediction,
and gives `Scores`: one row for each suite, metric and pair. A `Scorer` scores many predictions of
one truth, by suites of log1p values and of raw counts at once. Pairs are compared within their
context, against its own controls. The gene axis, the pairs and the controls of both sides must
agree; nothing is dropped or reordered to make them.
"""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from harness.errors import UnknownNameError
from harness.metrics import Comparison, Side, registered, registered_suites, suite_named
from harness.scoring.anchors import SUITE
from harness.scoring.cell_distances import distances_apart, energy_distances
from harness.scoring.centre import read_centre
from harness.scoring.checks import check_agreement, check_scales
from harness.scoring.de_tables import give_tables
from harness.scoring.group_statistics import measure
from harness.scoring.options import CONTROL_LABEL, PERTURBATION_COLUMN, ScoringOptions
from harness.scoring.scores import Scores
from harness.scoring.truth import PreparedTruth, add_energy, sides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    import numpy as np

    from harness.data import Cells, Scale
    from harness.kernels import Choice
    from harness.metrics import CountComparison, Metric, Need, Suite

Centre: TypeAlias = "str | Callable[[str], np.ndarray] | None"
"""A reference mean: a table's path, or a function from a context to (n_genes,) log1p values."""

SUFFIXES = frozenset({".h5ad", ".h5", ".zarr", ".vcc"})
"""What a file's name loses when it becomes the name of a prediction."""


def prepare(  # noqa: PLR0913 - options, all by keyword
    truth: Any,
    options: ScoringOptions | None = None,
    *,
    suite: str | Sequence[str] = "vcc2025",
    metrics: Sequence[str] | None = None,
    reference: str | None = None,
    de_table: str | None = None,
    centre: Centre = None,
) -> PreparedTruth:
    """Read the truth and compute its part of every score.

    Parameters
    ----------
    truth
        As in `score`.
    options
        How to read it; predictions are read likewise.
    suite, metrics
        What will be scored. (What is not named here is computed when it is scored.)
    reference
        A folder or URL where that is kept, and looked for, by content. A truth in memory is not.
    de_table
        A table of the truth's differential expression; see `harness.scoring.de_tables`.
    centre
        What metrics centre effects on that take a mean from outside the truth: the path of a table
        (see `harness.scoring.centre`), or a function from a context to (n_genes,) log1p values.
    """
    prepared = PreparedTruth(truth, options or ScoringOptions(), _name(truth, "truth"), reference)
    prepared.measure(_needs(chosen_suites(suite, metrics)))
    if de_table is not None:
        give_tables(prepared.sides, prepared.statistics, de_table)
    if isinstance(centre, str):
        profiles = read_centre(centre, prepared.statistics.genes, tuple(prepared.sides))
        prepared.centre = profiles.__getitem__
    else:
        prepared.centre = centre
    return prepared


def score(  # noqa: PLR0913 - the public face: each option is one of the command's
    truth: Any,
    prediction: Any,
    *,
    suite: str | Sequence[str] = "vcc2025",
    metrics: Sequence[str] | None = None,
    perturbation_column: str = PERTURBATION_COLUMN,
    control: str = CONTROL_LABEL,
    context_column: str | None = None,
    threads: int | None = None,
    memory: str = "1GiB",
    scale: Scale | None = None,
    prediction_scale: Scale | None = None,
    no_target_genes: bool = False,
    backend: Choice = "auto",
    de_table: str | None = None,
    centre: Centre = None,
    strict: bool = True,
) -> Scores:
    """Score one prediction under one suite or several.

    Parameters
    ----------
    truth
        A path (.h5ad, .zarr, a store), an AnnData object, anything with the cells' protocol, or
        what `prepare` made of one of them; with the last, the options on reading are its own.
    prediction
        The same, save the last. Its controls must be in it, unless all metrics are of raw counts:
        these take the truth's.
    suite
        Name or names of suites; commas separate several.
    metrics
        Compute these instead of a suite's own, under its conventions.
    perturbation_column, context_column
        Columns of `obs`; without a context column all cells share one context.
    control
        The perturbation of control cells.
    threads, memory
        How many threads (default: all); about how much memory a block of genes may take.
    scale
        What the values are. Default: log1p where any has a fractional part above 0.001, else
        counts, which are scaled to the median library size of their context in their file. Truth
        and prediction must be on one scale, or else the prediction's must be named:
    prediction_scale
        What the prediction's values are, where that is meant to be another scale.
    no_target_genes
        Whether perturbations act on no gene. Suites that leave target genes out (vcc2026) take a
        truth none of whose perturbations is named after a gene for a mistake unless told so.
    backend
        Where ranks are computed: ``cpu``, ``gpu``, or ``auto``, a GPU where one is visible.
    de_table
        CSV or Parquet of the prediction's differential expression, as pdex writes it, to take in
        place of the rank test; `prepare` takes the truth's. Suites of raw counts do not use it.
    centre
        As in `prepare`, for a truth that was not prepared.
    strict
        Whether a truth whose effects cannot be told from noise is refused by suites that scale an
        error by them, as the oracle refuses it; else that error is undefined there.

    Returns
    -------
    One row for each suite, metric and pair.
    """
    chosen = chosen_suites(suite, metrics)
    needs = _needs(chosen)
    if not isinstance(truth, PreparedTruth):
        options = ScoringOptions(
            perturbation_column=perturbation_column,
            context_column=context_column,
            control=control,
            scale=scale,
            prediction_scale=prediction_scale,
            threads=threads,
            memory=memory,
            no_target_genes=no_target_genes,
            backend=backend,
        )
        truth = prepare(truth, options, suite=suite, metrics=metrics, centre=centre)
    truth.measure(needs)
    name = _name(prediction, "prediction")
    cells = truth.options.for_prediction.cells(prediction, name)
    sides = _predicted(truth, cells, name, needs) if needs - {"counts"} else {}
    if sides and de_table is not None:
        give_tables(sides, truth.statistics, de_table)
    counted: Mapping[str, CountComparison] = {}
    if "counts" in needs:
        counted = truth.counted.comparisons(truth.counted.predicted(cells, name))
        asked = [m for _, members in chosen for m in members]
        truth.counted.check(counted, asked, effects=strict)
    rows = []
    for one, members in chosen:
        centred = truth.centre if any("centre" in metric.needs for metric in members) else None
        plain = {at: _comparison(truth, at, side, one, centred) for at, side in sides.items()}
        for context in sides or counted:
            for metric in members:
                compared = (counted if "counts" in metric.needs else plain)[context]
                rows.append(_rows(context, one, metric, compared))
    return Scores(pd.concat(rows, ignore_index=True), name=prediction_name(name))


def prediction_name(path: str) -> str:
    """Name a prediction by its file, without the extension."""
    pure = PurePath(path.rstrip("/"))
    return pure.stem if pure.suffix in SUFFIXES else pure.name


def _needs(chosen: Iterable[tuple[Suite, tuple[Metric, ...]]]) -> frozenset[Need]:
    return frozenset(need for _, members in chosen for metric in members for need in metric.needs)


def _predicted(
    truth: PreparedTruth, cells: Cells, name: str, needs: frozenset[Need]
) -> dict[str, Side]:
    """Return a prediction's side of each context, for metrics of log1p values."""
    if truth.options.prediction_scale is None:
        check_scales(truth.statistics.scale, cells, truth.name, name)
    options = truth.options.for_prediction
    found = measure(cells, name=name, scale=options.scale, backend=options.device, **options.limits)
    check_agreement(truth.statistics.axes, found.axes, truth.name, name)
    sides = dict(sides_of(found))
    if "energy" in needs:
        add_energy(sides, found, energy_distances(cells, name=name, **options.limits))
    if "populations" in needs:
        apart = distances_apart(truth.cells, cells, truth.statistics.means, **options.limits)
        for context, side in sides.items():
            side.apart = apart.of(found.rows_of(context))
    return sides


def chosen_suites(
    names: str | Sequence[str], metrics: Sequence[str] | None = None
) -> list[tuple[Suite, tuple[Metric, ...]]]:
    """Return the suites named, each with the metrics to compute; unknown names are errors."""
    wanted = _each_once(
        "suite", names.split(",") if isinstance(names, str) else names, registered_suites()
    )
    chosen = None if metrics is None else _each_once("metric", metrics, registered())
    return [(suite_named(name), suite_named(name).members(chosen)) for name in wanted]


def _each_once(kind: str, names: Sequence[str], known: Mapping[str, object]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(name.strip() for name in names))
    for name in named:
        if name not in known:
            raise UnknownNameError(kind, name, tuple(known))
    return named


def scores_counts(suite: str) -> bool:
    """Return True if a suite scores raw counts, and so needs truth and predictions of counts."""
    return "counts" in _needs(chosen_suites(suite))


_LAST_TRUTH: dict[Scale | None, tuple[Any, PreparedTruth]] = {}
"""The last truth of each scale that a `Scorer` with a key prepared here: each can be large."""


class Scorer:
    """Scores predictions of one truth by several suites, each on the scale that it needs.

    The truth's part is prepared once for each scale, when the first prediction is scored.

    Parameters
    ----------
    truth
        A path, an AnnData object or cells, on the scale that they are; or a function that returns
        cells for a scale, ``log1p`` or ``counts``, whichever the suites need.
    suites, metrics
        Names of suites; compute these metrics instead of a suite's own.
    options
        How truth and predictions are read.
    counts_options
        Options of suites of raw counts, if they are others.
    reference, de_table, centre
        As for `prepare`.
    key
        Identifies the truth and how it is read: the next scorer in this process with the same key
        and suites takes the prepared truth over. None: it is prepared for this scorer alone.
    """

    def __init__(  # noqa: PLR0913 - options, all by keyword
        self,
        truth: Any,
        suites: Sequence[str],
        options: ScoringOptions | None = None,
        *,
        counts_options: ScoringOptions | None = None,
        metrics: Sequence[str] | None = None,
        reference: str | None = None,
        de_table: str | None = None,
        centre: Centre = None,
        key: Hashable | None = None,
    ) -> None:
        self.source, self.suites = truth, tuple(suites)
        self.options = options or ScoringOptions()
        self.counts_options = counts_options or self.options
        self.metrics, self.reference, self.de_table, self.key = metrics, reference, de_table, key
        self.centre = centre
        self.scales: dict[Scale | None, list[str]] = {self.options.scale: [*self.suites]}
        if callable(truth):
            of_counts = [name for name in self.suites if scores_counts(name)]
            others = [name for name in self.suites if name not in of_counts]
            by_scale: dict[Scale | None, list[str]] = {"log1p": others, "counts": of_counts}
            self.scales = {scale: names for scale, names in by_scale.items() if names}
        self.truths: dict[Scale | None, PreparedTruth] = {}
        """By scale, as far as they are prepared; one that was prepared elsewhere may be put in."""

    def truth(self, scale: Scale | None) -> PreparedTruth:
        """Return the truth's part of the scores on a scale."""
        if scale in self.truths:
            return self.truths[scale]
        names = self.scales[scale]
        key = (self.key, self.options, tuple(names), self.metrics)
        if self.key is not None and scale in _LAST_TRUTH and _LAST_TRUTH[scale][0] == key:
            prepared = _LAST_TRUTH[scale][1]
        else:
            if self.key is not None:
                _LAST_TRUTH.pop(scale, None)  # before the next one is read
            prepared = prepare(
                self.source(scale) if callable(self.source) else self.source,
                self.counts_options if scale == "counts" else self.options,
                suite=names,
                metrics=self.metrics,
                reference=self.reference,
                de_table=self.de_table,
                centre=self.centre,
            )
            if self.key is not None:
                _LAST_TRUTH[scale] = key, prepared
        self.truths[scale] = prepared
        return prepared

    def score(
        self,
        prediction: Any,
        *,
        strict: bool = True,
        de_table: str | None = None,
        with_ends: bool = False,
    ) -> Scores:
        """Score one prediction by all suites, in their order.

        Parameters
        ----------
        prediction
            A path, an AnnData object or cells; or a function that returns them for a scale.
        strict, de_table
            As for `score`.
        with_ends
            Whether the scores hold the truth's anchors, if the 2026 suite is one of them.
        """
        parts, scales = [], {}
        for scale, names in self.scales.items():
            truth = self.truth(scale)
            cells = prediction(scale) if callable(prediction) else prediction
            asked: dict[str, Any] = {"suite": names, "metrics": self.metrics}
            parts.append(score(truth, cells, **asked, de_table=de_table, strict=strict))
            if with_ends and SUITE in names:
                scales[SUITE] = truth.ends
        if len(parts) == 1 and not scales:
            return parts[0]
        order = {name: place for place, name in enumerate(self.suites)}
        frame = pd.concat([part.frame for part in parts], ignore_index=True)
        frame = frame.sort_values("suite", key=lambda names: names.map(order), kind="stable")
        return Scores(frame.reset_index(drop=True), name=parts[0].name, scales=scales)


def _name(source: Any, otherwise: str) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source).rstrip("/")
    return str(getattr(source, "name", otherwise))


def _comparison(
    truth: PreparedTruth,
    context: str,
    side: Side,
    suite: Suite,
    centre: Callable[[str], np.ndarray] | None,
) -> Comparison:
    names = truth.statistics.perturbations
    return Comparison(
        perturbations=tuple(names[row] for row in truth.statistics.rows_of(context)),
        genes=truth.statistics.genes,
        truth=truth.sides[context],
        prediction=side,
        conventions=suite.conventions,
        threads=truth.options.n_threads,
        centre=None if centre is None else centre(context),
    )


def _rows(
    context: str, suite: Suite, metric: Metric, compared: Comparison | CountComparison
) -> pd.DataFrame:
    """Compute a metric in a context: a row for each pair."""
    found = metric(compared)
    return pd.DataFrame(
        {
            "suite": suite.name,
            "metric": metric.name,
            "version": metric.version,
            "context": context,
            "perturbation": compared.perturbations,
            "value": found.values,
            "reason": found.reasons,
        }
    )
