"""Figures as data: Plotly traces and layouts, made of the frames of tables.

A figure is a plain dictionary, so that the page draws it when it comes into view, and a test can
read its numbers. Colours are left to the page, which knows whether it is dark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.tables.score_array import BLOCK, bare

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from harness.analysis.tables import Table
    from harness.analysis.tables.scale import Scale

    Floats = NDArray[np.float64]

MOST_ROWS = 40
"""Forest and rank plots show so many settings at most, the best."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, perhaps with variants to choose from.

    Attributes
    ----------
    name
        What links and tests know it by.
    title, caption
        What it shows, and how it is read; the caption ends with what is not shown.
    variants
        By label: Plotly's ``data`` and ``layout``.
    """

    name: str
    title: str
    caption: str
    variants: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def forest(table: Table) -> Iterator[Figure]:
    """Yield the means with intervals of every metric, best setting on top; one per block."""
    for key, part in blocks_of(table.frame):
        better = {"combined": True} | {s.name: s.higher_is_better for s in table.scales}
        variants = {n: _forest(part[part[n].notna()], n, better[n]) for n in scored(part, table)}
        if variants:
            yield _figure(
                "forest",
                "Scores",
                key,
                table,
                "Mean over held-out pairs with its 95 % bootstrap interval. Diamonds are ceilings, "
                f"squares baselines.{_cut(part)}",
                variants,
            )


def _forest(part: pd.DataFrame, name: str, up: bool | None) -> dict[str, Any]:  # noqa: FBT001 - data of a metric, not a switch
    # Plotly draws the first row at the bottom.
    ordered = part.sort_values(name, ascending=up is not False).iloc[-MOST_ROWS:]
    mean, low, high = interval(ordered, name)
    symbols = {"ceiling": "diamond", "baseline": "square"}
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": mean.tolist(),
        "y": titles(ordered),
        "error_x": _bars(mean, low, high),
        "marker": {"symbol": [symbols.get(role, "circle") for role in ordered["role"]], "size": 9},
        "customdata": [[a, b] for a, b in zip(finite(low), finite(high), strict=True)],
        "hovertemplate": "%{y}<br>%{x:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]"
        "<extra></extra>",
    }
    better = {True: " (higher is better)", False: " (lower is better)", None: ""}[up]
    return {"data": [trace], "layout": _tall(len(ordered), name + better)}


def rank_plot(table: Table) -> Iterator[Figure]:
    """Yield ranks with intervals, by the mean rank and by every metric."""
    for key, part in blocks_of(table.frame):
        variants = {}
        stems = ["mean_rank_place", *(f"{scale.name}_rank" for scale in table.scales)]
        for stem in stems:
            if stem in part and part[stem].notna().any():
                label = "mean rank" if stem == "mean_rank_place" else stem.removesuffix("_rank")
                variants[label] = _ranks(part[part[stem].notna()], stem)
        if variants:
            yield _figure(
                "ranks",
                "Ranks",
                key,
                table,
                "Rank with its 95 % bootstrap interval over perturbations and seeds; hover for the "
                f"probability of being first.{_cut(part)}",
                variants,
            )


def _ranks(part: pd.DataFrame, stem: str) -> dict[str, Any]:
    ordered = part.sort_values(stem, ascending=False).iloc[-MOST_ROWS:]
    place, low, high = interval(ordered, stem)
    first = ordered[f"{stem}_first"].to_numpy(float)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": place.tolist(),
        "y": titles(ordered),
        "error_x": _bars(place, low, high),
        "marker": {"size": 9},
        "customdata": [[a, b, c] for a, b, c in zip(finite(low), finite(high), first, strict=True)],
        "hovertemplate": "%{y}<br>rank %{x} [%{customdata[0]}, %{customdata[1]}], first with "
        "probability %{customdata[2]:.2f}<extra></extra>",
    }
    return {"data": [trace], "layout": _tall(len(ordered), "rank (1 is best)")}


def cost_plot(table: Table) -> Iterator[Figure]:
    """Yield scores against seconds per trial, what nobody beats at both marked."""
    for key, part in blocks_of(table.frame):
        score = headline(part)
        shown = part[part[score].notna() & part["seconds"].notna()]
        if shown.empty:
            continue
        trace = {
            "type": "scatter",
            "mode": "markers",
            "x": shown["seconds"].tolist(),
            "y": shown[score].tolist(),
            "text": titles(shown),
            "marker": {
                "size": [13 if front else 8 for front in shown["front"]],
                "symbol": ["star" if front else "circle" for front in shown["front"]],
            },
            "customdata": (shown["peak_memory"].to_numpy(float) / 2**30).tolist(),
            "hovertemplate": "%{text}<br>%{x:.3g} s, %{y:.4g}, %{customdata:.2f} GiB"
            "<extra></extra>",
        }
        layout = axes("seconds per trial", score.replace("_", " "))
        layout["xaxis"]["type"] = "log"
        if score == "mean_rank":
            layout["yaxis"]["autorange"] = "reversed"
        yield _figure(
            "cost",
            "Score against cost",
            key,
            table,
            "Each point is a setting; stars are those that no other beats at both.",
            {score.replace("_", " "): {"data": [trace], "layout": layout}},
        )


def ablation_plot(table: Table) -> Iterator[Figure]:
    """Yield what each level of a factor changes of the base, with intervals."""
    for key, part in blocks_of(table.frame):
        changes = part[part["factor"].notna() & (part["change"] != "base")]
        variants = {}
        for name in ["combined", *(scale.name for scale in table.scales)]:
            stem = f"{name}_change"
            if stem in changes and changes[stem].notna().any():
                shown = changes[changes[stem].notna()]
                variants[name] = _changes(shown, stem, name)
        if variants:
            yield _figure(
                "ablation",
                "What each factor changes",
                key,
                table,
                "Level less base, over the same pairs, with the 95 % interval of the paired "
                "difference. A bar whose interval holds 0 is no change that these data can tell.",
                variants,
            )


def _changes(part: pd.DataFrame, stem: str, name: str) -> dict[str, Any]:
    change, low, high = (values[::-1] for values in interval(part, stem))
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": change.tolist(),
        "y": [str(text) for text in part["change"]][::-1],
        "error_x": _bars(change, low, high),
        "hovertemplate": "%{y}<br>%{x:+.4g}<extra></extra>",
    }
    return {"data": [trace], "layout": _tall(len(part), f"change of {name}")}


def heat_maps(table: Table) -> Iterator[Figure]:
    """Yield, for each model with two or more varied parameters, means over a grid of two."""
    for key, part in blocks_of(table.frame):
        for model, settings in part.groupby("model", sort=False):
            varied = [
                str(name)
                for name in settings
                if str(name).startswith(("param.", "data.")) and settings[name].nunique() > 1
            ]
            variants = {}
            for at, first in enumerate(varied):
                for second in varied[at + 1 :]:
                    for scale in table.scales:
                        label = f"{scale.name}: {bare(first)} × {bare(second)}"
                        variants[label] = _heat_map(settings, first, second, scale)
            if variants:
                yield _figure(
                    "heat",
                    f"Settings of {model}",
                    (*key, str(model)),
                    table,
                    "Mean score over held-out pairs, averaged over whatever else varies.",
                    variants,
                )


def _heat_map(part: pd.DataFrame, first: str, second: str, scale: Scale) -> dict[str, Any]:
    grid = part.pivot_table(index=second, columns=first, values=scale.name, aggfunc="mean")
    trace = {
        "type": "heatmap",
        "x": [str(value) for value in grid.columns],
        "y": [str(value) for value in grid.index],
        "z": [finite(row) for row in grid.to_numpy(float)],
        "reversescale": scale.higher_is_better is False,
        "colorscale": "Viridis",
        "hovertemplate": f"{bare(first)} %{{x}}, {bare(second)} %{{y}}<br>%{{z:.4g}}"
        "<extra></extra>",
    }
    layout = axes(bare(first), bare(second))
    for axis in layout.values():
        axis["type"] = "category"
    return {"data": [trace], "layout": layout}


def curves_plot(curves: Mapping[str, pd.DataFrame]) -> Iterator[Figure]:
    """Yield the learning curves of trained trials: the loss, and the score on validation pairs."""
    if not curves:
        return
    variants: dict[str, dict[str, Any]] = {
        label: {
            "data": [
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": title,
                    "x": curve["epoch"].tolist(),
                    "y": finite(curve[column].to_numpy(float)),
                }
                for title, curve in curves.items()
                if column in curve
            ],
            "layout": {**axes("epoch", label), "showlegend": len(curves) <= 12},
        }
        for column, label in (("loss", "training loss"), ("validation", "score on validation"))
    }
    yield Figure(
        "curves",
        "Learning curves",
        "One line per trained trial. Early stopping looks at validation pairs only.",
        variants,
    )


def effect_plot(table: Table) -> Iterator[Figure]:
    """Yield every pair's score against the size of its true effect."""
    frame = table.frame
    if "effect" not in frame or frame["effect"].isna().all():
        return
    for key, part in blocks_of(frame):
        variants = {}
        for scale in table.scales:
            traces = [
                _pairs_trace(str(title), rows, scale.name)
                for title, rows in part.assign(title=titles(part)).groupby("title", sort=False)
            ]
            layout = axes("size of the true effect", scale.name)
            layout["xaxis"]["type"] = "log"
            variants[scale.name] = {"data": traces, "layout": layout}
        yield _figure(
            "effects",
            "Scores against effect size",
            key,
            table,
            "Each point is a held-out pair. Size: Euclidean length of the true effect on the log1p "
            "scale. Click names in the legend to hide or show models.",
            variants,
        )


def _pairs_trace(title: str, rows: pd.DataFrame, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": title,
        "x": finite(rows["effect"].to_numpy(float)),
        "y": finite(rows[name].to_numpy(float)),
        "text": [f"{p}, {c}" for p, c in zip(rows["perturbation"], rows["context"], strict=True)],
        "hovertemplate": "%{text}<br>effect %{x:.3g}, %{y:.4g}<extra>" + title + "</extra>",
    }


def headline(part: pd.DataFrame) -> str:
    """Return the column that settings are judged by: the combined score, or else the mean rank."""
    return "combined" if part["combined"].notna().any() else "mean_rank"


def scored(part: pd.DataFrame, table: Table) -> list[str]:
    """Return the columns of means that have any: the combined score and the metrics."""
    names = ("combined", *(scale.name for scale in table.scales))
    return [name for name in names if part[name].notna().any()]


def titles(part: pd.DataFrame) -> list[str]:
    """Return the name of every row: its model, and the setting where there are several."""
    return [
        f"{model} {setting}".strip()
        for model, setting in zip(part["model"], part["setting"].fillna(""), strict=True)
    ]


def _figure(
    stem: str,
    title: str,
    key: tuple[str, ...],
    table: Table,
    caption: str,
    variants: Mapping[str, dict[str, Any]],
) -> Figure:
    """Return a figure of one block; `key` is what tells it from those of the same stem."""
    name = "-".join((stem, *key, table.suite))
    return Figure(name, f"{title}, {key[0]}, {key[1]}, suite {table.suite}", caption, variants)


def blocks_of(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield the key and the rows of each dataset, split and way of dividing controls."""
    if frame.empty:
        return
    names: list[Hashable] = [name for name in BLOCK if name in frame]
    for key, part in frame.groupby(names, sort=False, dropna=False):
        yield tuple(str(value) for value in (key if isinstance(key, tuple) else (key,))), part


def interval(part: pd.DataFrame, name: str) -> tuple[Floats, Floats, Floats]:
    """Return the numbers of a column, and the ends of their intervals."""
    values, low, high = (part[one].to_numpy(float) for one in (name, f"{name}_low", f"{name}_high"))
    return values, low, high


def _bars(values: Floats, low: Floats, high: Floats) -> dict[str, Any]:
    """Return the error bars of intervals."""
    up, down = finite(high - values), finite(values - low)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down}


def axes(x: str, y: str) -> dict[str, Any]:
    """Return a layout with titles of both axes."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _cut(part: pd.DataFrame) -> str:
    more = len(part) - MOST_ROWS
    return f" The best {MOST_ROWS} are shown, {more} more are in the table." if more > 0 else ""


def _tall(n: int, title: str) -> dict[str, Any]:
    return {
        "height": 110 + 24 * n,
        "xaxis": {"title": {"text": title}},
        "yaxis": {"automargin": True, "type": "category"},
    }


def finite(values: Any) -> list[float | None]:
    """Return numbers as JSON can hold them: None for NaN and infinities."""
    array = np.asarray(values, dtype=np.float64)
    return [float(value) if np.isfinite(value) else None for value in array]
