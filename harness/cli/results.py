"""`harness results`: the scores of runs as data, by SQL or as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from harness.analysis import Form, Results, export_results, query_results, write_frame
from harness.cli.console import MISUSED, complain, notes, out

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 200


def results_(
    *runs: Annotated[str, Parameter(required=True)],
    sql: str | None = None,
    to: Form | None = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Give the scores of one or several runs as data: by SQL, or as a file.

    Without options, says what there is.

    Parameters
    ----------
    runs
        Run folders; joined where the versions of data and metrics agree, else an error says which
        do not.
    sql
        A query for DuckDB over the views scores (a row per trial, suite, metric and pair, with the
        trial's factors) and trials. Names with a dot are quoted: "param.rank".
    to
        csv or parquet: a row per score, or per row of the query. zarr or netcdf: the cube (trial,
        context, perturbation, metric) with every factor as coordinate.
    output
        Where to write; csv goes to standard output without it.
    """
    if to is not None and to != "csv" and output is None:
        complain(f"--to {to} writes a file. Name it with -o.")
        return MISUSED
    if sql is not None and to in ("zarr", "netcdf"):
        complain(f"--to {to} writes the whole cube. A query's rows are csv or parquet.")
        return MISUSED
    results = Results(runs)
    if sql is None and to is None:
        out().print(_summary(results), markup=False)
        return 0
    if sql is not None:
        return _give(query_results(results, sql), to, output)
    if output is None:
        return _give(results.scores, to, output)
    assert to is not None  # the summary is printed above
    export_results(results, output, to)
    notes().print(f"Written to {output}", markup=False)
    return 0


def _give(frame: pd.DataFrame, to: Form | None, output: str | None) -> int:
    """Print a table, or write it."""
    if output is not None:
        write_frame(frame, output, "parquet" if to == "parquet" else "csv")
        notes().print(f"Written to {output}", markup=False)
    elif to == "csv":
        print(frame.to_csv(index=False, lineterminator="\n"), end="")
    else:
        out().print(_rich(frame), soft_wrap=False)
        if len(frame) > SHOWN:
            notes().print(f"The first {SHOWN} of {len(frame):,} rows; all of them with --to csv.")
    return 0


def _rich(frame: pd.DataFrame) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in frame.columns:
        number = frame[name].dtype.kind in "if"
        table.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for row in frame.head(SHOWN).itertuples(index=False):
        table.add_row(*(f"{v:.6g}" if isinstance(v, float) else str(v) for v in row))
    return table


def _summary(results: Results) -> str:
    """Summarise runs: trials by state, scores, and the columns that a query may name."""
    states = results.trials["state"].value_counts()
    rows = results.rows
    counted = ", ".join(f"{count:,} {state}" for state, count in states.items()) or "none"
    lines = [f"trials: {counted}", f"scores: {len(rows):,}"]
    for suite, part in rows.groupby("suite", observed=True):
        metrics = ", ".join(map(str, part["metric"].unique()))
        lines.append(f"suite {suite}: {metrics}")
    lines.append(f"columns of scores: {', '.join([*map(str, rows), *results.factors])}")
    lines.append(f"columns of trials: {', '.join(map(str, results.trials))}")
    return "\n".join(lines)
