"""Run ``cell-eval`` on the golden cases; shared by the scripts that make the golden files.

Runs in an environment of the oracle's, not in the project's.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import cases

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def annotated(side: cases.Matrix) -> anndata.AnnData:
    """Wrap a side as AnnData."""
    obs = pd.DataFrame(
        {"target_gene": side.labels}, index=[f"c{i}" for i in range(len(side.labels))]
    )
    return anndata.AnnData(side.X.copy(), obs=obs, var=pd.DataFrame(index=list(side.genes)))


def real_screen(path: Path, column: str = "target_gene") -> cases.Matrix:
    """Read a screen of shared data."""
    found = anndata.read_h5ad(path)
    labels = found.obs[column].astype(str).replace({"control": cases.CONTROL}).to_numpy()
    return cases.Matrix(found.X.tocsr(), labels, tuple(found.var_names))


def all_cases(*screens: Path) -> Iterator[tuple[str, cases.Case]]:
    """Yield every simulated case, then those of the real screens."""
    for name, make in cases.SIMULATED.items():
        yield name, make()
    for path in screens:
        for name, case in cases.screens(real_screen(path)).items():
            yield f"{path.stem}:{name}", case


def run(case: cases.Case, profile: str, **options: Any) -> dict[str, Any]:
    """Score a case and return its per-perturbation and aggregate tables."""
    from cell_eval import MetricsEvaluator

    with tempfile.TemporaryDirectory() as folder:
        evaluator = MetricsEvaluator(
            adata_pred=annotated(case.prediction),
            adata_real=annotated(case.truth),
            control_pert=cases.CONTROL,
            pert_col="target_gene",
            num_threads=2,
            outdir=folder,
        )
        results, aggregate = evaluator.compute(profile=profile, write_csv=False, **options)
    return {"results": columns(results), "aggregate": columns(aggregate)}


def columns(frame: Any) -> dict[str, list[Any]]:
    """Return a polars frame's columns as JSON knows them; NaN as a string, null as null."""
    return {
        name: [
            "NaN" if isinstance(value, float) and math.isnan(value) else value
            for value in frame[name].to_list()
        ]
        for name in frame.columns
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Write a golden file with what made it."""
    packages = (
        "cell-eval",
        "pdex",
        "scipy",
        "numpy",
        "polars",
        "scanpy",
        "anndata",
        "scikit-learn",
    )
    made = {name: importlib.metadata.version(name) for name in packages}
    made["scipy"] = __import__("scipy").__version__
    made["python"] = sys.version.split()[0]
    text = json.dumps(
        {"made_with": made, "cases": found}, ensure_ascii=False, separators=(",", ":")
    )
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path}: {len(text) / 1000:.0f} kB, {len(found)} cases")
