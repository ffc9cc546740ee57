"""A run folder written by hand, with scores that differ as its models' skills do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.results import write_scores
from harness.jobs.trial_spec import TrialSpec
from harness.scoring.truth_cache import write_values

if TYPE_CHECKING:
    from pathlib import Path


MAE, OVERLAP, PDS = "mae", "overlap_at_N", "discrimination_score_l1"
PAIRS = [f"G{place:02d}" for place in range(12)]


def add_trial(run: Path, model: str, scores: dict[str, Any], **given: Any) -> str:
    """Write a finished trial with one value per pair for each ``suite:metric`` or metric."""
    named: dict[str, Any] = {"seed": 0, "fold": 0, "parameters": (), "side": "test"} | given
    seconds = named.pop("seconds", {"fit": 1.0, "predict": 2.0, "score": 3.0})
    spec = TrialSpec(
        "toy", 1, "f", "halves", "{}", model=model, cells=None, controls="divided", **named
    )
    rows = []
    for name, values in scores.items():
        suite, _, metric = name.rpartition(":")
        for pair, value in zip(PAIRS, values, strict=False):
            reason = "constant prediction" if np.isnan(value) else ""
            rows.append((suite or "vcc2025", metric, 1, "A549", pair, value, reason, spec.id))
    columns = ["suite", "metric", "version", "context", "perturbation", "value", "reason", "trial"]
    folder = run / "trials" / spec.id
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    write_scores(str(run / "results" / f"{spec.id}.parquet"), pd.DataFrame(rows, columns=columns))
    manifest = {"ceiling": model == "replicate", "seconds": seconds, "peak_memory": 2**30}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return spec.id


def add_reference(run: Path) -> None:
    """Write what scoring keeps of the truth: effects grow and cells shrink from pair to pair."""
    n = len(PAIRS)
    means = np.ones((n + 1, 20))
    means[:n, 0] += np.arange(1, n + 1)
    means[n] = np.arange(20) / 10
    means[:n] += means[n] - 1
    values = {
        "genes": (*PAIRS[:6], *(f"X{place}" for place in range(14))),
        "perturbations": (*PAIRS, "non-targeting"),
        "contexts": ("A549",) * (n + 1),
        "control_label": "non-targeting",
        "sizes": np.array([*range(100, 100 - n, -1), 500]),
        "reference": np.full(n + 1, n),
        "means": means,
    }
    write_values(values, str(run / "reference/key/statistics-2.2"))


def write_run(folder: Path) -> None:
    """Write a run of two suites, two seeds, a ceiling, and a model with six settings."""
    rng = np.random.default_rng(3)
    pair = rng.random(12)
    for seed in (0, 1):
        for model, skill in (("replicate", 0.5), ("mean", 0.0), ("far", -0.3)):
            add_trial(folder, model, _scores(rng, pair, skill), seed=seed)
        for rank in (4, 16, 64):
            for ridge in (0.1, 1.0):
                skill = 0.02 * np.log2(rank) + 0.05 * (ridge < 1)
                parameters = (("rank", rank), ("ridge", ridge))
                seconds = {"fit": float(rank), "predict": 2.0, "score": 3.0}
                scores = _scores(rng, pair, skill)
                given = {"seed": seed, "parameters": parameters, "seconds": seconds}
                add_trial(folder, "linear", scores, **given)
    add_reference(folder)
    said = {"job": {"score": {"suite": ["vcc2025", "cell-eval"], "baseline": "mean"}}}
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")


def _scores(rng: np.random.Generator, pair: np.ndarray, skill: float) -> dict[str, np.ndarray]:
    noise = 0.02 * rng.normal(size=(3, 12))
    found = {OVERLAP: pair / 2 + skill + 0.3 + noise[0], MAE: 1 + pair - skill + noise[1]}
    return found | {f"cell-eval:{MAE}": found[MAE] * 2, f"cell-eval:{PDS}": pair + noise[2]}
