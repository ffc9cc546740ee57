"""Every kind of table by its name, and all of a kind that results have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from harness.analysis.statistics import DEFAULT, Bootstrap
from harness.analysis.tables.ablation import ablation
from harness.analysis.tables.comparison import compare
from harness.analysis.tables.cost import cost
from harness.analysis.tables.pairwise import pairs
from harness.analysis.tables.per_perturbation import perturbations
from harness.analysis.tables.ranks import ranks
from harness.analysis.tables.selection import Scope, declared_suites, suite_names
from harness.analysis.tables.strata import strata
from harness.analysis.tables.suites import drift
from harness.analysis.tables.sweep import sweep
from harness.analysis.tables.table import side_by_side
from harness.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.analysis.results import Results
    from harness.analysis.tables.table import Table

Kind = Literal[
    "comparison",
    "ablation",
    "sweep",
    "perturbations",
    "strata",
    "cost",
    "drift",
    "pairs",
    "ranks",
]

_OF_A_SCOPE = {
    "sweep": sweep,
    "perturbations": perturbations,
    "strata": strata,
    "cost": cost,
    "ranks": ranks,
}


def tables_of(
    results: Results,
    kind: Kind,
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> tuple[Table, ...]:
    """Return the tables of one kind, one for each suite; of drift one for all of them.

    Parameters
    ----------
    suites
        By default all that there are scores of.
    baseline
        What combined scores are measured from, by default what the runs' jobs say; of pairs, the
        setting to compare all others with, by default none.

    Raises
    ------
    UnknownNameError
        There are no scores of a suite, or no trials of a baseline, that was named.
    DataError
        The runs hold no ablation, or drift is asked of one suite.
    """
    known = suite_names(results)
    for name in suites:
        if name not in known:
            raise UnknownNameError("suite of these results", name, tuple(known))
    models = tuple(dict.fromkeys(str(model) for model in results.trials["model"]))
    if baseline is not None and baseline.partition(" ")[0] not in models:
        raise UnknownNameError("model of these results", baseline, models)
    if kind == "drift":
        return (drift(results, suites, baseline, bootstrap),)
    every = [*(suites or known)] or declared_suites(results)
    made = [_table(results, kind, name, baseline, bootstrap) for name in every]
    found = side_by_side(table for table in made if table is not None)
    if not found:
        raise DataError(
            f"{', '.join(results.runs)}: no job of these runs is an ablation. Expected `kind: "
            "ablation` in one. For the levels of a sweep, ask for --kind sweep."
        )
    return found


def _table(
    results: Results, kind: Kind, suite: str, baseline: str | None, bootstrap: Bootstrap
) -> Table | None:
    if kind == "comparison":
        return compare(results, suite=suite, baseline=baseline, bootstrap=bootstrap)
    if kind == "ablation":
        return ablation(results, suite=suite, baseline=baseline, bootstrap=bootstrap)
    scope = Scope.of(results, suite, baseline, bootstrap)
    if kind == "pairs":
        return pairs(scope, against=baseline)
    return _OF_A_SCOPE[kind](scope)
