"""The golden cases of the 2026 suite, scored."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.array_cells import ArrayCells, anndata_cells
from harness.metrics import suite_named
from harness.scoring.anchors import Anchors, anchors
from harness.scoring.count_truth import CountTruth
from harness.scoring.scorer import score
from tests.golden import cases, cases2026, compare

if TYPE_CHECKING:
    from harness.scoring.scores import Scores


GOLDEN = compare.golden("vcc2026")
SUITE = suite_named("vcc2026").metrics
RATIO = "expr_mse_unbiased_capped_norm"
SCALED = [name for name in cases2026.SCALED if name in cases2026.SIMULATED]
REFUSED = tuple(name for name, found in GOLDEN.items() if "refused" in found)


def cells(side: cases.Matrix, name: str = "truth") -> ArrayCells:
    return anndata_cells(
        compare.annotated(side),
        perturbation_column="target_gene",
        control_label=cases.CONTROL,
        name=name,
    )


def counted(side: cases.Matrix, **options: Any) -> CountTruth:
    return CountTruth(cells(side), "truth", **{"threads": 2, "memory": 1 << 30, **options})


def without_controls(side: cases.Matrix) -> cases.Matrix:
    kept = side.labels != cases.CONTROL
    return replace(side, X=side.X[kept], labels=side.labels[kept])


@cache
def scored(name: str) -> Scores:
    case = cases2026.SIMULATED[name]()
    sides = compare.annotated(case.truth), compare.annotated(without_controls(case.prediction))
    return score(*sides, suite="vcc2026")


@cache
def scale_of(name: str) -> Anchors:
    return anchors(counted(cases2026.SIMULATED[name]().truth), SUITE)


def assert_close(found: float, expected: Any, what: str) -> None:
    np.testing.assert_allclose(
        found, compare.number(expected), rtol=compare.CONTINUOUS, atol=1e-12, err_msg=what
    )


def assert_equals_the_oracle(scores: Scores, name: str) -> None:
    results, expected = scores.results("vcc2026"), GOLDEN[name]["results"]
    assert set(results["metric"]) == set(expected)
    for metric, rows in results.groupby("metric"):
        values = dict(zip(rows["perturbation"], rows["value"], strict=True))
        assert set(values) == set(expected[metric])  # what the oracle leaves out is left out
        for perturbation, value in values.items():
            assert_close(value, expected[metric][perturbation], f"{metric} of {perturbation}")
    statistics = scores.aggregate("vcc2026")
    for column, values in GOLDEN[name].get("aggregate", {}).items():
        if column == "statistic":
            assert statistics[column].tolist() == values
            continue
        for found, value in zip(statistics[column], values, strict=True):
            assert_close(found, value, column)
