"""Scores as an xarray cube, the trials' factors as coordinates.

Dense on purpose, since that is what plotting and array code want: a trial that scored one fold of
five leaves four fifths of its row empty, and the frame of `results` is the compact form.

There are two shapes. (trial, perturbation, metric) has one place for each pair that anyone scored,
so that screens whose contexts were perturbed differently waste nothing, and with one context it is
what one expects. (trial, context, perturbation, metric) has a place for every perturbation in every
context, so that contexts can be sliced and averaged by name; files for other tools have that one.
Each asks for itself, rather than the data deciding: code that works on one screen works on all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

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
    return cube.assign_coords(
        trial=names.cat.categories.to_numpy(dtype=object),
        **_factor_coordinates(trials, names.cat.categories, factors),
        **coordinates,
        **_metric_coordinates(metrics, versions),
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
    return {"perturbation": len(pairs)}, [pair], _pair_coordinates(pairs)


def _pair_coordinates(pairs: pd.DataFrame) -> dict[str, Any]:
    several = pairs["context"].nunique() > 1
    label = pairs["perturbation"] + "|" + pairs["context"] if several else pairs["perturbation"]
    return {
        "perturbation": label.to_numpy(dtype=object),
        "perturbation_name": ("perturbation", pairs["perturbation"].to_numpy(dtype=object)),
        "context": ("perturbation", pairs["context"].to_numpy(dtype=object)),
    }


def _metric_coordinates(metrics: pd.DataFrame, versions: NDArray[Any]) -> dict[str, Any]:
    several = metrics["suite"].nunique() > 1
    label = metrics["suite"] + ":" + metrics["metric"] if several else metrics["metric"]
    return {
        "metric": label.to_numpy(dtype=object),
        "suite": ("metric", metrics["suite"].to_numpy(dtype=object)),
        "version": ("metric", versions),
    }


def _factor_coordinates(
    trials: pd.DataFrame, names: pd.Index[Any], factors: Sequence[str]
) -> dict[str, Any]:
    chosen = trials.set_index("trial").loc[names]
    return {name: ("trial", _storable(chosen[name])) for name in factors}


def _storable(values: pd.Series[Any]) -> NDArray[Any]:
    """Return numbers as they are, None among them as NaN; anything else as texts, None as ''."""
    if values.dtype != object:
        return values.to_numpy()
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) for value in present):
        return values.astype(np.float64).to_numpy()
    return np.array(["" if value is None else str(value) for value in values], dtype=object)
