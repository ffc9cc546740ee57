"""Features of perturbations: computed from what may be seen, or read from a user's table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.config.input_file import InputFile, choices, is_file, takes_file
from harness.errors import DataError, ModelError
from harness.models import make_model, notes, parameters_of
from harness.models.features import features_of, principal_scores
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import tiny_screen


@pytest.fixture(scope="module")
def task():
    return Task(tiny_screen(), parse_split({"kind": "unseen-combination", "folds": 2}))


@pytest.fixture(scope="module")
def view(task):
    return task.train_view()


@pytest.fixture
def table(tmp_path):
    """Write a table as a file of some kind; return its path."""

    def write(values, suffix="csv"):
        path = tmp_path / f"genes.{suffix}"
        frame = pd.DataFrame.from_dict(values, orient="index").rename_axis("gene")
        if suffix == "npz":
            np.savez(path, names=np.array(list(values)), values=frame.to_numpy())
        elif suffix == "parquet":
            frame.rename(columns=str).to_parquet(path)
        else:
            frame.to_csv(path, sep="\t" if suffix == "tsv" else ",")
        return str(path)

    return write


def genes_of(view, n=60):
    return {gene: [float(i), 1.0, -2.5] for i, gene in enumerate(view.genes[:n])}


# --- computed -----------------------------------------------------------------------------------


def test_principal_components_are_those_of_the_training_pseudobulks(view):
    found = features_of(view, "principal-components", 4).values
    bulks = np.array([view.pseudobulk(*pair) for pair in view.pairs]).T
    U, s, _ = np.linalg.svd(bulks - bulks.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(U[:, :4] * s[:4]), rtol=1e-6)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)], ids=["more_rows", "more_columns"])
def test_principal_scores_do_not_depend_on_which_product_is_taken(rng, shape):
    observed = rng.normal(size=shape)
    U, s, _ = np.linalg.svd(observed - observed.mean(axis=0), full_matrices=False)
    found = principal_scores(observed, 3)
    np.testing.assert_allclose(np.abs(found), np.abs(U[:, :3] * s[:3]), rtol=1e-6)


def test_co_expressed_genes_have_features_whose_product_is_their_correlation(view):
    found = features_of(view, "co-expression", 60).values
    cells = [view.controls(context) for context in view.contexts]
    standard = np.concatenate([(c - c.mean(axis=0)) / c.std(axis=0) for c in cells])
    np.testing.assert_allclose(found @ found.T, standard.T @ standard / len(standard), atol=1e-4)


def test_co_expression_is_the_same_where_genes_outnumber_cells(view, monkeypatch):
    # 12 cells of each context: fewer than the 60 genes.
    monkeypatch.setattr("harness.models.features.CONTROL_BYTES", 4 * 60 * 2 * 12)
    found = features_of(view, "co-expression", 60).values
    cells = [view.controls(context, 12) for context in view.contexts]
    spread = [np.where(c.std(axis=0) > 0, c.std(axis=0), np.inf) for c in cells]
    pairs = zip(cells, spread, strict=True)
    standard = np.concatenate([(c - c.mean(axis=0)) / s for c, s in pairs])
    np.testing.assert_allclose(found @ found.T, standard.T @ standard / 24, atol=1e-4)


def test_a_combination_has_the_sum_of_its_parts_and_an_unmeasured_target_nothing(view):
    features = features_of(view, "principal-components", 4)
    np.testing.assert_allclose(features.of("G00+G01"), features.of("G00") + features.of("G01"))
    assert features.of("drug") is None
    assert features.of("G00+drug") is None


def test_by_identity_a_combination_is_like_its_parts_and_a_new_one_like_nothing(view):
    features = features_of(view, "identity")
    assert features.names == tuple(sorted({p for n in view.perturbations for p in n.split("+")}))
    np.testing.assert_array_equal(features.values, np.eye(len(features.names)))
    np.testing.assert_array_equal(features.of("G01+G02"), features.of("G01") + features.of("G02"))
    assert features.of("new") is None
    assert features.of("G00+new") is None


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "npz"])
def test_a_table_is_read_whatever_its_format(view, table, suffix):
    features = features_of(view, table(genes_of(view), suffix))
    assert features.n_features == 3
    np.testing.assert_array_equal(features.of("G07"), [7.0, 1.0, -2.5])
    np.testing.assert_array_equal(features.of("G01+G02"), [3.0, 2.0, -5.0])


def test_a_row_for_a_combination_itself_comes_first(view, table):
    path = table({**genes_of(view), "G01+G02": [9.0, 9.0, 9.0]})
    np.testing.assert_array_equal(features_of(view, path).of("G01+G02"), [9.0, 9.0, 9.0])


def test_a_gene_whose_name_reads_like_a_missing_value_keeps_it(view, table):
    features = features_of(view, table({**genes_of(view), "NA": [1.0, 2.0, 3.0]}))
    np.testing.assert_array_equal(features.of("NA"), [1.0, 2.0, 3.0])


def test_fewer_features_of_a_table_are_its_leading_components(view, table, rng):
    values = {gene: rng.normal(size=8).tolist() for gene in view.genes}
    observed = np.array(list(values.values()))
    found = features_of(view, table(values), 2).values
    np.testing.assert_allclose(np.abs(found), np.abs(principal_scores(observed, 2)), rtol=1e-6)
    assert features_of(view, table(values), 99).n_features == 8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("g.txt", b"", r"ends in '\.csv', '\.tsv'", id="suffix"),
        pytest.param("g.csv", b"gene,a\nX,1\nX,2\n", "1 names are given twice: 'X'", id="twice"),
        pytest.param("g.csv", b"gene,a\nX,\nY,2\n", "1 of 1 columns .* lack some: 'a'", id="gap"),
        pytest.param(
            "g.csv", b"gene,a\nX,1e200\nY,2\n", "numbers below 1e\\+100 in size", id="huge"
        ),
        pytest.param(
            "g.csv", b"gene,a\nX,inf\nY,2\n", "NaN or infinite values: 'X'", id="infinite"
        ),
        pytest.param("g.csv", b"gene\nX\n", "expected one row of at least one number", id="bare"),
        pytest.param(
            "g.csv", b"a,b\nX,1,2\nY,2,3\n", "header has 2 fields and its rows have more", id="r"
        ),
        pytest.param("g.parquet", b"no", "cannot be read as a table of features", id="parquet"),
        pytest.param("g.npz", b"no", "cannot be read as a table of features", id="npz"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(view, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        features_of(view, str(tmp_path / name))


def test_a_table_that_is_not_there_is_named(view):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: there is no such file"):
        features_of(view, "none.csv")


def test_an_npz_without_names_says_which_arrays_it_has(view, tmp_path):
    np.savez(tmp_path / "g.npz", embeddings=np.ones((2, 2)))
    with pytest.raises(DataError, match="found arrays 'embeddings', expected names and values"):
        features_of(view, str(tmp_path / "g.npz"))


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        pytest.param([["X"], ["Y"]], [[1.0], [2.0]], r"names` has type <U1 and shape \(2, 1\)"),
        pytest.param([1, 2], [[1.0], [2.0]], r"names` has type int64", id="numbers"),
        pytest.param(["X", "Y"], [[1j], [2.0]], "values` has type complex128", id="complex"),
        pytest.param(["X", "Y"], [["1"], ["2"]], "values` has type <U1", id="text"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(view, tmp_path, names, values, message):
    np.savez(tmp_path / "g.npz", names=names, values=values)
    with pytest.raises(DataError, match=message):
        features_of(view, str(tmp_path / "g.npz"))


def test_names_in_bytes_are_names(view, tmp_path):
    np.savez(tmp_path / "g.npz", names=np.array(["G00"], dtype="S"), values=[[1.0, 2.0]])
    np.testing.assert_array_equal(features_of(view, str(tmp_path / "g.npz")).of("G00"), [1.0, 2.0])


def test_an_index_of_two_levels_is_refused(view, tmp_path):
    frame = pd.DataFrame(
        {"a": [1.0]}, index=pd.MultiIndex.from_tuples([("X", 1)], names=["g", "n"])
    )
    frame.to_parquet(tmp_path / "g.parquet")
    with pytest.raises(DataError, match=r"index has 2 levels: 'g', 'n'\. Expected one"):
        features_of(view, str(tmp_path / "g.parquet"))


@pytest.mark.parametrize("model", ["ridge", "kernel-ridge", "nearest-neighbours", "bilinear"])
def test_names_that_a_table_lacks_are_counted_and_named(view, table, model):
    path = table(genes_of(view, n=2))
    # The parts of combinations are named, not the combinations: they are what the table needs.
    said = (
        r"no row for 10 of the genes or perturbations .*: 'G02', .*'G09' and 2 more\. "
        r"Its rows are named 'G00', 'G01'\. Add them"
    )
    with pytest.raises(ModelError, match=said):
        make_model(model, {"features": path}).fit(view)


def test_what_a_table_lacks_gets_the_mean_effect_and_a_note_where_that_is_asked_for(task, table):
    view, queries = task.train_view(), task.queries()
    known = genes_of(view, n=1)
    model = make_model("ridge", {"features": table(known), "missing": "mean-effect"}).fit(view)
    mean = make_model("perturbation-mean").fit(view)
    for one, other in zip(model.predict(queries), mean.predict(queries), strict=True):
        np.testing.assert_allclose(one.profile, other.profile)
    assert len(notes(model)) == len(queries)
    assert "genes.csv has no row for it, the mean effect is used" in notes(model)[0]


def test_a_query_that_a_table_lacks_is_refused_before_any_answer(table):
    task = Task(tiny_screen(n_combinations=0), parse_split({"kind": "unseen-perturbation"}))
    view, queries = task.train_view(), task.queries()
    known = {name: [1.0, float(i)] for i, name in enumerate(view.perturbations)}
    model = make_model("ridge", {"features": table(known)}).fit(view)
    with pytest.raises(ModelError, match=f"no row for .*'{queries[0].perturbation}'"):
        next(model.predict(queries))


# --- files as parameters ------------------------------------------------------------------------


def test_a_parameter_says_that_it_may_be_a_file():
    annotation = parameters_of("ridge")["features"].annotation
    assert takes_file(annotation)
    assert choices(annotation) == ("principal-components", "co-expression", "identity")
    assert is_file(annotation, "genes.csv")
    assert not is_file(annotation, "co-expression")
    assert not is_file(annotation, None)
    assert not takes_file(parameters_of("linear")["rank"].annotation)
    assert is_file(InputFile, "weights.pt")
