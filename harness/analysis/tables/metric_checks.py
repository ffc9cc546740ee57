"""What each metric is worth on a screen, from the scores of controls, floors and tricks.

*Dynamic range*: clip((positive − negative) / (best − negative), −1, 1), means over pairs, after
Miller et al. 2025 (bioRxiv 2025.10.20.683304). The positive control is a technical duplicate, or
an interpolated one, whichever does better; the negative one the mean of the other perturbations. A
metric whose interval reaches 0 for both cannot tell a replicate from the mean: it is *blind* here.

*Raised by*: a trick raises a metric when the interval of the mean difference to the weak model that
it starts from lies above 0, in the direction of better, and the gain is at least a hundredth of
the way from there to the best value.
"""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.statistics import (
    DEFAULT,
    Bootstrap,
    defined_mean,
    percentile_interval,
    resample,
)
from harness.analysis.tables.table import Table
from harness.analysis.tables.text import Cell, Section
from harness.metrics import SCALES, registered
from harness.scoring import BASE, KINDS, NEGATIVE, POSITIVE
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.analysis.results import Results
    from harness.analysis.statistics import Resamples

FOLDER = "trust"
"""Where a run has its trust checks."""

INTERPOLATED = "interpolated-duplicate"
LEAST_GAIN = 0.01
"""A gain below this share of the way to the best value is too small to speak of."""

TRICKS = tuple(kind.name for kind in KINDS.values() if kind.role == "trick")
MARK = "⚠"
"""Beside a metric that is blind or can be raised by a trick."""


def _sections(table: Table) -> list[Section]:
    columns = ("metric", "duplicate", "mean of others", "dynamic range", "beats", "raised by")
    return [
        Section(f"Suite {suite}", columns, tuple(_row(row) for row in part.to_dict("records")))
        for suite, part in table.frame.groupby("suite", sort=False)
    ]


def trust_table(
    scores: pd.DataFrame, left_out: Mapping[str, str], bootstrap: Bootstrap = DEFAULT
) -> Table:
    """Return one row for each suite and metric that has a direction.

    Columns are ``suite``, ``metric``, ``version``, ``best``, ``n_pairs``; the mean of each
    prediction under its name; ``dynamic_range`` (technical duplicate) and
    ``dynamic_range_interpolated``, each with ``_low`` and ``_high``; ``beats``, the share of pairs
    on which the technical duplicate beats the mean of the others, ties one half; for each trick
    ``gain:NAME`` with ``_low`` and ``_high``, in the metric's own unit, positive where the trick
    helps; ``raised_by`` (names); ``blind``.

    Parameters
    ----------
    scores
        As `harness.scoring.metric_checks.check_trust` returns them.
    left_out
        Predictions that could not be made or were refused, with the reason.
    bootstrap
        How intervals over pairs are made.
    """
    rows = []
    for (suite, metric), part in scores.groupby(["suite", "metric"], sort=False):
        if registered()[str(metric)].higher_is_better is None:
            continue  # a count has no direction to be raised in
        wide = part.pivot(
            index=["context", "perturbation"], columns="prediction", values="value"
        ).reindex(columns=list(KINDS))
        rows.append(
            {"suite": suite, "metric": metric, "version": part["version"].iloc[0]}
            | _Worth(str(metric), wide, bootstrap).row()
        )
    frame = pd.DataFrame(rows)
    suites = ",".join(dict.fromkeys(str(name) for name in frame.get("suite", ())))
    notes = tuple(_notes(frame, left_out, bootstrap))
    return Table("trust", suites, (), frame, notes, _sections, bootstrap.level)


def trust_of(results: Results) -> tuple[Table, ...]:
    """Return the trust checks that runs have in their folders, a table for each dataset.

    Read from ``RUN/trust/DATASET/``, where `harness.runs.metric_checks` writes them.
    """
    tables = []
    for run in results.runs:
        for name in paths.list_names(paths.join(run, FOLDER)):
            folder = paths.join(run, FOLDER, name)
            if not paths.exists(paths.join(folder, "trust.md")):
                continue  # written last
            said = json.loads(paths.read_text(paths.join(folder, "trust.json")))
            rows = paths.read_bytes(paths.join(folder, "scores.parquet"))
            table = trust_table(pd.read_parquet(BytesIO(rows)), said["left_out"])
            about = f"{said['dataset']} v{said['dataset_version']}"
            notes = (f"{about}: {said['n_pairs']} pairs in {said['n_contexts']} contexts.",)
            frame = table.frame.assign(dataset=said["dataset"])
            tables.append(replace(table, frame=frame, notes=(*notes, *table.notes)))
    return tuple(tables)


def doubts(results: Results, suite: str) -> dict[str, str]:
    """Return what speaks against metrics of a suite on the data of these runs, by metric.

    Empty where nothing does, and where nobody looked.
    """
    found: dict[str, list[str]] = {}
    for table in trust_of(results):
        frame = table.frame[table.frame["suite"] == suite]
        for row in frame.to_dict("records"):
            reasons = list(_gained(row))
            said = [f"raised by {', '.join(reasons)}"] if reasons else []
            if row["blind"]:
                low, high = row["dynamic_range_low"], row["dynamic_range_high"]
                said.insert(
                    0, f"blind, dynamic range {row['dynamic_range']:.2f} [{low:.2f}, {high:.2f}]"
                )
            if said:
                found.setdefault(str(row["metric"]), []).append(
                    f"{row['dataset']}: {'; '.join(said)}"
                )
    return {metric: ". ".join(texts) for metric, texts in found.items()}


class _Worth:
    """One metric: (n_pairs, n_predictions) scores, and their resamples."""

    def __init__(self, metric: str, wide: pd.DataFrame, bootstrap: Bootstrap) -> None:
        known = registered()[metric]
        self.sign = 1.0 if known.higher_is_better else -1.0
        best = SCALES[metric].best if known.best is None and metric in SCALES else known.best
        self.best = np.nan if best is None else float(best)
        self.level = bootstrap.level
        self.values = wide.to_numpy(dtype=np.float64)
        contexts = [str(context) for context in wide.index.get_level_values("context")]
        self.resamples: Resamples = resample(contexts, bootstrap)
        self.place = {name: at for at, name in enumerate(wide.columns)}

    def row(self) -> dict[str, Any]:
        means, draws = defined_mean(self.values, axis=0), self.resamples.means(self.values)
        row: dict[str, Any] = {"best": self.best, "n_pairs": len(self.values)}
        row |= {name: means[at] for name, at in self.place.items()}
        for name, suffix in ((POSITIVE, ""), (INTERPOLATED, "_interpolated")):
            row |= self._with_interval(
                f"dynamic_range{suffix}", self._range(means, name), self._range(draws, name)
            )
        row["beats"] = self._beats()
        row["blind"] = bool(
            row["dynamic_range_low"] <= 0 and row["dynamic_range_interpolated_low"] <= 0
        )
        raised = []
        for trick in TRICKS:
            better = self.values[:, self.place[trick]] - self.values[:, self.place[BASE]]
            gain = self.sign * better[:, None]  # (n_pairs, 1)
            row |= self._with_interval(
                f"gain:{trick}", defined_mean(gain, axis=0)[0], self.resamples.means(gain)[:, 0]
            )
            way = self.sign * (self.best - row[BASE])
            enough = np.isnan(way) or row[f"gain:{trick}"] >= LEAST_GAIN * way
            if row[f"gain:{trick}_low"] > 0 and enough:
                raised.append(trick)
        row["raised_by"] = " ".join(raised)
        return row

    def _with_interval(self, name: str, value: Any, draws: np.ndarray) -> dict[str, float]:
        low, high = percentile_interval(draws, self.level)
        return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}

    def _range(self, means: np.ndarray, positive: str) -> np.ndarray:
        """Return the dynamic range from means (..., n_predictions)."""
        good, bad = means[..., self.place[positive]], means[..., self.place[NEGATIVE]]
        with np.errstate(invalid="ignore", divide="ignore"):
            share: np.ndarray = np.clip((good - bad) / (self.best - bad), -1.0, 1.0)
        return share

    def _beats(self) -> float:
        good, bad = (self.values[:, self.place[name]] for name in (POSITIVE, NEGATIVE))
        both = ~np.isnan(good) & ~np.isnan(bad)
        won = np.sign(self.sign * (good - bad)[both])
        return float((won > 0).mean() + (won == 0).mean() / 2) if both.any() else np.nan


def _row(row: Mapping[Any, Any]) -> tuple[Cell, ...]:
    marked = row["blind"] or row["raised_by"]
    span = Cell("—")  # where the metric has no best value
    if not np.isnan(row["dynamic_range"]):
        text = f"{row['dynamic_range']:.2f}{' blind' if row['blind'] else ''}"
        span = Cell(text, f"[{row['dynamic_range_low']:.2f}, {row['dynamic_range_high']:.2f}]")
    return (
        Cell(f"{MARK} {row['metric']}" if marked else str(row["metric"])),
        Cell(_number(row[POSITIVE])),
        Cell(_number(row[NEGATIVE])),
        span,
        Cell(f"{row['beats']:.0%}"),
        Cell(", ".join(_gained(row)) or "—"),
    )


def _gained(row: Mapping[Any, Any]) -> Iterator[str]:
    for trick in str(row["raised_by"]).split():
        yield f"{trick} ({_number(row[BASE])} → {_number(row[trick])})"


def _number(value: float) -> str:
    return "—" if np.isnan(value) else f"{value:.3g}"


def _notes(frame: pd.DataFrame, left_out: Mapping[str, str], bootstrap: Bootstrap) -> Iterator[str]:
    if len(frame):
        yield (
            f"Halves of {frame['n_pairs'].iloc[0]} pairs. duplicate: one half predicts the other. "
            "mean of others: each pair is predicted by the mean of the context's other "
            "perturbations."
        )
    yield (
        "dynamic range: how far the duplicate is from the mean of the others to the best value, "
        f"with its {bootstrap.level:.0%} bootstrap interval over pairs. blind: it reaches 0, also "
        "for the interpolated duplicate; the metric cannot tell a replicate from the mean here."
    )
    yield "beats: share of pairs on which the duplicate scores better than the mean of the others."
    yield (
        "raised by: tricks that need no knowledge of the effect and better the score of a weak "
        f"model, from → to. {MARK} blind, or raised by a trick."
    )
    for trick in TRICKS:
        if any(trick in names.split() for names in frame.get("raised_by", ())):
            summary = KINDS[trick].summary
            yield f"{trick}: {summary[:1].lower()}{summary[1:]}"
    for name, reason in left_out.items():
        yield f"Not scored: {name} ({reason.rstrip('.')})."
