"""SQL over the scores of runs: DuckDB reads their Parquet, and only the columns that are asked for.

Views: ``scores``, a row per trial, suite, metric and pair with the factors of its trial; ``trials``
as `harness.analysis.results.read_trials` gives them. A name with a dot is quoted: ``"param.rank"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harness.analysis.results import SCHEMA
from harness.errors import DataError, HarnessError, listed
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from harness.analysis.results import Results


def query_results(results: Results, sql: str) -> pd.DataFrame:
    """Return what a query over the views ``scores`` and ``trials`` gives.

    Raises
    ------
    HarnessError
        DuckDB is not installed.
    DataError
        The query cannot be meant, or metrics have several versions.
    """
    try:
        import duckdb
    except ImportError as error:
        raise HarnessError(
            "SQL over results needs DuckDB, which is not installed. Install it: "
            "pip install 'virtual-cell-harness[results]'"
        ) from error
    with duckdb.connect() as connection:
        _make_views(connection, results)
        try:
            relation = connection.sql(sql)
            found: pd.DataFrame | None = None if relation is None else relation.df()
        except duckdb.Error as error:
            names = listed([*SCHEMA.names, *results.factors], shown=40)
            said = " ".join(str(error).split())
            raise DataError(f"--sql: {said}. The view scores has the columns {names}.") from error
    if found is None:
        raise DataError(
            "--sql: this gives no rows. Expected a query, such as: select model, avg(value) from "
            "scores group by model."
        )
    return found


def _make_views(connection: Any, results: Results) -> None:
    connection.register("trials", _trials(results.trials))
    files = list(_files(results))
    if files and not any(paths.is_remote(file) for file in files):
        connection.read_parquet(files).create_view("score_rows")
        mixed = connection.sql(
            "select suite, metric from score_rows group by all having count(distinct version) > 1"
        ).fetchall()
        if mixed:
            name = " ".join(mixed[0])
            raise DataError(
                f"suite metric {name}: results of different version cannot be compared. "
                "Score the older ones again, or ask for the runs one by one."
            )
    else:
        rows = pa.Table.from_pandas(results.rows, SCHEMA, preserve_index=False)
        connection.register("score_rows", rows)
    quoted = (name.replace('"', '""') for name in results.factors)
    factors = "".join(f', trials."{name}"' for name in quoted)
    connection.execute(
        f"create view scores as select score_rows.*{factors} from score_rows "  # noqa: S608 - names of columns, quoted
        "join trials using (trial)"
    )


def _files(results: Results) -> Iterator[str]:
    """Yield the file of each complete trial's scores."""
    done = results.trials[results.trials["state"] == "done"]
    for run in results.runs:
        folder = paths.join(run, "results")
        present = set(paths.list_names(folder))
        names = (f"{trial}.parquet" for trial in done.loc[done["run"] == run, "trial"])
        yield from (paths.join(folder, name) for name in names if name in present)


def _trials(trials: pd.DataFrame) -> pa.Table:
    """Return trials as Arrow has them; a column of several types as texts."""
    columns = {}
    for name in trials:
        values = trials[name].tolist()
        try:
            columns[str(name)] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[str(name)] = pa.array([None if v is None else str(v) for v in values])
    return pa.table(columns)
