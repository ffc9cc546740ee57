"""Read a table of features: names and numbers, from CSV, TSV, Parquet or npz."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from harness.errors import DataError, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


LARGEST = 1e100
"""A feature as large as this has a square that is infinite with a few others."""


def parse_table(path: str, content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the values, (n,) and (n, n_features) float64, of a table.

    Raises
    ------
    DataError
        The file is of another kind or damaged; a name is twice in it, or a value is no number.
    """
    suffix = path.rpartition(".")[2].lower()
    if suffix not in _READERS:
        raise DataError(
            f"{path}: a table of features ends in {listed(f'.{s}' for s in _READERS)}. Save it as "
            "one of these."
        )
    try:
        names, values = _READERS[suffix](content)
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a table of features: {error}") from error
    _check(path, names, values)
    return names, values


def _check(path: str, names: tuple[str, ...], values: np.ndarray) -> None:
    if values.ndim != 2 or len(values) != len(names) or not values.size:
        raise DataError(
            f"{path}: found {len(names)} names and values of shape {values.shape}, expected one "
            "row of at least one number for each name."
        )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise DataError(f"{path}: {len(twice)} names are given twice: {listed(twice)}.")
    wrong = ~(np.abs(values) < LARGEST).all(axis=1)  # NaN is not below it either
    if wrong.any():
        found = [name for name, is_wrong in zip(names, wrong, strict=True) if is_wrong]
        raise DataError(
            f"{path}: {len(found)} rows have NaN or infinite values: {listed(found)}. Expected "
            f"numbers below {LARGEST:g} in size. Fill them in, or leave the rows out."
        )


def _read_text(separator: str) -> Callable[[bytes], tuple[tuple[str, ...], np.ndarray]]:
    def read(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
        import pandas as pd

        # A gene called NA or NaN keeps its name: only numbers may be missing, and none is.
        frame = pd.read_csv(
            BytesIO(content), sep=separator, dtype={0: str}, keep_default_na=False, na_values=[]
        )
        if not isinstance(frame.index, pd.RangeIndex):  # as R writes it, and pandas guesses
            raise ValueError(
                f"its header has {frame.shape[1]} fields and its rows have more. Give the column "
                "of names a title, too, such as `gene`."
            )
        return _of_frame(frame.set_index(frame.columns[0]))

    return read


def _read_parquet(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    import pandas as pd

    frame = pd.read_parquet(BytesIO(content))
    if isinstance(frame.index, pd.RangeIndex):
        frame = frame.set_index(frame.columns[0])
    return _of_frame(frame)


def _of_frame(frame: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    if frame.index.nlevels > 1:
        raise ValueError(
            f"its index has {frame.index.nlevels} levels: {listed(map(str, frame.index.names))}. "
            "Expected one, the names."
        )
    wrong = [str(name) for name, kind in frame.dtypes.items() if kind.kind not in "iufb"]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {frame.shape[1]} columns are not numbers, or lack some: "
            f"{listed(wrong)}. Expected names in the first column, and numbers in all others."
        )
    return tuple(frame.index.astype(str)), frame.to_numpy(dtype=np.float64)


def _read_npz(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        if not {"names", "values"} <= set(arrays):
            raise ValueError(f"found arrays {listed(sorted(arrays))}, expected names and values.")
        names, values = arrays["names"], arrays["values"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise ValueError(
            f"`names` has type {names.dtype} and shape {names.shape}, expected text, one for each "
            "row of `values`."
        )
    if values.dtype.kind not in "iufb":
        raise ValueError(f"`values` has type {values.dtype}, expected real numbers.")
    return tuple(names.astype(str).tolist()), values.astype(np.float64)


_READERS = {
    "csv": _read_text(","),
    "tsv": _read_text("\t"),
    "parquet": _read_parquet,
    "npz": _read_npz,
}
