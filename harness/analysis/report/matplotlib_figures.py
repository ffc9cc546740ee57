"""Figures of a paper: PDF and SVG by Matplotlib, of the same tables as the page's."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.report.plotly_figures import (
    MOST_ROWS,
    blocks_of,
    headline,
    interval,
    scored,
    titles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from harness.analysis.tables import Table

FORMS = ("pdf", "svg")

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "pdf.fonttype": 42,
}


def drawings(
    comparison: Table, ranks: Table | None, cost: Table
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield scores, ranks and cost of each dataset and split: a name, and the file of each form."""
    from matplotlib import rc_context

    for name, figure in _figures(comparison, ranks, cost):
        with rc_context(_STYLE):  # a figure asks for its style when it is made and when it is drawn
            yield name, {form: _encoded(figure(), form) for form in FORMS}


def _figures(
    comparison: Table, ranks: Table | None, cost: Table
) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, part in _blocks(comparison):
        yield f"scores-{name}", partial(_forest, part, comparison)
    for name, part in _blocks(cost):
        score = headline(part)
        rows = part[part[score].notna() & (part["seconds"] > 0)]
        if len(rows):
            yield f"cost-{name}", partial(_cost, rows, score)
    for name, part in _blocks(ranks) if ranks is not None else ():
        yield f"ranks-{name}", partial(_critical_differences, part, comparison)


def _encoded(figure: Any, form: str) -> bytes:
    """Return a figure as a file, the same bytes for the same numbers."""
    buffer = BytesIO()
    plain = {"Date": None} if form == "svg" else {"CreationDate": None}
    figure.savefig(buffer, format=form, bbox_inches="tight", metadata=plain)
    return buffer.getvalue()


def _forest(part: pd.DataFrame, table: Table) -> Any:
    from matplotlib.figure import Figure

    names = scored(part, table)
    rows = part.iloc[:MOST_ROWS]
    place = np.arange(len(rows))[::-1]
    figure = Figure(figsize=(1.2 + 1.7 * len(names), 0.6 + 0.2 * len(rows)))
    for axes, name in zip(
        np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True
    ):
        mean, low, high = interval(rows, name)
        for role, marker in (("ceiling", "D"), ("baseline", "s"), ("", "o")):
            at = (rows["role"] == role).to_numpy()
            errors = [np.nan_to_num(mean - low)[at], np.nan_to_num(high - mean)[at]]
            axes.errorbar(
                mean[at],
                place[at],
                xerr=np.maximum(errors, 0),
                fmt=marker,
                color="C0",
                ms=3,
                lw=0.8,
            )
        axes.set_title(name.replace("_", " "), fontsize=7)
    axes = figure.axes[0]
    axes.set_yticks(place, titles(rows))
    return figure


def _cost(rows: pd.DataFrame, score: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(3.3, 2.4))
    axes = figure.subplots()
    axes.scatter(rows["seconds"], rows[score], s=12, color="C0")
    for title, x, y, front in zip(
        titles(rows), rows["seconds"], rows[score], rows["front"], strict=True
    ):
        if front:
            axes.annotate(title, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds per trial")
    axes.set_ylabel(score.replace("_", " "))
    if score == "mean_rank":
        axes.invert_yaxis()
    return figure


def _critical_differences(part: pd.DataFrame, table: Table) -> Any:
    """Draw mean ranks within pairs, one axis a metric, with Nemenyi's critical difference."""
    from matplotlib.figure import Figure

    names = [
        scale.name
        for scale in table.scales
        if f"{scale.name}_friedman_rank" in part
        and part[f"{scale.name}_friedman_rank"].notna().any()
    ]
    rows = part.iloc[:MOST_ROWS]
    figure = Figure(figsize=(4.5, 0.5 + len(names) * (0.5 + 0.11 * len(rows))))
    for axes, name in zip(
        np.atleast_1d(figure.subplots(max(1, len(names)), 1)), names, strict=True
    ):
        ordered = rows.sort_values(f"{name}_friedman_rank")
        mean = ordered[f"{name}_friedman_rank"].to_numpy(dtype=float)
        place = np.arange(len(ordered))[::-1]
        axes.plot(mean, place, "o", color="C0", ms=3)
        axes.set_yticks(place, titles(ordered), fontsize=6)
        width = float(ordered[f"{name}_critical_difference"].iloc[0])
        if np.isfinite(width):
            axes.plot([mean[0], mean[0] + width], [len(ordered) - 0.3] * 2, color="black", lw=1.5)
        axes.set_title(f"{name.replace('_', ' ')}; bar: critical difference", fontsize=7)
    figure.tight_layout()
    return figure


def _blocks(table: Table) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a part of a file's name for each block, and its rows."""
    for key, part in blocks_of(table.frame):
        yield "".join(c if c.isalnum() or c in "-._" else "-" for c in "-".join(key)), part
