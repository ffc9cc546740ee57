"""`harness prep`: a prediction into the challenge's format."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from harness.challenge import Layout, Rules, prepare, read_genes, read_perturbations
from harness.cli.console import Bars, notes


def prep_(  # noqa: PLR0913 - the options of a command
    prediction: str,
    *,
    genes: Annotated[str, Parameter(name=["--genes", "-g"])],
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    perturbations: str | None = None,
    max_cells: int = 100_000,
    encoding: Literal[32, 64] = 32,
    keep_counts: Annotated[bool, Parameter(negative=())] = False,
    perturbation_column: str = "target_gene",
    control: str | None = None,
    context_column: str | None = None,
    context: str | None = None,
) -> int:
    """Write a prediction as a submission to the challenge (2025), if it is acceptable.

    Counts become log1p values, each cell scaled to the median total. Nothing else is changed: what
    does not fit is refused, all of it at once, and nothing is left behind.

    Parameters
    ----------
    prediction
        The cells with their controls: .h5ad, .zarr, a prediction or a store.
    genes
        The challenge's genes in order: a name on each line, or a CSV.
    output
        The archive to write, NAME.vcc.
    perturbations
        The challenge's CSV of perturbations to predict, to check that all are there.
    max_cells
        How many cells there may be, controls among them.
    encoding
        Bits of a value.
    keep_counts
        Leave counts as they are.
    perturbation_column
        The column of obs with perturbations; the archive calls it target_gene.
    control
        What the prediction calls controls; the archive calls them non-targeting.
    context_column
        The column of obs with contexts; none where all cells share one.
    context
        The context to submit, where there are several.
    """
    expected = None if perturbations is None else read_perturbations(perturbations)
    rules = Rules(read_genes(genes), expected, max_cells)
    layout = Layout(perturbation_column, context_column, control, context)
    with Bars() as bars:
        done = prepare(
            prediction,
            output,
            rules,
            layout,
            encoding=encoding,
            keep_counts=keep_counts,
            progress=bars.update,
        )
    scale = done.scale
    if done.library_size is not None:
        scale = f"counts, scaled to {done.library_size:,.0f} per cell and made log1p"
    notes().print(
        f"{output}: {done.n_cells:,} cells x {done.n_genes:,} genes, {done.n_perturbations} "
        f"perturbations and controls, {scale}. {done.n_bytes / 2**20:,.1f} MiB",
        markup=False,
    )
    return 0
