"""`harness simulate`: a screen with known effects."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from harness.cli.console import notes, progress
from harness.data import effects_path, simulate

Contexts = Annotated[int | None, Parameter(validator=Number(gte=1))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Output = Annotated[str, Parameter(name=["--output", "-o"])]


def simulate_(preset: str, *, output: Output, seed: Seed = 0, contexts: Contexts = None) -> int:
    """Draw a screen with known effects.

    Counts are negative binomial; targets are knocked down, and a sparse set of other genes follows.
    The effects that are true of it are stored beside it.

    Parameters
    ----------
    preset
        tiny (seconds), small, or h1 (18,080 genes, 300 perturbations of about 1,000 cells).
    output
        The store to write, NAME.zarr or s3://BUCKET/NAME.zarr.
    seed
        The same seed gives the same screen.
    contexts
        How many contexts; the preset's own number by default.
    """
    changes = {} if contexts is None else {"contexts": contexts}
    with progress(f"simulating {preset}") as report:
        store = simulate(preset, output, seed=seed, progress=report, **changes)
    notes().print(
        f"{output}: {store.n_cells:,} cells x {store.n_genes:,} genes, {len(store.pairs)} pairs in "
        f"{len(store.contexts)} contexts. Known effects: {effects_path(output)}",
        markup=False,
    )
    return 0
