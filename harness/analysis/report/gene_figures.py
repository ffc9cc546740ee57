"""Genes of chosen pairs: the truth's differential expression, and its effect against predictions.

Read from what a run keeps: the truth's statistics in ``reference/``, predicted profiles in
``trials/ID/profiles.zarr``. Where either is not there, there is no figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.report.plotly_figures import Figure, axes, finite
from harness.analysis.tables.pair_properties import truths_of
from harness.data import open_predictions
from harness.metrics import suite_named
from harness.scoring import Statistics, sides_of
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from harness.analysis.results import Results
    from harness.metrics import Side

    Pair = tuple[str, str]

MOST_GENES = 1500
"""Of a pair so many genes are drawn: those with the largest true effects."""

MOST_PAIRS = 6
"""So many pairs to choose from, those with the largest true effects."""

MOST_MODELS = 4
_CONVENTIONS = suite_named("cell-eval:de").conventions


def gene_figures(results: Results, comparison: pd.DataFrame) -> Iterator[Figure]:
    """Yield a volcano plot and truth against prediction, for the pairs with the largest effects."""
    truths = _truths(results)
    if not truths:
        return
    size = {p: float(np.linalg.norm(side.effect[row])) for p, (_, side, row) in truths.items()}
    chosen = sorted(truths, key=lambda pair: -size[pair])[:MOST_PAIRS]
    volcanoes = {_label(pair): _volcano(*truths[pair]) for pair in chosen}
    yield Figure(
        "volcano",
        "Differential expression of single pairs",
        "Truth against its controls: log2 fold change of geometric means, and the adjusted p-value "
        "of the Mann-Whitney U test (Benjamini-Hochberg within the pair). The "
        f"{MOST_GENES:,} genes with the largest effects.",
        volcanoes,
    )
    against = {_label(pair): _against(pair, truths[pair], results, comparison) for pair in chosen}
    against = {label: figure for label, figure in against.items() if figure["data"]}
    if against:
        yield Figure(
            "prediction",
            "Truth against prediction, gene by gene",
            "Effect of the pair on the log1p scale: on the line where prediction equals truth. "
            "Predictions of the first seed that answered the pair.",
            against,
        )


def _truths(results: Results) -> dict[Pair, tuple[Statistics, Side, int]]:
    """Return each pair's truth: the one with the most cells, where halves are kept too."""
    found: dict[Pair, tuple[Statistics, Side, int]] = {}
    for values in truths_of(results.runs):
        statistics = Statistics(**values)
        for context, side in sides_of(statistics):
            for row, place in enumerate(statistics.rows_of(context)):
                pair = (context, statistics.perturbations[place])
                known = found.get(pair)
                if known is None or side.sizes[row] > known[1].sizes[known[2]]:
                    found[pair] = statistics, side, row
    return found


def _largest(side: Side, row: int) -> np.ndarray:
    return np.argsort(-np.abs(side.effect[row]), kind="stable")[:MOST_GENES]


def _volcano(statistics: Statistics, side: Side, row: int) -> dict[str, Any]:
    table = side.de(_CONVENTIONS)
    genes = _largest(side, row)
    change = table.log2_fold_change[row, genes].astype(np.float64)
    adjusted = table.adjusted[row, genes]
    called = table.significant[row, genes]
    with np.errstate(divide="ignore"):
        height = -np.log10(adjusted)
    names = np.array(statistics.genes)[genes]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": finite(change[where]),
                "y": finite(height[where]),
                "text": names[where].tolist(),
                "hovertemplate": "%{text}<br>log2FC %{x:.3g}, −log10 p %{y:.3g}<extra></extra>",
            }
            for label, where in (("called", called), ("not called", ~called))
        ],
        "layout": axes("log2 fold change", "−log10 adjusted p"),
    }


def _against(
    pair: Pair,
    truth: tuple[Statistics, Side, int],
    results: Results,
    comparison: pd.DataFrame,
) -> dict[str, Any]:
    statistics, side, row = truth
    genes = _largest(side, row)
    true = side.effect[row, genes]
    names = np.array(statistics.genes)[genes].tolist()
    traces: list[dict[str, Any]] = []
    ranked = comparison[comparison["role"] != "ceiling"]  # best first
    for model in [*dict.fromkeys(str(name) for name in ranked["model"])][:MOST_MODELS]:
        predicted = _predicted(results, model, pair, len(statistics.genes))
        if predicted is not None:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": model,
                    "x": finite(true),
                    "y": finite(predicted[genes]),
                    "text": names,
                    "hovertemplate": "%{text}<br>true %{x:.3g}, predicted %{y:.3g}<extra>"
                    + model
                    + "</extra>",
                }
            )
    ends = [float(true.min()), float(true.max())]
    if traces:
        line = {"type": "scatter", "mode": "lines", "name": "equal", "x": ends, "y": ends}
        traces.append(line | {"hoverinfo": "skip"})
    return {"data": traces, "layout": axes("true", "predicted")}


def _predicted(results: Results, model: str, pair: Pair, n_genes: int) -> np.ndarray | None:
    """Return a model's predicted effect of a pair, from the first trial that kept a profile."""
    trials = results.trials
    done = trials[(trials["state"] == "done") & (trials["model"] == model)]
    for trial, run in zip(done["trial"], done["run"], strict=True):
        path = paths.join(str(run), "trials", str(trial), "profiles.zarr")
        if not paths.is_published(path, "zarr.json"):
            continue
        profiles = open_predictions(path)
        here = profiles.contexts == pair[0]
        own = np.flatnonzero(here & (profiles.perturbations == pair[1]))
        control = np.flatnonzero(here & (profiles.perturbations == profiles.control_label))
        if len(own) and len(control) and len(profiles.genes) == n_genes:
            block = profiles.gene_block(0, n_genes)
            effect: np.ndarray = block[own[0]] - block[control[0]]
            return effect
    return None


def _label(pair: Pair) -> str:
    return f"{pair[1]} in {pair[0]}" if pair[0] else pair[1]
