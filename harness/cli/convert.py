"""`harness convert`: a screen into a store."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from harness.cli.console import Bars, notes
from harness.data import card_for

Output = Annotated[str, Parameter(name=["--output", "-o"])]
Threads = Annotated[int | None, Parameter(validator=Number(gte=1))]


def convert_(  # noqa: PLR0913 - the options of a command
    source: str,
    *,
    output: Output,
    card: str | None = None,
    memory: str = "1GiB",
    threads: Threads = None,
    obs: str | None = None,
    perturbation_column: str = "target_gene",
    context_column: str | None = None,
    control: str = "non-targeting",
    scale: Literal["counts", "log1p"] | None = None,
) -> int:
    """Turn a screen into a chunked store, its cells sorted by context and perturbation.

    The same command again goes on where an interrupted one stopped. What does not fit the card is
    refused, and nothing is left behind.

    Parameters
    ----------
    source
        A file (.h5ad, 10x .h5, .zarr), or the name of a card whose file is on this machine.
    output
        The store to write, NAME.zarr or s3://BUCKET/NAME.zarr.
    card
        The card that describes the file; by default the one that names it. Without one, the options
        below say what a card would.
    memory
        What the matrix may take, whatever the file's size.
    threads
        Blocks worked on at once; by default the cores of this process.
    obs
        A table of cells (CSV, TSV, Parquet) joined by barcode, for files without annotation.
    perturbation_column
        Without a card: the column with perturbations.
    context_column
        Without a card: the column with contexts; none where all cells share one.
    control
        Without a card: the perturbation of control cells.
    scale
        Without a card: counts or log1p.
    """
    from harness.data import convert

    file, described = card_for(
        source,
        card,
        perturbation_column=perturbation_column,
        context_column=context_column,
        control=control,
        scale=scale,
    )
    with Bars() as bars:
        report = partial(bars.update, unit="blocks")
        store = convert(
            file, output, described, memory=memory, threads=threads, obs=obs, progress=report
        )
    notes().print(
        f"{output}: {store.n_cells:,} cells x {store.n_genes:,} genes, {len(store.pairs)} pairs in "
        f"{len(store.contexts)} contexts, {store.scale}. Fingerprint {store.fingerprint}",
        markup=False,
    )
    return 0
