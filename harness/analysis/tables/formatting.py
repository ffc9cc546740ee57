"""What the cells of a table say: estimates with intervals, changes with tests, ranks, names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from harness.analysis.tables.text import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

UNDEFINED = "—"
ARROWS = {True: " ↑", False: " ↓", None: ""}
CEILING_SIGN, BASELINE_SIGN, FLOOR_SIGN, TIE_SIGN = "†", "‡", "✗", "≈"
_SIGNS = {"ceiling": CEILING_SIGN, "baseline": BASELINE_SIGN}


class Column(NamedTuple):
    """Numbers of one column with the ends of their intervals, arrays of one length."""

    values: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, part: pd.DataFrame, name: str, stem: str | None = None) -> Column:
        """Return a frame's column `name`, and those of its interval by the name's `stem`."""
        stem = stem or name
        names = (name, f"{stem}_low", f"{stem}_high")
        return cls(*(part[one].to_numpy(dtype=np.float64) for one in names))

    @property
    def digits(self) -> int:
        """How many decimals the column is shown with."""
        return decimals(*self)


def decimals(means: Floats, low: Floats, high: Floats) -> int:
    """Return how many decimals show two digits of a typical interval's half, 2 to 5 of them."""
    halves = (high - low) / 2
    halves = halves[np.isfinite(halves) & (halves > 0)]
    if len(halves) == 0:
        halves = np.abs(means[np.isfinite(means) & (means != 0)]) / 100
    typical = float(np.median(halves)) if len(halves) else 0.01
    return int(np.clip(1 - math.floor(math.log10(typical)), 2, 5))


def estimate_cells(
    column: Column,
    signs: Sequence[Sequence[str]] | None = None,
    best: Any = None,
    digits: int | None = None,
) -> list[Cell]:
    """Return numbers, what stands beside each, and intervals as details."""
    digits = column.digits if digits is None else digits
    cells = []
    for at, (value, low, high) in enumerate(zip(*column, strict=True)):
        if math.isnan(value):
            cells.append(Cell(UNDEFINED))
            continue
        text = " ".join([fixed(value, digits), *(signs[at] if signs else ())])
        detail = "" if math.isnan(low) else f"[{fixed(low, digits)}, {fixed(high, digits)}]"
        cells.append(Cell(text, detail, bool(best is not None and best[at])))
    return cells


def change_cells(column: Column, clear: Any = None, p: Floats | None = None) -> list[Cell]:
    """Return changes with their sign, their intervals and p-values as details.

    Parameters
    ----------
    clear
        Which are bold; by default those whose interval leaves out 0.
    p
        p-values to show.
    """
    digits = column.digits
    cells = []
    for at, (value, low, high) in enumerate(zip(*column, strict=True)):
        if math.isnan(value):
            cells.append(Cell(UNDEFINED))
            continue
        known = not math.isnan(low)
        said = [f"[{signed(low, digits)}, {signed(high, digits)}]"] if known else []
        said += [] if p is None or math.isnan(p[at]) else [p_text(p[at])]
        bold = bool(clear[at]) if clear is not None else known and (low > 0 or high < 0)
        cells.append(Cell(signed(value, digits), " ".join(said), bold))
    return cells


def fixed(value: float, digits: int) -> str:
    """Return a number with so many decimals; no minus before zeros."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float, digits: int) -> str:
    """Return a change with its sign; 0 without one."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def plain(values: Iterable[float], digits: int = 2) -> list[Cell]:
    """Return numbers without intervals; whole ones without decimals."""
    texts = (UNDEFINED if math.isnan(value) else f"{value:.{digits}f}" for value in values)
    return [Cell(text.removesuffix("." + "0" * digits)) for text in texts]


def significant(values: Iterable[float]) -> list[Cell]:
    """Return amounts (seconds, gigabytes) to two digits or whole."""
    return [Cell(amount(value)) for value in values]


def amount(value: float) -> str:
    """Return an amount to two digits, whole from 10 on."""
    if math.isnan(value):
        return UNDEFINED
    return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"


def amount_cells(values: Iterable[float], changes: Iterable[float]) -> list[Cell]:
    """Return amounts, two digits or whole, with their change in percent beside, if there is any."""
    cells = []
    for value, change in zip(values, changes, strict=True):
        before = value - change
        known = change and before and not math.isnan(change)
        cells.append(Cell(amount(value), f"{signed(100 * change / before, 0)} %" if known else ""))
    return cells


def p_text(p: float) -> str:
    """Return ``p = 0.012``; the smallest are only said to be below 0.001."""
    if math.isnan(p):
        return UNDEFINED
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def texts(values: Iterable[object]) -> list[Cell]:
    """Return cells of plain text."""
    return [Cell(str(value)) for value in values]


def model_cells(part: pd.DataFrame) -> list[Cell]:
    """Return a row's model with its sign and setting, and how many pairs it lacks."""
    most = int(part["n_pairs"].max()) if "n_pairs" in part else 0
    cells = []
    for row in part.to_dict("records"):
        words = [row["model"], _SIGNS.get(row.get("role", ""), ""), row["setting"]]
        if row.get("n_pairs", most) < most:
            words.append(f"({row['n_pairs']} of {most} pairs)")
        cells.append(Cell(" ".join(word for word in words if word)))
    return cells


def scored_cells(part: pd.DataFrame, name: str, best: Any) -> list[Cell]:
    """Return a metric's cells: mean, rank, tie and floor in the text, the interval as detail."""
    ranks = part.get(f"{name}_rank", pd.Series([pd.NA] * len(part)))
    ties = part.get(f"{name}_tie", pd.Series([False] * len(part)))
    missed = (name in str(names).split() for names in part["floors_missed"])
    signs = [
        [
            *([] if pd.isna(rank) else [f"#{rank}"]),
            *([TIE_SIGN] if tie else []),
            *([FLOOR_SIGN] if miss else []),
        ]
        for rank, tie, miss in zip(ranks, ties, missed, strict=True)
    ]
    return estimate_cells(Column.of(part, name), signs, np.asarray(best, dtype=bool))
