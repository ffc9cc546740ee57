"""`harness check`: all that is wrong with declarations, stores and submissions, at once."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from harness.challenge import Rules, read_genes, read_perturbations
from harness.check import check
from harness.cli.console import complain, notes


def check_(
    *paths: str,
    genes: Annotated[str | None, Parameter(name=["--genes", "-g"])] = None,
    perturbations: str | None = None,
    max_cells: int = 100_000,
) -> int:
    """Read declarations, stores and submissions, and report all that is wrong at once.

    Parameters
    ----------
    paths
        YAML files, folders of them, names of cards, jobs and cluster files, stores, or submissions
        (.vcc). Every declaration that can be found by name when there are none.
    genes
        For submissions: the challenge's genes in order, a name on each line or a CSV.
    perturbations
        For submissions: the challenge's CSV of perturbations to predict.
    max_cells
        For submissions: how many cells there may be.
    """
    rules = Rules(
        None if genes is None else read_genes(genes),
        None if perturbations is None else read_perturbations(perturbations),
        max_cells,
    )
    checked = check(paths, rules)
    for problem in checked.problems:
        complain(problem)
    files = f"{len(checked.read)} read"
    if checked.problems:
        notes().print(f"{files}, {len(checked.problems)} problems.")
        return 1
    notes().print(f"{files}, nothing wrong.")
    return 0
