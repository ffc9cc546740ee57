"""Penalties that are chosen by leaving training perturbations out."""

from __future__ import annotations

import numpy as np
import pytest

from harness.config.parameter_checks import accepts
from harness.data import StoreCells
from harness.models import feature_regression, linear, make_model, notes, parameters_of
from harness.models.effects import parts_of
from harness.models.linear import RIDGES
from harness.models.penalty_choice import FOLDS, left_out
from harness.models.residuals import PENALTIES
from harness.tasks import Query, Task, parse_split
from harness.testing import CONTRACT, Case, MemoryScreen, tiny_screen

SPLITS = ["unseen-perturbation", "few-shot-context", "unseen-combination"]
MODELS = {
    "linear": ("ridge", RIDGES, {"rank": 4}),
    "ridge": ("penalty", PENALTIES, {"n_features": 5}),
    "kernel-ridge": ("penalty", PENALTIES, {"n_features": 5}),
    "bilinear": ("penalty", PENALTIES, {"n_features": 5, "rank": 2}),
}


def view_of(kind="unseen-perturbation", screen=None, **keys):
    screen = screen or tiny_screen(n_combinations=6)
    return Task(screen, parse_split({"kind": kind, **keys})).train_view()


def queries_of(view, pairs):
    return [Query(p, c, view.targets(p), view.n_cells(p, c)) for p, c in pairs]


def chosen(model):
    return model.ridge_ if hasattr(model, "ridge_") else model.penalty_


def error_of(model, view, pairs):
    """The squared error of profiles, summed over pairs."""
    answers = model.predict(queries_of(view, pairs))
    pairs = [(a.profile, view.pseudobulk(a.query.perturbation, a.query.context)) for a in answers]
    return sum(((found - true) ** 2).sum() for found, true in pairs)


@pytest.fixture
def coarse(monkeypatch):
    """Every third penalty, so that a loop of fits ends soon."""
    monkeypatch.setattr(linear, "RIDGES", RIDGES[::3])
    monkeypatch.setattr(feature_regression, "PENALTIES", PENALTIES[::3])


def brute_force(name, view, **more):
    """The error of each third penalty, by a fit of its own for each fold."""
    parameter, grid, others = MODELS[name]
    total = dict.fromkeys(grid[::3].tolist(), 0.0)
    for seen, pairs in left_out(view):
        for penalty in total:
            model = make_model(name, {**others, **more, parameter: penalty})
            total[penalty] += error_of(model.fit(seen), view, pairs)
    return total


def fitted(name, view, **more):
    parameter, _, others = MODELS[name]
    return make_model(name, {**others, **more, parameter: "validation"}).fit(view)


# --- which perturbations are left out -----------------------------------------------------------


@pytest.mark.parametrize("kind", SPLITS)
def test_nothing_of_what_is_predicted_is_left_in(kind):
    view = view_of(kind, tiny_screen(n_combinations=10))
    for seen, pairs in left_out(view):
        genes = {gene for pair in pairs for gene in parts_of(pair.perturbation, view)}
        assert not genes & {g for name in seen.perturbations for g in parts_of(name, view)}
        assert seen.pairs
        assert set(seen.pairs) < set(view.pairs)
        assert {pair for pair in view.pairs if pair.perturbation in seen.perturbations} == {
            *seen.pairs
        }


def test_each_single_perturbation_is_left_out_once_in_all_its_contexts():
    view = view_of("few-shot-context")
    pairs = [pair for _, some in left_out(view) for pair in some]
    singles = [p for p in view.pairs if len(parts_of(p.perturbation, view)) == 1]
    assert len(pairs) == len(set(pairs))
    assert set(singles) <= set(pairs)
    assert len(list(left_out(view))) == FOLDS


def test_with_few_perturbations_there_are_as_many_folds():
    view = view_of("few-shot-context", tiny_screen(n_perturbations=4, n_combinations=0))
    names = sorted({p for p, _ in view.pairs})
    assert sorted(p for _, some in left_out(view) for p in {p for p, _ in some}) == names
    assert len(list(left_out(view))) == len(names) < FOLDS


def test_folds_depend_on_names_alone():
    """Written down once: another process, or another screen of these names, has the same."""
    for seed in (0, 5):
        view = view_of("zero-shot-context", tiny_screen(n_combinations=2, seed=seed))
        folds = [" ".join(sorted({p for p, _ in pairs})) for _, pairs in left_out(view)]
        assert folds == ["G07 G08 G09", "G00 G04 G06", "G03 G05", "G02 G10", "G01 G11"]


# --- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.usefixtures("coarse")
def test_the_penalty_is_that_of_a_loop_of_fits(name, kind):
    view = view_of(kind)
    total = brute_force(name, view)
    model = fitted(name, view)
    assert chosen(model) == min(total, key=total.get)
    assert len({round(error, 6) for error in total.values()}) > 1
    declared = make_model(name, {**MODELS[name][2], MODELS[name][0]: chosen(model)}).fit(view)
    for one, other in zip(
        model.predict(queries_of(view, view.pairs)),
        declared.predict(queries_of(view, view.pairs)),
        strict=True,
    ):
        np.testing.assert_array_equal(one.profile, other.profile)


@pytest.mark.parametrize("name", ["ridge", "kernel-ridge", "bilinear"])
@pytest.mark.usefixtures("coarse")
def test_features_that_need_no_perturbation_are_computed_once(name, monkeypatch):
    view = view_of()
    total = brute_force(name, view, features="co-expression")
    calls = []
    real = feature_regression.features_of
    monkeypatch.setattr(feature_regression, "features_of", lambda *a: calls.append(a) or real(*a))
    assert chosen(fitted(name, view, features="co-expression")) == min(total, key=total.get)
    assert len(calls) == 1


@pytest.mark.parametrize("name", MODELS)
def test_what_is_chosen_is_not_worse_on_the_test_side_than_the_worst(name):
    task = Task(tiny_screen(), parse_split({"kind": "unseen-perturbation"}))
    view, truth = task.train_view(), {}
    for q in task.queries():
        rows = task._rows((q.perturbation, q.context))
        truth[q] = np.log1p(
            (c := task.store.rows(rows[0], rows[-1] + 1).astype(float))
            / c.sum(axis=1, keepdims=True)
            * task.store.library_size
        ).mean(axis=0)

    def error(model):
        return sum(((a.profile - truth[a.query]) ** 2).sum() for a in model.predict([*truth]))

    parameter, grid, others = MODELS[name]
    every = [error(make_model(name, {**others, parameter: p}).fit(view)) for p in grid.tolist()]
    assert error(fitted(name, view)) <= max(every)


@pytest.mark.parametrize("name", MODELS)
def test_the_note_says_which_and_is_said_anew(name):
    view = view_of()
    model = fitted(name, view)
    said = f"{MODELS[name][0]} {chosen(model):.4g} was chosen by leaving training perturbations out"
    for _ in range(2):
        list(model.predict(queries_of(view, view.pairs[:1])))
        assert [note.partition(", the largest")[0] for note in notes(model)] == [said]


@pytest.mark.parametrize("name", MODELS)
def test_a_declared_penalty_has_no_note(name):
    view = view_of()
    model = make_model(name, {**MODELS[name][2], MODELS[name][0]: 1.0}).fit(view)
    list(model.predict(queries_of(view, view.pairs[:1])))
    assert not [note for note in notes(model) if "chosen" in note or "default" in note]


@pytest.mark.parametrize("name", MODELS)
def test_a_single_perturbation_leaves_the_default_and_a_note(name):
    screen = tiny_screen(n_perturbations=2, n_combinations=0)
    view = view_of("few-shot-context", screen).without(["G01"])
    assert view.perturbations == ("G00",)
    model = fitted(name, view)
    default = make_model(name, MODELS[name][2]).fit(view)
    assert chosen(model) == chosen(default)
    list(model.predict(queries_of(view, view.pairs)))
    assert "is used, the default: no training perturbation can be left out" in notes(model)[0]


def test_identity_tells_nothing_of_what_is_left_out():
    model = fitted("ridge", view_of(), features="identity", n_features=None)
    assert "the default" in model.choice_.note
    assert model.penalty_ == make_model("ridge", {"features": "identity"}).fit(view_of()).penalty_


# --- what it must not see -----------------------------------------------------------------------


def with_other_cells(screen, perturbation):
    """The same screen, but for the cells of a perturbation, which are reversed in their genes."""
    cells = screen.rows(0, screen.ranges[-1].stop).copy()
    for r in screen.ranges:
        if r.perturbation == perturbation:
            cells[r.start : r.stop] = cells[r.start : r.stop, ::-1]
    return MemoryScreen(cells, screen.genes, screen.ranges)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_left_out_does_not_move_its_own_prediction(name, monkeypatch):
    monkeypatch.setattr(
        "harness.tasks.task.halved", lambda rows, half, *_: rows[half == "held" :: 2]
    )
    screen = tiny_screen()
    view = view_of("unseen-perturbation", screen)
    fold, (_, pairs) = next((i, f) for i, f in enumerate(left_out(view)) if f[1])
    changed = view_of("unseen-perturbation", with_other_cells(screen, pairs[0].perturbation))
    assert not np.allclose(view.pseudobulk(*pairs[0]), changed.pseudobulk(*pairs[0]))
    found = []
    for one in (view, changed):
        seen, same = list(left_out(one))[fold]
        assert same == pairs
        model = make_model(name, MODELS[name][2]).fit(seen)
        found.append([a.profile for a in model.predict(queries_of(one, pairs))])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", MODELS)
def test_pseudobulks_are_read_once(name, monkeypatch):
    read = []
    real = StoreCells.mean
    monkeypatch.setattr(StoreCells, "mean", lambda self: read.append(1) or real(self))
    view = view_of()
    fitted(name, view)
    assert len(read) == len(view.pairs) + len(view.contexts)
    assert view._shown._means is None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_the_contract_holds(name, clause):
    clause(Case(name, {MODELS[name][0]: "validation"}))


# --- in a job -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_type_takes_a_number_or_the_word(name):
    parameter = MODELS[name][0]
    annotation = parameters_of(name)[parameter].annotation
    assert all(accepts(annotation, value) for value in (0, 0.5, "validation"))
    assert not any(accepts(annotation, value) for value in (-1, "other", True))
    assert accepts(annotation, None) == (parameter == "penalty")
