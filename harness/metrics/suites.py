"""Suites: named sets of metrics with the conventions under which an oracle computes them.

A suite is data. Its metrics stand in the order of the columns that the oracle writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.metrics.anchored_score import SCALES
from harness.metrics.base import Metric, metric_named
from harness.metrics.comparison import Conventions


@dataclass(frozen=True, slots=True)
class Suite:
    """A set of metrics that are computed and reported together.

    Parameters
    ----------
    name
        What jobs and commands call it.
    oracle
        The releases whose values it reproduces.
    metrics
        Names of the metrics, in the order of the columns.
    conventions
        How differential expression is computed.
    combined
        The metrics whose scaled means are averaged to the combined score; empty if there is none.
    anchored
        The metrics whose means are placed between the truth's anchors, and averaged instead; see
        `harness.metrics.anchored_score`.
    options
        What it chose where a choice changes values and its metrics' names do not say it.
    form
        How the oracle writes results: ``wide``, a column for each metric; ``long``, a row for each
        metric and pair, and statistics that pass over what is undefined.
    """

    name: str
    oracle: str
    metrics: tuple[str, ...]
    conventions: Conventions
    combined: tuple[str, ...] = ()
    anchored: tuple[str, ...] = ()
    options: str = ""
    form: Literal["wide", "long"] = "wide"

    def members(self, names: tuple[str, ...] | None = None) -> tuple[Metric, ...]:
        """Return the suite's metrics, or those named (any metric, under these conventions)."""
        return tuple(metric_named(name) for name in names or self.metrics)


_TODAY = Conventions(fold_changes="infinite", adjusted_over="pair", exact_when_small=False)
_AT = ("N", "50", "100", "200", "500")
_DE = (
    *(f"overlap_at_{k}" for k in _AT),
    *(f"precision_at_{k}" for k in _AT),
    "de_spearman_sig",
    "de_direction_match",
    "de_spearman_lfc_sig",
    "de_sig_genes_recall",
    "de_nsig_counts_real",
    "de_nsig_counts_pred",
    "pr_auc",
    "roc_auc",
)
_EXPRESSION = (
    "pearson_delta",
    "mse",
    "mae",
    "mse_delta",
    "mae_delta",
    "discrimination_score_l1",
    "discrimination_score_l2",
    "discrimination_score_cosine",
    "pearson_edistance",
    "clustering_agreement",
)
_MINIMAL = (
    "overlap_at_N",
    "precision_at_N",
    "de_nsig_counts_real",
    "de_nsig_counts_pred",
    "pearson_delta",
    "mse",
    "mae",
    "discrimination_score_l1",
)
_CALIBRATED = (
    "pearson_delta_training_mean",
    "r2_delta_training_mean",
    "weighted_r2_delta_training_mean",
    "pearson_delta_perturbed_mean",
    "r2_delta_perturbed_mean",
    "wmse",
    "weighted_r2_delta_perturbed_mean",
    "centroid_accuracy",
    "nir",
    "energy_distance",
    "mmd2",
    "overlap_at_N",
    "de_direction_match",
    "pr_auc",
    "overlap_at_N_no_target",
    "de_direction_match_no_target",
    "pr_auc_no_target",
)

_SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="vcc2025",
            oracle="cell-eval 0.6.6 with pdex 0.1.27, profile vcc",
            metrics=("overlap_at_N", "mae", "discrimination_score_l1"),
            conventions=Conventions(
                fold_changes="clipped", adjusted_over="run", exact_when_small=True
            ),
            combined=("overlap_at_N", "mae", "discrimination_score_l1"),
        ),
        *(
            Suite(
                name=name,
                oracle=f"cell-eval 0.8.2 with pdex 0.3.0, profile {profile}",
                metrics=metrics,
                conventions=_TODAY,
            )
            for name, profile, metrics in (
                ("cell-eval", "full", (*_DE, *_EXPRESSION)),
                ("cell-eval:minimal", "minimal", _MINIMAL),
                ("cell-eval:de", "de", _DE),
                ("cell-eval:anndata", "anndata", _EXPRESSION),
            )
        ),
        Suite(
            name="calibrated",
            oracle="scperteval 0.2.0; centroid_accuracy by definition; DE as in cell-eval",
            metrics=_CALIBRATED,
            conventions=_TODAY,
            options="control: none, but each side's own for DE; target genes: kept; "
            "ties: one half for nir, not farther for centroid_accuracy",
        ),
        Suite(
            name="vcc2026",
            oracle="cell-eval2 0.20.0, preset vcc2026",
            metrics=(
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
            ),
            conventions=_TODAY,
            anchored=tuple(SCALES),
            form="long",
        ),
    )
}


def registered_suites() -> dict[str, Suite]:
    """Return all suites by name."""
    return dict(_SUITES)


def suite_named(name: str) -> Suite:
    """Return the suite of this name; KeyError if there is none."""
    return _SUITES[name]
