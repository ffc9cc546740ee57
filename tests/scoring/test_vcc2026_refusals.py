"""What the 2026 suite refuses, as its oracle does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.errors import DataError
from harness.scoring.scorer import score
from tests.golden import cases, cases2026, compare
from tests.suite2026 import (
    scored,
)

# --- what is refused -------------------------------------------------------------------------


def refused(change: Any, match: str, *, of: str = "prediction", **options: Any) -> None:
    case = cases2026.SIMULATED["plain"]()
    sides = {
        name: compare.annotated(change(side) if name == of else side)
        for name, side in (("truth", case.truth), ("prediction", case.prediction))
    }
    with pytest.raises(DataError, match=match):
        score(sides["truth"], sides["prediction"], suite="vcc2026", **options)


@pytest.mark.parametrize("of", ["truth", "prediction"])
def test_log1p_values_are_refused_saying_what_is_needed(of: str) -> None:
    refused(cases.logged, f"{of}: the values are log1p.*raw counts.*Give the counts", of=of)


def with_value(value: float) -> Any:
    def change(side: cases.Matrix) -> cases.Matrix:
        X = side.X.astype(np.float64)
        X[3, 7] = value
        return replace(side, X=X)

    return change


@pytest.mark.parametrize("value", [-1.0, 1.0005], ids=["negative", "fraction"])
def test_a_value_that_is_no_count_is_named(value: float) -> None:
    refused(with_value(value), f"no count. Found {value} in cell 3 for gene 'G7', expected whole")


@pytest.mark.parametrize("value", [2e6, np.nan], ids=["deep", "missing"])
def test_a_cell_of_impossible_depth_is_named(value: float) -> None:
    refused(with_value(value), "cell 3 has a total of .* at most 1,000,000 per cell")


def test_missing_perturbations_and_other_genes_are_refused() -> None:
    refused(
        lambda side: replace(
            side, X=side.X[side.labels != "G5"], labels=side.labels[side.labels != "G5"]
        ),
        "lacks 'G5'",
    )
    refused(lambda side: replace(side, genes=(*side.genes[1:], side.genes[0])), "in another order")


def renamed(side: cases.Matrix) -> cases.Matrix:
    labels = [label if label == cases.CONTROL else f"drug {label}" for label in side.labels]
    return replace(side, labels=np.array(labels))


def test_a_truth_none_of_whose_names_is_a_gene_is_refused_unless_it_is_said() -> None:
    case = cases2026.SIMULATED["plain"]()
    sides = [compare.annotated(renamed(side)) for side in (case.truth, case.prediction)]
    with pytest.raises(DataError, match="no perturbation is named after a gene of the screen"):
        score(*sides, suite="vcc2026")
    found = score(*sides, suite="vcc2026", no_target_genes=True).means("vcc2026")
    assert found["pds_cosine"] == 1
    assert (
        found["de_wilcoxon_sig_jaccard"]
        != scored("plain").means("vcc2026")["de_wilcoxon_sig_jaccard"]
    )


def test_targets_none_of_which_is_tested_are_refused_for_de_metrics_alone() -> None:
    targets = [gene for gene in cases2026.EVEN if gene in cases.GENES]
    columns = [cases.GENES.index(gene) for gene in targets]

    def silent(side: cases.Matrix) -> cases.Matrix:
        X = side.X.copy()
        X[np.ix_(side.labels == cases.CONTROL, columns)] = 0
        return replace(side, X=X)

    refused(silent, "no perturbation is named after a gene that is tested", of="truth")
    case = cases2026.SIMULATED["plain"]()
    sides = compare.annotated(silent(case.truth)), compare.annotated(case.prediction)
    assert len(score(*sides, suite="vcc2026", metrics=["pds_cosine"]).frame) == 6


def test_controls_that_express_nothing_are_refused() -> None:
    def silent(side: cases.Matrix) -> cases.Matrix:
        X = side.X.copy()
        X[side.labels == cases.CONTROL] = 0
        return replace(side, X=X)

    refused(silent, "no gene is tested. The controls' highest mean is 0", of="truth")


def test_genes_that_are_all_targets_leave_nothing_to_rank() -> None:
    sizes = {cases.CONTROL: 30, "G0": 20, "G1": 20}
    truth = cases.counts(1, sizes, cases.GENES[:2], 9.0)
    annotated = compare.annotated(truth)
    with pytest.raises(DataError, match="each of the 2 genes is the target"):
        score(annotated, annotated, suite="vcc2026", metrics=["pds_cosine"])
