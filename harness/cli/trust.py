"""`harness trust`: what each metric is worth on a screen."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from harness.cli.console import Bars, notes, out, split_names
from harness.runs import assess
from harness.scoring import Sampling, ScoringOptions

Count = Annotated[int, Parameter(validator=Number(gte=2))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Threads = Annotated[int | None, Parameter(validator=Number(gte=1))]


def trust_(  # noqa: PLR0913 - the options of a command
    dataset: str,
    *,
    suite: str | None = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    pairs: Count = 100,
    cells: Count = 200,
    controls: Count = 1000,
    seed: Seed = 0,
    threads: Threads = None,
    memory: str = "1GiB",
) -> int:
    """Check whether metrics can be trusted on a screen, or on the screens of a run.

    Halves of real pairs predict each other; the mean of the others, controls and shuffled labels
    predict nothing; tricks blow a weak prediction up. Says how far each metric tells them apart,
    and what raises it.

    Parameters
    ----------
    dataset
        A card, a store, or sim:PRESET; or a run folder, whose tables then carry the marks.
    suite
        Which scores; several with commas. By default a run's own, else vcc2025.
    output
        The folder to write; by default runs/trust-NAME, or trust/ in the run folder.
    pairs
        At most so many pairs of each context are looked at.
    cells
        At most so many cells of each half of a pair.
    controls
        At most so many cells of each half of a context's controls.
    seed
        Of what is drawn.
    threads
        How many threads to use; by default all there are.
    memory
        About how much memory a block of genes may take.
    """
    with Bars() as bars:
        found = assess(
            dataset,
            split_names(suite),
            output,
            sampling=Sampling(pairs=pairs, cells=cells, controls=controls, seed=seed),
            options=ScoringOptions(threads=threads, memory=memory),
            progress=lambda stage, done, total: bars.update(stage, done, total, "predictions"),
        )
    for one in found:
        out().print(one.table, soft_wrap=False)
        notes().print(f"{one.dataset}: written to {one.folder}", markup=False)
    return 0
