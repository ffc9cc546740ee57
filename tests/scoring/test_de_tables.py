"""Tables of differential expression in place of the rank test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import pytest

from harness.errors import DataError
from harness.metrics import suite_named
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from pathlib import Path

    from harness.metrics.comparison import DETable

CASE = cases.SIMULATED["all-zero-genes-and-clipped-fold-changes"]()
NAMES = sorted(name for name in cases.SIZES if name != cases.CONTROL)


def side(name: str, case: cases.Case = CASE) -> anndata.AnnData:
    return compare.annotated(getattr(case, name))


def table(name: str, suite: str) -> pd.DataFrame:
    """A side's differential expression under a suite, as the pdex of its oracle writes it."""
    found: DETable = prepare(side(name)).sides[""].de(suite_named(suite).conventions)
    rows = pd.MultiIndex.from_product([NAMES, cases.GENES], names=["target", "feature"])
    frame = pd.DataFrame({"p_value": found.p.ravel(), "fdr": found.adjusted.ravel()}, rows)
    if suite == "vcc2025":
        frame["fold_change"] = found.fold_change.ravel()
    else:
        with np.errstate(divide="ignore"):
            frame["log2_fold_change"] = np.log2(found.fold_change.ravel())
    return frame.reset_index().sample(frac=1, random_state=0)


@pytest.mark.parametrize("suite", ["vcc2025", "cell-eval:de"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_scores_by_tables_are_those_by_rank_tests(tmp_path: Path, suite: str, form: str) -> None:
    files = {}
    for name in ("truth", "prediction"):
        files[name] = str(tmp_path / f"{name}.{form}")
        frame = table(name, suite)
        frame.to_csv(files[name]) if form == "csv" else frame.to_parquet(files[name])
    truth = prepare(side("truth"), suite=suite, de_table=files["truth"])
    found = score(truth, side("prediction"), suite=suite, de_table=files["prediction"])
    expected = score(side("truth"), side("prediction"), suite=suite)
    pd.testing.assert_frame_equal(found.frame, expected.frame)


def test_a_table_decides_what_is_significant(tmp_path: Path) -> None:
    frame = table("prediction", "cell-eval:de").assign(fdr=0.5)
    frame.to_csv(tmp_path / "de.csv")
    found = score(
        side("truth"),
        side("prediction"),
        metrics=["de_nsig_counts_pred", "de_nsig_counts_real"],
        de_table=str(tmp_path / "de.csv"),
    ).means("vcc2025")
    assert found["de_nsig_counts_pred"] == 0 < found["de_nsig_counts_real"]


def test_each_context_takes_its_rows(tmp_path: Path) -> None:
    both = {
        name: anndata.concat({"a": side(name), "b": side(name)}, label="line", index_unique="-")
        for name in ("truth", "prediction")
    }
    parts = [table("prediction", "cell-eval:de").assign(context=context) for context in "ab"]
    parts[1]["fdr"] = 1.0
    pd.concat(parts).to_csv(tmp_path / "de.csv")
    found = score(
        both["truth"],
        both["prediction"],
        metrics=["de_nsig_counts_pred"],
        context_column="line",
        de_table=str(tmp_path / "de.csv"),
    ).by_context("vcc2025")
    first, second = found["value"]
    assert first > second == 0
    parts[0].drop(columns="context").to_csv(tmp_path / "de.csv")
    with pytest.raises(DataError, match="no column 'context'"):
        prepare(
            both["truth"], ScoringOptions(context_column="line"), de_table=str(tmp_path / "de.csv")
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="fdr"), "columns are missing: 'fdr'"),
        (lambda t: t.drop(columns="log2_fold_change"), "'fold_change or log2_fold_change'"),
        (lambda t: t[t["target"] != "G1"], "90 of 540 pairs and genes are missing .* 'G1, G0'"),
        (lambda t: t[t["feature"] != "G3"], "6 of 540 pairs and genes are missing .*'G1, G3'"),
        (lambda t: pd.concat([t, t[:1]]), "1 of 540 pairs and genes are missing or there twice"),
        (lambda t: t.assign(target="no"), "perturbations that the cells do not have: 'no'"),
        (lambda t: t.assign(feature="no"), "genes that the cells do not have: 'no'"),
        (lambda t: t.assign(p_value=1.5), "540 values of 'p_value' are impossible. Found 1.5"),
        (lambda t: t.assign(fdr=np.nan), "540 values of 'fdr' are impossible"),
    ],
    ids=["column", "change", "pair", "gene", "twice", "name", "feature", "p", "nan"],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    file = tmp_path / "de.csv"
    change(table("truth", "cell-eval:de")).to_csv(file)
    with pytest.raises(DataError, match=message):
        prepare(side("truth"), de_table=str(file))


def test_rows_of_the_control_and_names_like_na_are_read(tmp_path: Path) -> None:
    truth, file = side("truth"), tmp_path / "de.csv"
    truth.obs["target_gene"] = truth.obs["target_gene"].astype(str).replace({"G1": "NA"})
    frame = table("truth", "cell-eval:de").replace({"target": {"G1": "NA"}})
    control = frame[frame["target"] == "NA"].assign(target=cases.CONTROL)
    pd.concat([frame, control]).to_csv(file)
    assert prepare(truth, de_table=str(file)).sides[""].given is not None


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "de.parquet").write_bytes(b"none")
    with pytest.raises(DataError, match=r"de\.parquet: the table cannot be read"):
        prepare(side("truth"), de_table=str(tmp_path / "de.parquet"))
