"""How tests read golden files and compare scores with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd

from tests.golden import cases

if TYPE_CHECKING:
    from harness.scoring.scores import Scores

HERE = Path(__file__).parent
CONTINUOUS = 1e-6
"""Relative tolerance of continuous values: the oracle's pseudobulks are float32."""

ROUNDING = 5e-8
"""Absolute tolerance besides, for what is near zero: the oracle correlates in float32."""

OTHER_LAST_BIT = {
    "pearson_delta": 1e-6,
    "wmse": 1e-5,
    "weighted_r2_delta_perturbed_mean": 2e-4,
    "roc_auc": 2e-3,
    "pr_auc": 2e-3,
}
"""Absolute tolerances where float32 logarithms of counts end in other bits than the golden ones.

NumPy computes them with AVX-512 where it can, and the golden files were made there. Elsewhere the
last bit of a twelfth of them is another, for the oracles as for us: they then agree with us and not
with their own golden values. Two cells that tie on one machine need not on another.
"""


def last_bits() -> dict[str, float]:
    """Return `OTHER_LAST_BIT` on a machine without AVX-512; nothing where all bits are the same."""
    kinds = np.lib.introspect.opt_func_info(func_name="^log1p$")["log1p"]["ff"]
    return {} if kinds["current"] in {"X86_V4", "AVX512_SKX"} else OTHER_LAST_BIT


def golden(name: str) -> dict[str, Any]:
    """Read the cases of a golden file."""
    found: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    return found


def annotated(side: cases.Matrix) -> anndata.AnnData:
    """Wrap one side of a case as AnnData."""
    index = [f"c{i}" for i in range(len(side.labels))]
    obs = pd.DataFrame({"target_gene": side.labels}, index=index)
    return anndata.AnnData(side.X.copy(), obs=obs, var=pd.DataFrame(index=list(side.genes)))


def read_screen(path: Path) -> cases.Matrix:
    """Read a real screen as the golden scripts do."""
    found = anndata.read_h5ad(path)
    labels = found.obs["target_gene"].astype(str).replace({"control": cases.CONTROL}).to_numpy()
    return cases.Matrix(found.X.tocsr(), labels, tuple(found.var_names))


def number(value: Any) -> float:
    """Undo how golden files write NaN and null."""
    return np.nan if value is None else float(value)


def assert_results_equal(
    scores: Scores,
    suite: str,
    expected: dict[str, list[Any]],
    loose: dict[str, float] | None = None,
) -> None:
    """Compare every column of the oracle's results.csv, rows in its order."""
    found = scores.results(suite)
    assert found["perturbation"].tolist() == expected["perturbation"]
    for column in expected:
        if column != "perturbation":
            values = [number(value) for value in expected[column]]
            tolerance = (loose or {}).get(column, CONTINUOUS)
            near = last_bits().get(column, ROUNDING)
            np.testing.assert_allclose(
                found[column], values, rtol=tolerance, atol=near, err_msg=column
            )


def assert_aggregates_equal(scores: Scores, suite: str, expected: dict[str, list[Any]]) -> None:
    """Compare every column of the oracle's agg_results.csv."""
    found = scores.aggregate(suite)
    assert found["statistic"].tolist() == expected["statistic"]
    for column in expected:
        if column != "statistic":
            values = np.array([number(value) for value in expected[column]])
            # A deviation is a difference of near values, which rounding disturbs the more.
            near = np.where(found["statistic"] == "std", 1e-5, CONTINUOUS) * np.abs(values) + 1e-7
            close = np.abs(found[column] - values) <= near
            assert (close | (found[column].isna() & np.isnan(values))).all(), column
