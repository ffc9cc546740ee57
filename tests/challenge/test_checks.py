"""What no submission is: mistakes in files, labels and values, each with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.challenge.submission import Layout, Rules, prepare
from harness.errors import DataError
from tests.submissions import (
    GENES,
    LABELS,
    N_GENES,
    RULES,
    log1p_of,
    refused,
    saved,
    screen,
)

if TYPE_CHECKING:
    import anndata as ad


# --- refusals -----------------------------------------------------------------------------------


def test_genes_in_another_order_are_counted_and_the_first_shown(tmp_path):
    order = [*range(9, -1, -1), *range(10, N_GENES)]
    text = refused(screen()[:, order].copy(), tmp_path)
    assert "10 of 40 genes are at another place" in text
    assert "0: 'G9' for 'G0'" in text
    assert "7: 'G2' for 'G7' and 2 more" in text


def test_other_genes_are_counted_and_the_first_eight_shown(tmp_path):
    data = screen()
    data.var_names = [f"N{i}" if i < 12 else f"G{i}" for i in range(N_GENES)]
    text = refused(data, tmp_path)
    assert "12 are missing: 'G0', 'G1'" in text
    assert "and 4 more; 12 are not in the list: 'N0'" in text


def test_missing_genes_are_named(tmp_path):
    text = refused(screen()[:, 2:].copy(), tmp_path)
    assert "Found 38, expected 40; 2 are missing: 'G0', 'G1'." in text


def relabelled(old: str, new: object) -> ad.AnnData:
    data = screen()
    data.obs["target_gene"] = pd.Series(LABELS, index=data.obs.index).replace(old, new)
    return data


def without_column() -> ad.AnnData:
    data = screen()
    data.obs = data.obs.rename(columns={"target_gene": "target_genes"})
    return data


def twice_the_same_gene() -> ad.AnnData:
    data = screen()
    data.var_names = ["G0", *GENES[:-1]]
    return data


def unlabelled() -> ad.AnnData:
    data = screen()
    data.obs["target_gene"] = pd.Categorical([None, *LABELS[1:]])
    return data


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(without_column, "Did you mean 'target_genes'?", id="no_column"),
        pytest.param(twice_the_same_gene, "genes 'G0' are there twice", id="gene_twice"),
        pytest.param(lambda: relabelled("B", ""), "8 cells have an empty label", id="empty_label"),
        pytest.param(lambda: relabelled("B", "  "), "8 cells have an empty label", id="blank"),
        pytest.param(unlabelled, "1 cells have an empty label", id="missing_label"),
        pytest.param(lambda: relabelled("non-targeting", "A"), "no controls", id="no_controls"),
        pytest.param(
            lambda: relabelled("non-targeting", "non_targeting"),
            "Did you mean 'non_targeting'?",
            id="control_misspelt",
        ),
        pytest.param(lambda: relabelled("A", "C"), "1 are missing: 'A'; 1 are not in", id="other"),
        pytest.param(lambda: relabelled("A", "B"), "1 are missing: 'A'. Predict", id="missing"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, make, said):
    assert said in refused(make(), tmp_path)


def test_too_many_cells_are_refused(tmp_path):
    text = refused(screen(), tmp_path, Rules(GENES, None, max_cells=39))
    assert "Found 40, expected at most 39" in text


def test_a_prediction_of_controls_alone_is_refused(tmp_path):
    assert "all cells are controls" in refused(screen()[:20].copy(), tmp_path, Rules(GENES))


def test_two_names_for_controls_are_refused(tmp_path):
    layout = Layout(control="A")
    text = refused(screen(), tmp_path, Rules(GENES, None), layout=layout)
    assert "two kinds of controls" in text


def test_all_that_is_wrong_with_labels_is_said_at_once(tmp_path):
    data = relabelled("non-targeting", "C")[:, 1:].copy()
    lines = refused(data, tmp_path, Rules(GENES, ("A", "B"), max_cells=1)).splitlines()
    assert len(lines) == 4


def with_value(value: float, *, log1p: bool = True, dtype: str = "f4") -> ad.AnnData:
    data = log1p_of(screen()) if log1p else screen()
    values = data.X.toarray().astype(dtype)
    values[5, 7] = value
    data.X = sparse.csr_matrix(values)
    return data


def mixed() -> ad.AnnData:
    data = log1p_of(screen())
    data.X = sparse.vstack([screen().X[:20], data.X[20:]]).tocsr()
    return data


def nothing() -> ad.AnnData:
    data = screen()
    data.X = sparse.csr_matrix(data.shape, dtype="f4")
    return data


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: with_value(-0.5), "1 values are negative. Found -0.5", id="negative"),
        pytest.param(lambda: with_value(np.nan), "1 values are not finite. Found nan", id="nan"),
        pytest.param(lambda: with_value(np.inf), "not finite. Found inf", id="infinite"),
        pytest.param(lambda: with_value(1e300, dtype="f8"), "not finite", id="too_large_for_float"),
        pytest.param(lambda: with_value(-1e-60, dtype="f8"), "negative", id="negative_if_exact"),
        pytest.param(lambda: with_value(-3, log1p=False), "negative", id="negative_count"),
        pytest.param(lambda: with_value(15), "1 values are 15 or more", id="large_log1p"),
        pytest.param(
            lambda: with_value(15 - 1e-9, dtype="f8"), "15 or more", id="large_when_rounded"
        ),
        pytest.param(mixed, "mixes counts and log1p values. Found 20 cells", id="mixed"),
        pytest.param(nothing, "every value is zero", id="nothing"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, make, said):
    assert said in refused(make(), tmp_path)


def test_a_wrong_value_is_found_where_it_is(tmp_path):
    assert "in cell 'c5', gene 'G7'" in refused(with_value(-1), tmp_path)


def test_large_counts_are_counts(tmp_path):
    data = with_value(4000, log1p=False)
    done = prepare(saved(data, tmp_path / "p.h5ad"), str(tmp_path / "p.vcc"), RULES)
    assert done.scale == "counts"


@pytest.mark.parametrize(
    ("out", "error", "said"),
    [
        pytest.param("p.h5ad", FileExistsError, "never overwritten", id="exists"),
        pytest.param("p.tar", DataError, "NAME.vcc", id="other_ending"),
        pytest.param("none/p.vcc", DataError, "no folder", id="no_folder"),
    ],
)
def test_an_output_that_cannot_be_meant_is_refused(tmp_path, out, error, said):
    source = saved(screen(), tmp_path / "p.h5ad")
    with pytest.raises(error, match=said):
        prepare(source, str(tmp_path / out), RULES)
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5ad"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    source = saved(screen(), tmp_path / "p.h5ad")
    monkeypatch.setattr("harness.challenge.submission.pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, str(tmp_path / "p.vcc"), RULES)
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5ad"]


def test_a_truncated_prediction_is_refused(tmp_path):
    path = tmp_path / "p.h5ad"
    saved(screen(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="damaged, cut short"):
        prepare(str(path), str(tmp_path / "p.vcc"), RULES)
    assert [found.name for found in tmp_path.iterdir()] == ["p.h5ad"]
