"""The reference mean that effects are centred on, from a table: a profile for each context."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.errors import DataError, listed, near_match
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_centre(path: str, genes: Sequence[str], contexts: Sequence[str]) -> dict[str, np.ndarray]:
    """Read a reference profile of each context.

    Parameters
    ----------
    path
        CSV, TSV or Parquet: a row for each gene, by its name in the first column (or the index),
        and a column for each context, log1p values. One column serves where there is one context.
    genes, contexts
        Those of the truth. Other rows and columns are left out.

    Returns
    -------
    By context, (n_genes,) float64 in the order of `genes`.

    Raises
    ------
    DataError
        The file is of another kind; a gene or a context is not in it; a value is no finite number.
    """
    table = _read(path)
    table.index, table.columns = table.index.astype(str), table.columns.astype(str)
    if len(contexts) == 1 and table.shape[1] == 1:
        table.columns = pd.Index(contexts)
    for context in contexts:
        if context not in table.columns:
            raise DataError(
                f"{path}: has no column for context {context!r}. "
                f"{near_match(context, tuple(table.columns))} Add one column for each context."
            )
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()].unique()
        raise DataError(f"{path}: {len(twice)} genes have several rows: {listed(twice)}. Keep one.")
    if missing := [gene for gene in genes if gene not in table.index]:
        raise DataError(
            f"{path}: has no row for {len(missing)} of {len(genes)} genes: {listed(missing)}. "
            "Add a row for each gene of the truth."
        )
    found = {}
    for context in contexts:
        values = pd.to_numeric(table.loc[list(genes), context], errors="coerce").to_numpy(float)
        if wrong := [genes[i] for i in np.flatnonzero(~np.isfinite(values)).tolist()]:
            raise DataError(
                f"{path}: context {context!r} has no finite number for {len(wrong)} genes: "
                f"{listed(wrong)}."
            )
        found[context] = values
    return found


def _read(path: str) -> pd.DataFrame:
    """Read a table with names of genes as its index."""
    suffix = path.rpartition(".")[2].lower()
    content = BytesIO(paths.read_bytes(path))
    try:
        if suffix == "parquet":
            table = pd.read_parquet(content)
            named = not isinstance(table.index, pd.RangeIndex)
            return table if named else table.set_index(table.columns[0])
        if suffix in ("csv", "tsv"):
            separator = "," if suffix == "csv" else "\t"
            return pd.read_csv(content, sep=separator, index_col=0, dtype={0: str})
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    raise DataError(
        f"{path}: a table of reference profiles ends in .csv, .tsv or .parquet. Save it as one of "
        "these."
    )
