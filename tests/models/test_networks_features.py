"""Networks that are told of perturbations by co-expression, or by a table that the user gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from harness.analysis.results import Results
from harness.errors import ModelError
from harness.models import make_model, notes
from harness.runs.plan import plan_job
from harness.runs.runner import run_job
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import check_model, tiny_screen

pytest.importorskip("torch", reason="networks need the extra `torch`")

from harness.models.networks.encoding import Encoding

NETWORKS = ["conditional-autoencoder", "decoder-only", "latent-additive", "set-transformer"]


@pytest.fixture(scope="module")
def task():
    return Task(tiny_screen(n_cells=16), parse_split({"kind": "few-shot-context"}))


@pytest.fixture
def table(task, tmp_path):
    """Write a table that has, for every perturbation of the screen, numbers of its own."""

    def write(*, without=(), also=None, n_columns=3):
        rng = np.random.default_rng(0)
        names = [name for name in _names(task) if name not in without]
        values = {name: rng.normal(size=n_columns) for name in names} | (also or {})
        path = tmp_path / "table.csv"
        lines = [",".join([name, *map(str, row)]) for name, row in values.items()]
        head = ",".join(["name", *(f"f{i}" for i in range(n_columns))])
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return str(path), values

    return write


def _names(task):
    view = task.train_view()
    return sorted({*view.perturbations, *(query.perturbation for query in task.queries())})


def test_a_table_stands_in_for_the_features_of_targets(task, table):
    path, values = table()
    encoding = Encoding(task.train_view(), 16, path)
    name = encoding._train.perturbations[0]
    found = encoding.perturbation(name, ("G01",))[len(encoding.names) :]
    rows = np.array(list(values.values()))
    expected = (values[name] - rows.mean(axis=0)) / rows.std(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert encoding.n_features == 3
    assert len(encoding.context(task.train_view().contexts[0])) == (
        len(encoding.contexts) + encoding.rank
    )


def test_a_wide_table_is_narrowed_to_the_rank(task, table):
    path, _ = table(n_columns=7)
    assert Encoding(task.train_view(), 4, path).n_features == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_an_unseen_perturbation_is_answered_like_one_with_the_same_features(task, table, name):
    view = task.train_view()
    known = view.perturbations[0]
    rng = np.random.default_rng(0)  # as `table` draws
    alike = {n: rng.normal(size=3) for n in _names(task)}[known]
    path, _ = table(also={"new": alike, "other": alike + 2})
    told = {"features": path, "embedding": "targets", "epochs": 3}
    model = make_model(name, told, seed=1).fit(view)
    query = replace(task.queries()[0], perturbation=known, targets=())
    profiles = {
        perturbation: next(iter(model.predict([replace(query, perturbation=perturbation)]))).profile
        for perturbation in (known, "new", "other")
    }
    if name != "set-transformer":  # which draws its controls by the query's name
        np.testing.assert_array_equal(profiles["new"], profiles[known])
    assert np.abs(profiles["other"] - profiles[known]).max() > 1e-6
    assert notes(model) == ()


def test_co_expression_tells_of_targets(task):
    view = task.train_view()
    encoding = Encoding(view, 4, "co-expression")
    told = encoding.perturbation("G01", ("G01",))[len(encoding.names) :]
    assert len(told) == encoding.n_features <= 4
    assert np.abs(told).max() > 0
    assert not encoding.knows("compound", ())
    make_model("decoder-only", {"features": "co-expression", "epochs": 1}).fit(view)


def test_a_row_that_training_needs_is_an_error_with_a_count(task, table):
    singles = [name for name in task.train_view().perturbations if "+" not in name]
    lacking = singles[:2]
    path, _ = table(without=lacking)
    with pytest.raises(ModelError, match="no row for 2 of the genes or perturbations"):
        make_model("decoder-only", {"features": path, "epochs": 0}).fit(task.train_view())


def test_a_row_that_a_query_needs_is_an_error_before_anything_is_answered(task, table):
    path, _ = table()
    model = make_model("latent-additive", {"features": path, "epochs": 0}).fit(task.train_view())
    asked = task.queries()
    unknown = [replace(asked[0], perturbation=name, targets=()) for name in ("x", "y")]
    with pytest.raises(ModelError, match="no row for 2 of"):
        next(model.predict([*asked, *unknown]))


def test_what_lacks_a_row_is_told_by_its_name_where_that_is_allowed(task, table):
    known = task.train_view().perturbations[0]
    path, _ = table(without=[known])
    told = {"features": path, "missing": "mean-effect", "epochs": 1}
    model = make_model("decoder-only", told).fit(task.train_view())
    query = task.queries()[0]
    asked = [replace(query, perturbation=name, targets=()) for name in (known, "compound")]
    assert len(list(model.predict(asked))) == 2
    [note] = notes(model)
    assert note.startswith("compound")
    assert "has no features, the mean effect is used" in note


def test_a_table_is_part_of_a_networks_trial_by_its_content(tmp_path):
    job = tmp_path / "job.yaml"
    file = tmp_path / "f.csv"

    def planned():
        report = plan_job(str(job), str(tmp_path / "run"))
        return [trial.id for trial in report.trials]

    job.write_text(
        yaml.safe_dump(
            {
                "dataset": "sim:tiny?contexts=1&genes=60",
                "split": "unseen-perturbation",
                "folds": [0],
                "models": [{"model": "decoder-only", "epochs": 1, "features": str(file)}],
            }
        ),
        encoding="utf-8",
    )
    file.write_text("gene,a\nX,1\n", encoding="utf-8")
    first = planned()
    file.write_text("gene,a\nX,2\n", encoding="utf-8")
    assert planned() != first
    report = run_job(str(job), str(tmp_path / "run"), "inline")
    [(_, outcome)] = report.failures
    assert "no row for" in outcome.error
    assert Results(str(tmp_path / "run")).trials["state"].tolist() == ["failed"]


@pytest.fixture(scope="module")
def unseen():
    """One context without combinations: what is asked for is known by no name."""
    screen = tiny_screen(contexts=("c0",), n_combinations=0)
    return Task(screen, parse_split({"kind": "unseen-perturbation"}))


@pytest.fixture
def rows(tmp_path):
    """Write a table with a row for each of some names."""

    def write(names, n_columns=4):
        values = np.random.default_rng(0).normal(3, 2, size=(len(names), n_columns))
        frame = pd.DataFrame(values, index=pd.Index(names, name="gene"))
        frame.to_csv(tmp_path / "rows.csv")
        return str(tmp_path / "rows.csv")

    return write


@pytest.mark.parametrize("name", NETWORKS)
def test_what_nothing_tells_gets_the_mean_effect_where_a_table_lacks_it(unseen, rows, name):
    view, queries = unseen.train_view(), unseen.queries()
    told = {"features": rows(view.perturbations), "missing": "mean-effect", "epochs": 2}
    model = make_model(name, told).fit(view)
    mean = make_model("perturbation-mean").fit(view)
    for one, other in zip(model.predict(queries), mean.predict(queries), strict=True):
        np.testing.assert_allclose(one.profile, other.profile, atol=1e-5)
    assert len(notes(model)) == len(queries)
    assert "not trained on and has no features, the mean effect is used" in notes(model)[0]


def test_by_names_alone_a_new_one_gets_a_note_though_its_target_is_a_gene(unseen):
    queries = unseen.queries()
    model = make_model("decoder-only", {"embedding": "names", "epochs": 1}).fit(unseen.train_view())
    list(model.predict(queries))
    assert [note.partition(" in ")[0] for note in notes(model)] == [
        query.perturbation for query in queries
    ]
    assert "it was not trained on, the network cannot tell it" in notes(model)[0]


def test_by_names_alone_a_table_is_asked_for_nothing(unseen, rows):
    told = {"features": rows(["elsewhere"]), "embedding": "names", "epochs": 1}
    model = make_model("decoder-only", told).fit(unseen.train_view())
    assert len(list(model.predict(unseen.queries()))) == len(unseen.queries())


@pytest.mark.parametrize(
    ("embedding", "known"), [("both", True), ("names", True), ("targets", False)]
)
def test_a_trained_name_tells_where_names_are_told(task, rows, embedding, known):
    view = task.train_view()
    name, *others = view.perturbations
    path = rows([other for other in others if name not in other.split("+")])
    assert Encoding(view, 16, path, "mean-effect", embedding).knows(name, ()) is known


def test_the_sign_of_what_is_computed_is_not_the_library_s(unseen, monkeypatch):
    view, eigh = unseen.train_view(), np.linalg.eigh
    first = Encoding(view, 5, "co-expression").perturbation("G03", ("G03",))

    def turned(matrix):
        values, vectors = eigh(matrix)
        return values, -vectors

    monkeypatch.setattr(np.linalg, "eigh", turned)
    found = Encoding(view, 5, "co-expression").perturbation("G03", ("G03",))
    np.testing.assert_allclose(found, first, atol=1e-6)


def test_a_constant_column_tells_nothing_however_large(unseen, tmp_path):
    names = unseen.train_view().genes
    frame = pd.DataFrame({"a": 0.1e9, "b": np.arange(60.0)}, index=pd.Index(names, name="gene"))
    frame.to_csv(tmp_path / "constant.csv")
    encoding = Encoding(unseen.train_view(), 16, str(tmp_path / "constant.csv"))
    told = encoding.perturbation("G03", ("G03",))[len(encoding.names) :]
    assert told[0] == 0
    assert told[1] != 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_a_table_keeps_the_contract(rows, name):
    check_model(name, features=rows([f"G{i:02d}" for i in range(60)]), epochs=1)
