"""Scores against the oracles, and what `score` refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from harness.data.array_cells import ArrayCells, anndata_cells
from harness.errors import DataError, UnknownNameError
from harness.metrics import combine_scores, metric_named, scaled_scores, suite_named
from harness.scoring.cell_distances import energy_distances
from harness.scoring.group_statistics import block_width, measure
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.scoring.scores import Scores

VCC2025 = compare.golden("vcc2025")
CELL_EVAL = compare.golden("cell_eval")
MEMBERS = ("overlap_at_N", "mae", "discrimination_score_l1")
WITH_DISTANCES = (*MEMBERS, "discrimination_score_l2", "discrimination_score_cosine")


@cache
def scored(name: str) -> Scores:
    case = cases.SIMULATED[name]()
    return score(
        compare.annotated(case.truth), compare.annotated(case.prediction), metrics=WITH_DISTANCES
    )


@pytest.mark.parametrize("name", list(cases.SIMULATED))
def test_vcc2025_equals_the_oracle_on_simulated_screens(name: str) -> None:
    expected = {key: VCC2025[name]["results"][key] for key in ("perturbation", *WITH_DISTANCES)}
    compare.assert_results_equal(scored(name), "vcc2025", expected)
    aggregate = VCC2025[name]["vcc"]["aggregate"]
    compare.assert_aggregates_equal(scored(name), "vcc2025", aggregate)


@pytest.mark.parametrize(
    "name", ["other-half", "next-perturbation", "baseline", "means-of-other-half"]
)
def test_vcc2025_equals_the_oracle_on_a_real_screen(
    name: str, data_file: Callable[[str], Path]
) -> None:
    case = cases.screens(compare.read_screen(data_file("papalexi21.h5ad")))[name]
    expected = VCC2025[f"papalexi21:{name}"]
    found = score(
        compare.annotated(case.truth), compare.annotated(case.prediction), metrics=WITH_DISTANCES
    )
    compare.assert_results_equal(
        found,
        "vcc2025",
        {key: expected["results"][key] for key in ("perturbation", *WITH_DISTANCES)},
    )
    compare.assert_aggregates_equal(found, "vcc2025", expected["vcc"]["aggregate"])


# Where the oracle's value is a rounding error's: fold changes and distances that do not vary.
ARBITRARY = {
    "control-mean": ("de_direction_match", "de_spearman_lfc_sig", "pearson_edistance"),
    "baseline": ("pearson_edistance",),
}
# Its distances between cells are float32, and what is correlated are small differences of them; its
# means are summed in float32, so fold changes that are all but equal change places.
LOOSE = {"pearson_edistance": 5e-5, "de_spearman_lfc_sig": 1e-3}
NULL = ("de_direction_match", "de_spearman_lfc_sig", "de_sig_genes_recall")


def agrees_with_cell_eval(found: Scores, expected: dict[str, Any], omitted: set[str]) -> None:
    results = {k: v for k, v in expected["results"].items() if k not in omitted}
    assert set(found.results("cell-eval")) - set(results) <= omitted | set(NULL)
    for column in set(NULL) - set(results) - omitted:
        assert found.results("cell-eval").get(column, pd.Series([np.nan])).isna().all()
    compare.assert_results_equal(found, "cell-eval", results, LOOSE)
    loose = {*omitted, *LOOSE, *compare.last_bits()}
    aggregate = {k: v for k, v in expected["aggregate"].items() if k not in loose}
    compare.assert_aggregates_equal(found, "cell-eval", aggregate)


@pytest.mark.parametrize("name", list(cases.SIMULATED))
def test_cell_eval_equals_the_oracle_on_simulated_screens(name: str) -> None:
    case = cases.SIMULATED[name]()
    found = score(*map(compare.annotated, vars(case).values()), suite="cell-eval")
    omitted = {"clustering_agreement", *ARBITRARY.get(name, ())}
    agrees_with_cell_eval(found, CELL_EVAL[name], omitted)


@pytest.mark.parametrize("file", ["papalexi21", "datlinger21"])
@pytest.mark.parametrize(
    "name", ["other-half", "next-perturbation", "baseline", "means-of-other-half"]
)
def test_cell_eval_equals_the_oracle_on_real_screens(
    file: str, name: str, data_file: Callable[[str], Path]
) -> None:
    case = cases.screens(compare.read_screen(data_file(f"{file}.h5ad")))[name]
    found = score(*map(compare.annotated, vars(case).values()), suite="cell-eval")
    omitted = {"clustering_agreement", *ARBITRARY.get(name, ())}
    agrees_with_cell_eval(found, CELL_EVAL[f"{file}:{name}"], omitted)


@pytest.mark.parametrize("profile", ["minimal", "de", "anndata"])
def test_profiles_have_the_oracles_columns(profile: str) -> None:
    found = score(TRUTH, plain(), suite=f"cell-eval:{profile}").results(f"cell-eval:{profile}")
    columns = CELL_EVAL["plain"][profile]["columns"]
    assert list(found) == columns


def test_the_combined_score_equals_the_oracle() -> None:
    expected = VCC2025["plain"]["from_baseline"]
    members = suite_named("vcc2025").combined
    means, base = (
        [scored(name).means("vcc2025")[member] for member in members]
        for name in ("plain", "baseline")
    )
    best = [metric_named(member).best for member in members]
    found = dict(zip(members, scaled_scores(means, base, best), strict=True))
    found["avg_score"] = combine_scores(means, base, best)
    for name, value in zip(expected["metric"], expected["from_baseline"], strict=True):
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert combine_scores(base, base, best) == 0


def plain(side: str = "prediction", **changes: Any) -> anndata.AnnData:
    """One side of the plain case, with some of its arrays replaced."""
    return compare.annotated(replace(getattr(cases.SIMULATED["plain"](), side), **changes))


TRUTH = prepare(plain("truth"))


def test_written_files_have_the_oracles_names_and_shape(tmp_path: Path) -> None:
    folder = scored("plain").write(tmp_path)
    assert folder == str(tmp_path / "prediction")
    results = pd.read_csv(tmp_path / "prediction/vcc2025/results.csv")
    assert results.columns[0] == "perturbation"
    statistics = pd.read_csv(tmp_path / "prediction/vcc2025/agg_results.csv", index_col="statistic")
    assert list(statistics.index) == VCC2025["plain"]["vcc"]["aggregate"]["statistic"]
    np.testing.assert_allclose(statistics.loc["mean", "mae"], results["mae"].mean())


def test_columns_come_in_the_oracles_order() -> None:
    found = score(TRUTH, plain()).results("vcc2025")
    assert list(found.columns) == list(VCC2025["plain"]["vcc"]["results"])


def test_each_context_is_scored_against_its_own_controls(tmp_path: Path) -> None:
    names = ("plain", "all-zero-genes-and-clipped-fold-changes")
    sides = {}
    for side in ("truth", "prediction"):
        parts = [compare.annotated(getattr(cases.SIMULATED[name](), side)) for name in names]
        sides[side] = anndata.concat(
            dict(zip("ba", parts, strict=True)), label="line", index_unique="-"
        )
    found = score(sides["truth"], sides["prediction"], context_column="line")
    found.write(tmp_path)
    written = pd.read_csv(tmp_path / "prediction/vcc2025/results.csv")
    assert list(written.columns[:2]) == ["context", "perturbation"]
    for context, name in zip("ba", names, strict=True):
        alone = score(*map(compare.annotated, vars(cases.SIMULATED[name]()).values()))
        part = written[written["context"] == context].drop(columns="context")
        pd.testing.assert_frame_equal(part.reset_index(drop=True), alone.results("vcc2025"))


def test_counts_of_a_context_score_as_they_would_alone() -> None:
    sides = {}
    for side in ("truth", "prediction"):
        first = compare.annotated(getattr(cases.SIMULATED["counts"](), side))
        deeper = compare.annotated(getattr(cases.SIMULATED["integer-counts"](), side))
        deeper.X = 3 * deeper.X
        sides[side] = {"a": first, "b": deeper}
    whole = {
        side: anndata.concat(parts, label="line", index_unique="-") for side, parts in sides.items()
    }
    suites = ["vcc2025", "cell-eval:anndata"]
    found = score(whole["truth"], whole["prediction"], suite=suites, context_column="line").frame
    for context in "ab":
        alone = score(sides["truth"][context], sides["prediction"][context], suite=suites).frame
        part = found[found["context"] == context].assign(context="").reset_index(drop=True)
        order = ["suite", "metric", "perturbation"]
        pd.testing.assert_frame_equal(
            part.sort_values(order, ignore_index=True), alone.sort_values(order, ignore_index=True)
        )


def test_memory_and_threads_change_nothing() -> None:
    expected = score(TRUTH, plain()).frame
    tight = prepare(plain("truth"), ScoringOptions(memory="16KiB", threads=3))
    pd.testing.assert_frame_equal(score(tight, plain()).frame, expected)


def test_several_suites_and_metrics_may_be_asked_for() -> None:
    found = score(TRUTH, plain(), suite=["vcc2025"], metrics=["mae"])
    assert found.frame["metric"].unique().tolist() == ["mae"]
    with pytest.raises(UnknownNameError, match="Did you mean 'vcc2025'"):
        score(TRUTH, plain(), suite="vc2025")
    with pytest.raises(UnknownNameError, match="Did you mean 'mae'"):
        score(TRUTH, plain(), metrics=["maee"])
    with pytest.raises(ValueError, match="'other' was not scored"):
        found.results("other")


def with_value(value: float) -> anndata.AnnData:
    X = plain().X.copy()
    X[3, 2] = value
    return plain(X=X)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 15.0])
def test_impossible_values_are_named(value: float) -> None:
    with pytest.raises(
        DataError, match=r"prediction: values cannot be log1p.* in cell 3 for gene 'G2'"
    ):
        score(TRUTH, with_value(value))
    stored = with_value(value)
    stored.X = sparse.csr_matrix(stored.X)
    with pytest.raises(DataError, match=r"in cell 3 for gene 'G2'"):
        score(TRUTH, stored)
    stored.X = sparse.csc_matrix(stored.X)
    with pytest.raises(DataError, match=r"in cell 3 for gene 'G2'"):
        score(TRUTH, stored)


def renamed(**names: str) -> anndata.AnnData:
    labels = plain().obs["target_gene"].replace(names)
    return plain(labels=labels.to_numpy())


def relabelled(labels: list[str]) -> anndata.AnnData:
    found = plain()
    found.obs["target_gene"] = labels
    return found


def other_genes(genes: list[str]) -> anndata.AnnData:
    found = plain()[:, : len(genes)].copy()
    found.var_names = genes
    return found


GENES = list(cases.GENES)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (lambda: renamed(G1="G3"), "it lacks 'G1' and has in addition 'G3'"),
        (lambda: renamed(G1="G2"), "it lacks 'G1'. Expected"),
        (lambda: renamed(**{"non-targeting": "G9"}), "there are no control cells"),
        (lambda: relabelled(["non-targeting"] * 325), "all cells are controls"),
        (lambda: relabelled([""] * 2 + ["G1"] * 323), "has no label for 2 cells: 'c0', 'c1'"),
        (lambda: relabelled([None, *["G1"] * 324]), "has no label for 1 cells: 'c0'"),
        (lambda: other_genes(GENES[::-1]), "in another order: gene 0 is 'G89', expected 'G0'"),
        (lambda: other_genes(GENES[:-1]), "found 89, expected 90; it lacks 'G89'"),
        (lambda: other_genes([*GENES[:-1], "G0"]), "given more than once. Found 'G0'"),
        (lambda: plain()[:, :0].copy(), "there are no genes"),
        (lambda: plain().to_memory().T, "column 'target_gene' is not in obs"),
    ],
    ids=[
        "renamed",
        "missing",
        "no-control",
        "only-controls",
        "empty-label",
        "no-label",
        "gene-order",
        "missing-gene",
        "duplicate-genes",
        "no-genes",
        "no-column",
    ],
)
def test_what_does_not_fit_the_truth_is_refused(prediction: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(TRUTH, prediction())


def test_a_scale_that_is_not_the_values_is_refused() -> None:
    counts = compare.annotated(cases.SIMULATED["counts"]().truth)
    few = counts.copy()
    few.X.data = np.minimum(few.X.data, 14)
    with pytest.raises(DataError, match="log1p was declared, but all values are whole"):
        measure(cells(few, "log1p"), name="truth")
    with pytest.raises(DataError, match="counts were declared, but values have fractional"):
        measure(cells(plain(), "counts"), name="truth")
    with pytest.raises(DataError, match="the values are counts, expected log1p"):
        measure(cells(counts, "counts"), name="truth", scale="log1p")


def cells(annotated: anndata.AnnData, scale: Any) -> ArrayCells:
    return anndata_cells(
        annotated, perturbation_column="target_gene", control_label="non-targeting", scale=scale
    )


def test_only_matrices_in_memory_and_paths_are_read() -> None:
    found = plain()
    found.X = sparse.coo_matrix(found.X).tocsr()
    assert score(TRUTH, found).frame["value"].notna().all()
    with pytest.raises(TypeError, match="prediction is a list; expected a path"):
        score(TRUTH, [1, 2])


class OnlyGenes:
    """Cells that give blocks of genes and nothing else, as a store of ours does."""

    def __init__(self, whole: ArrayCells) -> None:
        for name in ("genes", "perturbations", "contexts", "control_label", "scale", "n_cells"):
            setattr(self, name, getattr(whole, name))
        self.gene_block, self.library_sizes = whole.gene_block, whole.library_sizes


@pytest.mark.parametrize("name", ["plain", "counts", "constant-prediction"])
def test_energy_distances_equal_their_definition(name: str) -> None:
    side = cases.SIMULATED[name]().prediction
    whole = cells(compare.annotated(side), "counts" if name == "counts" else "log1p")
    options = {"name": "it", "threads": 1, "memory": 1 << 20}
    found = energy_distances(whole, **options)
    again = energy_distances(OnlyGenes(whole), **options)
    np.testing.assert_array_equal(found, again)
    X = np.asarray(side.X, dtype=np.float64)
    if name == "counts":
        totals = X.sum(axis=1, keepdims=True)
        X = np.log1p(X / totals * np.median(totals))
    control = X[side.labels == cases.CONTROL]
    for group, label in enumerate(sorted(set(side.labels.tolist()))):
        part = X[side.labels == label]
        if label != cases.CONTROL:
            within = cdist(part, part).mean() + cdist(control, control).mean()
            expected = 2 * cdist(part, control).mean() - within
            assert found[group] == pytest.approx(expected, rel=2e-6)


def test_a_block_is_at_least_one_tile_and_fits_the_memory() -> None:
    assert block_width(60_000, 18_080, 1 << 30) == 1024
    assert block_width(10, 50, 1 << 30) == 50
    assert block_width(10**9, 18_080, 1 << 20) == 16
