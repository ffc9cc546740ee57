"""Data factors: which part of the training data a model sees, as a job declares it.

They belong to a trial's identity, so their values are brought into one form here: what leaves a
factor at its default (all cells, full depth, every perturbation) is no value at all, and the id of
a trial that varies none is what it was before there were factors. What a factor does to the cells
is in `data_factors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.config import DATA_FACTORS, JSON, describe
from harness.errors import near_match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number of at least 1, or null for all")
    return value


def _depth(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(
            "a share of the molecules above 0 and up to 1, the median of molecules per cell above "
            "1, or null for all"
        )
    return None if value == 1 else float(value)


def _share_or_count(value: Any) -> int | float | None:
    if type(value) is int and value >= 1:
        return value
    if type(value) is float and 0 < value <= 1:
        return None if value == 1 else value
    raise ValueError(
        "a whole number of perturbations, a share of them such as 0.5, or null for all"
    )


def _names_or_count(value: Any) -> int | tuple[str, ...]:
    if type(value) is int and value >= 1:
        return value
    names = (value,) if isinstance(value, str) else value
    right = isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
    if not right or len(set(names)) < len(names):
        raise ValueError(
            "a context, a list of different contexts (a list in the list of values), a whole "
            "number of them, or null for all"
        )
    return tuple(sorted(names))


_READ: dict[str, Callable[[Any], JSON]] = {
    "cells_per_perturbation": _count,
    "control_cells": _count,
    "train_contexts": _names_or_count,
    "train_perturbations": _share_or_count,
    "umi_depth": _depth,
}


def factor_value(name: str, value: Any) -> JSON:
    """Return a factor's value in the one form that trials have; None for the default.

    Raises
    ------
    ValueError
        The factor is unknown, or the value is none of its own; says what was expected.
    """
    if name not in _READ:
        raise ValueError(f"is not a data factor. {near_match(name, DATA_FACTORS)}")
    if value is None:
        return None
    try:
        return _READ[name](value)
    except ValueError as error:
        raise ValueError(f"found {describe(value)}, expected {error}.") from None


def factor_values(factors: Mapping[str, Any]) -> tuple[tuple[str, JSON], ...]:
    """Return factors as a `TrialSpec` holds them: sorted by name, defaults left out."""
    read = {name: factor_value(name, value) for name, value in sorted(factors.items())}
    return tuple((name, value) for name, value in read.items() if value is not None)


def wrong_factors(factors: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the dotted key of each wrong value, below the factors, and what is wrong with it.

    A list means "each of these".
    """
    for name, value in factors.items():
        if value == []:
            yield name, "is an empty list: it means no trial at all."
        many = value if isinstance(value, list) else [value]
        for i, one in enumerate(many):
            try:
                factor_value(name, one)
            except ValueError as error:
                known = name in _READ and isinstance(value, list)
                yield f"{name}[{i}]" if known else name, str(error)
                if name not in _READ:
                    break
