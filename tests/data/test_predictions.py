"""Predictions: written and read back, broken answers refused, foreign files read alike."""

from __future__ import annotations

import os
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.data.predictions import (
    PredictionWriter,
    is_store,
    open_predictions,
    with_controls,
    write_profiles,
)
from harness.errors import DataError, ModelError
from harness.kernels.threads import Limits
from harness.models import make_model, with_cells
from harness.tasks import parse_split
from harness.tasks.task import Prediction, Task
from harness.testing import tiny_screen


@pytest.fixture(scope="module")
def task():
    screen = tiny_screen(n_perturbations=6, n_combinations=0, n_cells=5)
    return Task(screen, parse_split({"kind": "unseen-perturbation", "folds": 3}))


@pytest.fixture(scope="module")
def answers(task):
    view = task.train_view()
    model = make_model("perturbation-mean").fit(view)
    return list(with_cells(model.predict(task.queries()), view, "shift-controls"))


def writer(task, path, **options):
    options.setdefault("controls", task.shown_controls())
    return PredictionWriter(
        str(path),
        task.queries(),
        genes=task.store.genes,
        control_label="control",
        model="mine",
        **options,
    )


def written(task, answers, path, **options):
    with writer(task, path, **options) as out:
        for answer in answers:
            out.add(answer)
        return out, out.finish()


def rows_of(cells, query):
    return (cells.perturbations == query.perturbation) & (cells.contexts == query.context)


def test_what_was_predicted_is_read_back_with_the_shown_controls(task, answers, tmp_path):
    written(task, answers, tmp_path / "p.zarr")
    cells = open_predictions(str(tmp_path / "p.zarr"))
    block = cells.gene_block(0, 60)
    assert (cells.genes, cells.control_label, cells.scale) == (task.store.genes, "control", "log1p")
    assert cells.n_cells == len(block)
    for answer in answers:
        np.testing.assert_array_equal(block[rows_of(cells, answer.query)], answer.cells)
    controls = block[(cells.perturbations == "control") & (cells.contexts == "c1")]
    np.testing.assert_array_equal(controls, task.train_view().controls("c1"))


def test_a_block_of_genes_is_that_block_of_the_cells(task, answers, tmp_path):
    _, cells = written(task, answers, tmp_path / "p.zarr")
    np.testing.assert_array_equal(cells.gene_block(7, 9), cells.gene_block(0, 60)[:, 7:9])


def test_anndata_opens_a_prediction(task, answers, tmp_path):
    _, cells = written(task, answers, tmp_path / "p.zarr")
    annotated = ad.read_zarr(tmp_path / "p.zarr")
    assert list(annotated.obs["perturbation"]) == list(cells.perturbations)
    assert list(annotated.obs["context"]) == list(cells.contexts)
    assert tuple(annotated.var_names) == task.store.genes
    np.testing.assert_array_equal(annotated.X, cells.gene_block(0, 60))


def test_a_scratch_prediction_reads_its_controls_where_they_lie(task, answers, tmp_path):
    _, whole = written(task, answers, tmp_path / "whole.zarr")
    written(task, answers, tmp_path / "scratch.zarr", controls=None, compression="none")
    cells = with_controls(str(tmp_path / "scratch.zarr"), task.shown_controls())
    order = np.lexsort((cells.contexts, cells.perturbations == "control"))
    other = np.lexsort((whole.contexts, whole.perturbations == "control"))
    np.testing.assert_array_equal(cells.perturbations[order], whole.perturbations[other])
    np.testing.assert_array_equal(cells.gene_block(0, 60)[order], whole.gene_block(0, 60)[other])


def test_profiles_are_the_means_of_the_cells(task, answers, tmp_path):
    out, _ = written(task, answers, tmp_path / "p.zarr")
    view = task.train_view()
    write_profiles(
        str(tmp_path / "profiles.zarr"),
        task.queries(),
        out.profiles,
        genes=task.store.genes,
        control_label="control",
        controls={context: view.control_pseudobulk(context) for context in ("c0", "c1")},
    )
    cells = open_predictions(str(tmp_path / "profiles.zarr"))
    assert cells.n_cells == len(answers) + 2
    for answer in answers:
        np.testing.assert_allclose(
            cells.gene_block(0, 60)[rows_of(cells, answer.query)][0],
            answer.cells.mean(axis=0, dtype=float),
            rtol=1e-12,
        )


def test_what_its_process_deletes_reads_the_same_and_waits_for_no_disk(
    task, answers, tmp_path, monkeypatch
):
    _, whole = written(task, answers, tmp_path / "whole.zarr")
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    _, brief = written(task, answers, tmp_path / "brief.zarr", temporary=True)
    assert flushed == []
    np.testing.assert_array_equal(brief.gene_block(0, 60), whole.gene_block(0, 60))
    np.testing.assert_array_equal(brief.perturbations, whole.perturbations)
    assert brief.fingerprint == whole.fingerprint


# --- broken answers -----------------------------------------------------------------------------


def broken(cells, value):
    cells = cells.copy()
    cells[2, 4] = value
    return cells


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda c: None, "found no cells", id="profile_only"),
        pytest.param(lambda c: c[:, 1:], r"shape \(5, 59\), expected \(5, 60\)", id="genes"),
        pytest.param(lambda c: c[1:], r"shape \(4, 60\), expected \(5, 60\)", id="cells"),
        pytest.param(lambda c: broken(c, np.nan), "1 values that are NaN in 'G04'", id="nan"),
        pytest.param(lambda c: broken(c, np.inf), "1 values that are infinite in 'G04'", id="inf"),
        pytest.param(
            lambda c: broken(c, -1e-6), "1 values that are negative in 'G04'", id="negative"
        ),
        pytest.param(lambda c: broken(c, 20), "above 15, counts", id="counts"),
        pytest.param(lambda c: c.astype(int), "values of type int64", id="integers"),
    ],
)
def test_a_broken_answer_names_model_and_query_and_leaves_no_file(
    task, answers, tmp_path, change, message
):
    query = answers[0].query
    asked = Prediction(query, cells=change(answers[0].cells))
    with (
        pytest.raises(ModelError, match=rf"mine, .*'{query.perturbation}' in 'c0': .*{message}"),
        writer(task, tmp_path / "p.zarr") as out,
    ):
        out.add(asked)
    assert list(tmp_path.iterdir()) == []


def test_a_query_answered_twice_is_refused(task, answers, tmp_path):
    with writer(task, tmp_path / "p.zarr") as out:
        out.add(answers[0])
        with pytest.raises(ModelError, match="was answered before"):
            out.add(answers[0])


def test_a_query_out_of_order_is_refused(task, answers, tmp_path):
    with writer(task, tmp_path / "p.zarr") as out, pytest.raises(ModelError, match="out of order"):
        out.add(answers[1])


def test_what_nobody_asked_for_is_refused(task, answers, tmp_path):
    other = type(answers[0].query)("G00", "c9", (), 5)
    asked = Prediction(other, cells=answers[0].cells)
    with writer(task, tmp_path / "p.zarr") as out, pytest.raises(ModelError, match="nobody asked"):
        out.add(asked)


def test_a_missing_answer_is_named(task, answers, tmp_path):
    last = answers[-1].query
    with writer(task, tmp_path / "p.zarr") as out:
        for answer in answers[:-1]:
            out.add(answer)
        with pytest.raises(ModelError, match=rf"left 1 of 4 .*'{last.perturbation}', 'c1'"):
            out.finish()
    assert not (tmp_path / "p.zarr").exists()


# --- foreign files ------------------------------------------------------------------------------


@pytest.fixture
def annotated(rng):
    cells = rng.poisson(1.0, size=(12, 4)).astype("f4") * 0.5
    labels = [["non-targeting", "A", "B"][i] for i in rng.integers(3, size=12)]
    obs = pd.DataFrame({"target_gene": labels, "line": ["x", "y"] * 6}, index=list("abcdefghijkl"))
    return ad.AnnData(cells, obs=obs, var=pd.DataFrame(index=["A", "B", "C", "D"]))


FORMATS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}


# Anndata's own, on writing the Zarr version that is still its default.
@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")
@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["in_memory", "spilled"])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("layout", FORMATS)
def test_foreign_files_read_alike_in_any_format(annotated, tmp_path, layout, ending, memory):
    dense = annotated.X
    annotated.X = FORMATS[layout](dense)
    path = tmp_path / f"p.{ending}"
    getattr(annotated, f"write_{ending}")(path)
    cells = open_predictions(
        str(path),
        perturbation_column="target_gene",
        context_column="line",
        control_label="non-targeting",
        limits=Limits(memory=memory),
    )
    block = cells.gene_block(1, 3)
    block = block.toarray() if sparse.issparse(block) else block
    np.testing.assert_array_equal(block, dense[:, 1:3])
    np.testing.assert_array_equal(cells.library_sizes(), dense.sum(axis=1))
    assert list(cells.perturbations) == list(annotated.obs["target_gene"])
    assert list(cells.contexts) == ["x", "y"] * 6
    assert (cells.genes, cells.scale, cells.n_cells) == (("A", "B", "C", "D"), "log1p", 12)


@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["in_memory", "spilled"])
def test_integers_are_counts_unless_said_otherwise(annotated, tmp_path, memory):
    annotated.X = annotated.X * 2
    annotated.write_h5ad(tmp_path / "p.h5ad")

    def scale(said):
        return open_predictions(
            str(tmp_path / "p.h5ad"),
            perturbation_column="target_gene",
            context_column=None,
            control_label="non-targeting",
            scale=said,
            limits=Limits(memory=memory),
        ).scale

    assert (scale(None), scale("log1p")) == ("counts", "log1p")


def test_a_foreign_file_is_told_from_a_prediction_of_ours(task, answers, annotated, tmp_path):
    written(task, answers, tmp_path / "ours.zarr")
    annotated.write_h5ad(tmp_path / "theirs.h5ad")
    assert is_store(str(tmp_path / "ours.zarr"))
    assert not is_store(str(tmp_path / "theirs.h5ad"))
    theirs = open_predictions(str(tmp_path / "theirs.h5ad"))
    assert theirs.control_label == "non-targeting"


def test_a_column_that_is_not_there_gets_a_near_match(annotated, tmp_path):
    annotated.write_h5ad(tmp_path / "p.h5ad")
    with pytest.raises(DataError, match="Did you mean 'target_gene'"):
        open_predictions(str(tmp_path / "p.h5ad"), perturbation_column="target_genes")


def test_stored_cells_survive_pickling(task, answers, tmp_path):
    _, cells = written(task, answers, tmp_path / "p.zarr")
    again = pickle.loads(pickle.dumps(cells))
    np.testing.assert_array_equal(again.gene_block(0, 5), cells.gene_block(0, 5))
