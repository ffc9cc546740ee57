"""`harness score`: predictions against held-out cells, without a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.analysis import write_batch_tables
from harness.cli.console import MISUSED, complain, notes, out, progress, split_names
from harness.errors import DataError
from harness.scoring import NOTE, SUITE, Request, ScoringOptions, score_files

if TYPE_CHECKING:
    import pandas as pd

Predictions = Annotated[
    list[str], Parameter(name=["--prediction", "-p"], consume_multiple=True, negative=())
]
Tables = Annotated[
    list[str] | None, Parameter(name="--de-prediction", consume_multiple=True, negative=())
]
Threads = Annotated[int | None, Parameter(validator=Number(gte=1))]


def score_(  # noqa: PLR0913 - the options of a command
    *,
    truth: Annotated[str, Parameter(name=["--truth", "-t"])],
    prediction: Predictions,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    suite: str = "vcc2025",
    metrics: str | None = None,
    reference: str | None = None,
    de_truth: str | None = None,
    de_prediction: Tables = None,
    centre: str | None = None,
    baseline: str | None = None,
    perturbation_column: str = "target_gene",
    context_column: str | None = None,
    control: str = "non-targeting",
    scale: Literal["counts", "log1p"] | None = None,
    prediction_scale: Literal["counts", "log1p"] | None = None,
    threads: Threads = None,
    memory: str = "1GiB",
    backend: Literal["auto", "cpu", "gpu"] = "auto",
    no_target_genes: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Score predictions against held-out cells, and compare them.

    Writes OUT/scores.parquet, OUT/table.md, and results.csv and agg_results.csv for each prediction
    and suite, as cell-eval names and shapes them.

    Parameters
    ----------
    truth
        The held-out cells with their controls: .h5ad, .zarr or a store.
    prediction
        One or several predictions, with their controls.
    output
        The folder to write to.
    suite
        Which scores; several with commas.
    metrics
        These metrics instead of the suite's own, with commas.
    reference
        A folder where the truth's part of the scores is kept, and found the next time.
    de_truth
        The truth's differential expression, CSV or Parquet as pdex writes it, to take in place of
        the rank test.
    de_prediction
        The same of each prediction, in their order.
    centre
        A table (CSV, TSV, Parquet) of reference profiles, genes as rows and contexts as columns,
        that the metrics named *_training_mean centre effects on, such as the mean of the training
        perturbations.
    baseline
        A prediction that combined scores are measured from.
    perturbation_column
        The column of obs with perturbations.
    context_column
        The column of obs with contexts; none where all cells share one.
    control
        The perturbation of control cells.
    scale
        What the values are; by default, log1p where any has a fraction, else counts. Truth and
        predictions must be on one scale.
    prediction_scale
        What the predictions' values are, where that is meant to be another scale.
    threads
        How many threads to use; by default all there are.
    memory
        About how much memory a block of genes may take.
    backend
        Where ranks are computed: a GPU, the CPU, or by default a GPU where one is visible.
    no_target_genes
        Perturbations act on no gene of the panel; vcc2026 asks to be told.
    """
    options = ScoringOptions(
        perturbation_column,
        context_column,
        control,
        scale,
        threads,
        memory,
        no_target_genes=no_target_genes,
        backend=backend,
        prediction_scale=prediction_scale,
    )
    device = options.device  # before anything is read: a GPU that is not there is an error
    if backend == "auto" and device.name == "cpu":
        notes().print(f"On the CPU: {device.reason}.", markup=False)
    names = None if metrics is None else metrics.split(",")
    if de_prediction and len(de_prediction) != len(prediction):
        raise DataError(
            f"--de-prediction: found {len(de_prediction)} tables, {len(prediction)} predictions. "
            "Expected one for each, in the same order, or none. Name them all."
        )
    request = Request(
        suites=list(split_names(suite)),
        metrics=names,
        baseline=baseline,
        options=options,
        reference=reference,
        centre=centre,
        de_truth=de_truth,
        de_predictions=dict(zip(prediction, de_prediction or (), strict=False)),
    )
    with progress("scoring", "predictions") as report:
        batch = score_files(truth, prediction, output, request, report)
    for table in write_batch_tables(batch, output, request):
        out().print(table, soft_wrap=False)
    if len(batch.anchored):
        out().print(anchored_table(batch.anchored), soft_wrap=False)
    if batch.not_anchored:
        notes().print(f"No scaled score: {batch.not_anchored}", markup=False)
    if batch.scores:
        notes().print(f"Written to {output}", markup=False)
    for failure in batch.failures.values():
        complain(failure)
    return MISUSED if batch.failures else 0


def anchored_table(frame: pd.DataFrame) -> Table:
    """Return the scores between the anchors of the 2026 suite."""
    table = Table(title=f"{SUITE}, scaled", title_justify="left", box=SIMPLE_HEAD)
    for name in frame.columns:
        table.add_column(
            str(name), justify="left" if name == "prediction" else "right", overflow="fold"
        )
    for row in frame.itertuples(index=False):
        table.add_row(str(row[0]), *(f"{value:.3f}" for value in row[1:]))
    table.caption, table.caption_justify = NOTE, "left"
    return table
