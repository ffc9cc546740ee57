"""Make vcc2026.json with the scorer of the 2026 leaderboard.

In an environment with cell-eval2 0.20.0 and pdex 0.3.0, the rank test that it takes where there is
no GPU (both are SciPy's asymptotic test with continuity correction, in float64):

    python tests/golden/make_vcc2026.py papalexi21.h5ad datlinger21.h5ad
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oracle

sys.path.insert(0, str(oracle.HERE))
import cases2026

if TYPE_CHECKING:
    from collections.abc import Iterator

    import cases


def main() -> None:
    """Score every case; where a case is to be scaled, against baseline and anchor too."""
    from cell_eval2 import EvalConfig, aggregate_metrics_wide, compute_metrics

    config = replace(EvalConfig.from_preset("vcc2026"), pert_col="target_gene")
    config = replace(config, de=replace(config.de, backend="pdex"))
    found: dict[str, Any] = {}
    for name, case in _cases():
        sides = [oracle.annotated(side) for side in (case.prediction, case.truth)]
        # Of the real screens one has perturbations that are none of its genes.
        known = set(case.truth.labels.tolist()) & set(case.truth.genes)
        config = replace(config, target_gene_map=None if known else {"*": None})
        results = compute_metrics(*sides, config=config)
        entry: dict[str, Any] = {"results": _by_metric(results)}
        try:
            wide = aggregate_metrics_wide(results, metrics=NAMES)
        except ValueError as error:
            entry["refused"] = str(error).split(":")[0]
        else:
            entry["aggregate"] = oracle.columns(wide)
            if name in cases2026.SCALED:
                entry.update(_scale(case.truth, wide, config))
        found[name] = entry
        print(name, flush=True)
    write(found)


def _cases() -> Iterator[tuple[str, cases.Case]]:
    for name, make in cases2026.SIMULATED.items():
        yield name, make()
    for path in map(Path, sys.argv[1:]):
        for name, case in cases2026.screens(oracle.real_screen(path)).items():
            yield f"{path.stem}:{name}", case


NAMES = (
    "pds_cosine",
    "expr_mse_unbiased",
    "expr_mse_unbiased_capped",
    "expr_distance_unbiased",
    "expr_real_mass_ratio",
    "expr_mse_unbiased_capped_norm",
    "de_wilcoxon_lfc_nmae",
    "de_wilcoxon_direction_fidelity_yield_raw",
    "de_wilcoxon_direction_reach_raw",
    "de_wilcoxon_sig_jaccard",
)


def _scale(truth: cases.Matrix, wide: Any, config: Any) -> dict[str, Any]:
    """Baseline, anchor, and the prediction's score between them."""
    from cell_eval2.anchor import compute_replicate_anchor
    from cell_eval2.baseline import build_generic_baseline
    from cell_eval2.score import _reference_column, _replicate_entries, score_metrics

    real = oracle.annotated(truth)
    baseline = build_generic_baseline(real, config=config)
    splits, anchor = compute_replicate_anchor(real, config=config)
    scored = score_metrics(wide, baseline.agg)
    base = dict(zip(baseline.agg.columns[1:], _mean(baseline.agg), strict=True))
    column = _reference_column(
        scored["metric"].to_list(),
        _mean(wide),
        wide.columns[1:],
        _replicate_entries(base, anchor),
        column="from_replicate",
        label="anchor",
    )
    return {
        "baseline": {"results": _by_metric(baseline.results), "aggregate": base},
        "splits": oracle.columns(splits),
        "anchor": oracle.columns(anchor),
        "score": oracle.columns(scored.with_columns(column)),
    }


def _mean(wide: Any) -> tuple[float, ...]:
    row: tuple[float, ...] = wide.filter(wide["statistic"] == "mean").drop("statistic").row(0)
    return row


def _by_metric(results: Any) -> dict[str, dict[str, float | str]]:
    """Return metric to perturbation to value; what has no row is not there."""
    table: dict[str, dict[str, float | str]] = {}
    for perturbation, metric, value in results.iter_rows():
        text = "NaN" if math.isnan(value) else value
        table.setdefault(metric, {})[perturbation] = text
    return table


def write(found: dict[str, Any]) -> None:
    """Write the golden file with what made it."""
    packages = ("cell-eval2", "pdex", "numba-mwu", "scipy", "numpy", "polars", "scanpy", "anndata")
    made = {name: importlib.metadata.version(name) for name in packages}
    made["python"] = sys.version.split()[0]
    text = json.dumps(
        {"made_with": made, "cases": found}, ensure_ascii=False, separators=(",", ":")
    )
    (oracle.HERE / "vcc2026.json").write_text(text + "\n", encoding="utf-8")
    print(f"vcc2026.json: {len(text) / 1000:.0f} kB, {len(found)} cases")


if __name__ == "__main__":
    main()
