"""`harness new`: a model's package, or a job, that works and is there to be changed."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from harness.cli.console import complain, notes
from harness.cli.scaffold import new_job, new_model


def new_(
    what: Literal["model", "job"],
    name: str,
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    dataset: str | None = None,
    like: str = "baselines",
) -> int:
    """Write a model's package with its test, or a job for a dataset, to start from.

    Parameters
    ----------
    what
        model: a package with a model of ten lines, its test, its entry point and a job.
        job: a copy of a job for another dataset.
    name
        What jobs, or `harness run`, will call it.
    output
        The folder, or the job's file; ./NAME and jobs/NAME.yaml by default. Must not exist.
    dataset
        For a job: the card, simulated screen or store to run on.
    like
        For a job: the one to copy.
    """
    if what == "job":
        if dataset is None:
            complain(
                "A job needs a dataset: a card, sim:tiny or mine.zarr. Give it with --dataset."
            )
            return 2
        file = new_job(name, dataset, like, output)
        notes().print(f"{file}. Run it: harness run {file}", markup=False)
        return 0
    if dataset is not None:
        complain("--dataset is for a job: harness new job NAME --dataset DATASET.")
        return 2
    written = new_model(name, output)
    folder = output or name
    for file in written:
        notes().print(str(file), markup=False)
    notes().print(
        f"Install it: pip install -e {folder}. Test it: pytest {folder}. "
        f"Compare it: harness run {written[-1]}",
        markup=False,
    )
    return 0
