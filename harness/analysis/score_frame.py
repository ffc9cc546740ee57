"""Score rows as one frame, made of one Arrow table after another, so that few are held twice.

Texts are categories in sorted order, whatever the order of the tables, and their codes are as short
as their number allows: thirty million rows take 0.6 GB, and Arrow's tables of them 1.1 GB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    Codes = NDArray[np.signedinteger[Any]]


def score_rows(tables: Iterable[pa.Table], schema: pa.Schema) -> pd.DataFrame:
    """Return the rows of `tables`, which have this schema, with its dictionaries as categories."""
    columns = {
        field.name: _Texts() if pa.types.is_dictionary(field.type) else _Numbers(field.type)
        for field in schema
    }
    for table in tables:
        unified = table.unify_dictionaries()
        for name, column in columns.items():
            column.add(unified[name].combine_chunks())
    joined = {name: columns.pop(name).joined() for name in schema.names}
    return pd.DataFrame(joined, copy=False)


class _Numbers:
    """A column of numbers."""

    def __init__(self, kind: pa.DataType) -> None:
        self._parts = [np.empty(0, kind.to_pandas_dtype())]

    def add(self, part: pa.Array) -> None:
        """Append the rows of one table."""
        self._parts.append(part.to_numpy(zero_copy_only=False))

    def joined(self) -> NDArray[Any]:
        """Return all rows."""
        return np.concatenate(self._parts)


class _Texts:
    """A column of texts, as places among those that were seen; −1 for none."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._parts: list[Codes] = [np.empty(0, np.int8)]

    def add(self, part: pa.DictionaryArray) -> None:
        """Append the rows of one table."""
        texts = part.dictionary.to_pylist()
        places = [self._place.setdefault(text, len(self._place)) for text in texts]
        short = np.array([*places, -1], dtype=_short(len(self._place)))
        self._parts.append(short[part.indices.fill_null(-1).to_numpy()])

    def joined(self) -> pd.Categorical:
        """Return all rows, with the texts as categories in sorted order."""
        texts = sorted(self._place)
        order: Codes = np.full(len(texts) + 1, -1).astype(_short(len(texts)))
        order[[self._place[text] for text in texts]] = np.arange(len(texts))
        codes: Codes = np.empty(sum(map(len, self._parts)), dtype=order.dtype)
        end = 0
        for part in self._parts:
            start, end = end, end + len(part)
            codes[start:end] = order[part]
        return pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype=object))


def _short(n: int) -> np.dtype[np.signedinteger[Any]]:
    """Return the shortest type that holds the places of n texts, and −1."""
    return np.dtype(np.min_scalar_type(-max(n, 1)).name)


NOT_SCORED = -1


def make_cube(
    rows: pd.DataFrame, trials: pd.DataFrame, factors: Sequence[str], *, by_context: bool = False
) -> xr.Dataset:
    """Return the cube that `results.Results.to_xarray` describes, of all trials in `rows`."""
    import xarray as xr

    names = rows["trial"].cat.remove_unused_categories()
    metric, metrics = _combinations(rows, ["suite", "metric"])
    middle, where, coordinates = _by_context(rows) if by_context else _by_pair(rows)
    shape = (len(names.cat.categories), *middle.values(), len(metrics))
    place = (names.cat.codes.to_numpy(), *where, metric)
    score, reason = np.full(shape, np.nan), np.full(shape, NOT_SCORED, dtype=np.int16)
    score[place] = rows["value"]
    reasons = ["", *(text for text in rows["reason"].cat.categories if text)]
    codes = pd.Index(reasons).get_indexer(rows["reason"].cat.categories).astype(np.int16)
    reason[place] = codes[rows["reason"].cat.codes]
    dims = ("trial", *middle, "metric")
    cube = xr.Dataset({"score": (dims, score), "reason": (dims, reason)})
    cube["reason"].attrs["reasons"] = reasons
    versions = rows["version"].to_numpy()[np.unique(metric, return_index=True)[1]]
    suite, label = metrics["suite"], metrics["metric"]
    label = suite + ":" + label if suite.nunique() > 1 else label
    chosen = trials.set_index("trial").loc[names.cat.categories]
    of_trial: dict[str, Any] = {name: ("trial", _storable(chosen[name])) for name in factors}
    return cube.assign_coords(
        trial=names.cat.categories.to_numpy(dtype=object),
        **of_trial,
        **coordinates,
        metric=label.to_numpy(dtype=object),
        suite=("metric", suite.to_numpy(dtype=object)),
        version=("metric", versions),
    )


def _combinations(rows: pd.DataFrame, names: list[str]) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the code of each row's combination, and the combinations in sorted order."""
    codes = [rows[name].cat.codes.to_numpy().astype(np.int64) for name in names]
    categories = [rows[name].cat.categories for name in names]
    used, inverse = np.unique(codes[0] * len(categories[1]) + codes[1], return_inverse=True)
    parts = np.divmod(used, max(len(categories[1]), 1))
    values = (
        known.to_numpy(dtype=object)[part] for known, part in zip(categories, parts, strict=True)
    )
    return inverse, pd.DataFrame(dict(zip(names, values, strict=True)))


def _by_context(rows: pd.DataFrame) -> tuple[dict[str, int], list[Any], dict[str, Any]]:
    """Return the sizes of the dimensions between, the place of each row, and the coordinates."""
    parts = {n: rows[n].cat.remove_unused_categories().cat for n in ("context", "perturbation")}
    labels = {name: part.categories.to_numpy(dtype=object) for name, part in parts.items()}
    sizes = {name: len(values) for name, values in labels.items()}
    return sizes, [part.codes.to_numpy() for part in parts.values()], labels


def _by_pair(rows: pd.DataFrame) -> tuple[dict[str, int], list[Any], dict[str, Any]]:
    """Return the same for one dimension of pairs."""
    pair, pairs = _combinations(rows, ["context", "perturbation"])
    context, name = pairs["context"], pairs["perturbation"]
    label = name + "|" + context if context.nunique() > 1 else name
    coordinates = {
        "perturbation": label.to_numpy(dtype=object),
        "perturbation_name": ("perturbation", name.to_numpy(dtype=object)),
        "context": ("perturbation", context.to_numpy(dtype=object)),
    }
    return {"perturbation": len(pairs)}, [pair], coordinates


def _storable(values: pd.Series[Any]) -> NDArray[Any]:
    """Return numbers as they are, None among them as NaN; anything else as texts, None as ''."""
    if values.dtype != object:
        return values.to_numpy()
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) for value in present):
        return values.astype(np.float64).to_numpy()
    return np.array(["" if value is None else str(value) for value in values], dtype=object)
