"""Read obs and var of an `.h5ad` without importing AnnData, which takes a second.

Numbers, texts and categories, as today's files have them, are read here; a frame with a column of
any other kind is left to AnnData, so what comes out is what AnnData gives, always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


def read_frame(group: Any) -> pd.DataFrame:
    """Return a data frame as `anndata.io.read_elem` does."""
    if isinstance(group, h5py.Group) and _kind(group) == ("dataframe", "0.2.0"):
        columns = dict(_columns(group))
        if not any(column is None for column in columns.values()):
            index = columns.pop(str(group.attrs["_index"]))
            frame = pd.DataFrame(
                columns, index=index, columns=list(group.attrs["column-order"]) or None
            )
            name = str(group.attrs["_index"])
            frame.index.name = None if name == "_index" else name
            return frame
    from anndata.io import read_elem

    found: pd.DataFrame = read_elem(group)
    return found


def _kind(element: Any) -> tuple[str, str]:
    attributes = element.attrs
    return str(attributes.get("encoding-type")), str(attributes.get("encoding-version"))


def _columns(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Yield the index and every column, None for those that are not known here."""
    for name in (str(group.attrs["_index"]), *map(str, group.attrs["column-order"])):
        yield name, _column(group[name]) if name in group else None


def _column(element: Any) -> Any:
    kind = _kind(element)
    if kind == ("categorical", "0.2.0") and _kind(element["categories"]) == (
        "string-array",
        "0.2.0",
    ):
        labels: Any = _texts(element["categories"])
        ordered = bool(element.attrs["ordered"])
        return pd.Categorical.from_codes(element["codes"][:], categories=labels, ordered=ordered)
    if kind == ("string-array", "0.2.0"):
        return _texts(element)
    if kind == ("array", "0.2.0") and element.dtype.kind in "biuf" and element.ndim == 1:
        return element[:]
    return None


def _texts(element: h5py.Dataset) -> np.ndarray:
    texts: np.ndarray = element.asstr()[:].astype(object)
    return texts
