"""Each model against its formula, the step to cells, and what must come out."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import ModelError
from harness.models import make_model, notes, with_cells
from harness.tasks import parse_split
from harness.tasks.task import Prediction, Task
from harness.testing import tiny_screen


def task_of(kind, **keys):
    screen = tiny_screen(contexts=("c0", "c1", "c2"))
    return Task(screen, parse_split({"kind": kind, **keys}))


@pytest.fixture(scope="module")
def few_shot():
    return task_of("few-shot-context", contexts=["c1"])


def predictions(task, name, **parameters):
    model = make_model(name, parameters)
    found = list(model.fit(task.train_view()).predict(task.queries()))
    return model, {answer.query: answer for answer in found}


def seen(view, context):
    return [p for p, c in view.pairs if c == context]


# --- definitions --------------------------------------------------------------------------------


def test_control_mean_predicts_no_effect(few_shot):
    view = few_shot.train_view()
    _, found = predictions(few_shot, "control-mean")
    for query, answer in found.items():
        np.testing.assert_array_equal(answer.profile, view.control_pseudobulk(query.context))


def test_perturbation_mean_adds_the_mean_effect_of_the_context(few_shot):
    view = few_shot.train_view()
    _, found = predictions(few_shot, "perturbation-mean")
    mean = np.mean([view.pseudobulk(p, "c1") for p in seen(view, "c1")], axis=0)
    for answer in found.values():
        np.testing.assert_allclose(answer.profile, mean, atol=1e-12)


def test_perturbation_mean_borrows_the_effect_of_other_contexts_and_says_so():
    task = task_of("zero-shot-context", contexts=["c2"])
    view = task.train_view()
    model, found = predictions(task, "perturbation-mean")
    means = [
        np.mean([view.effect(p, context) for p in seen(view, context)], axis=0)
        for context in ("c0", "c1")
    ]
    expected = view.control_pseudobulk("c2") + np.mean(means, axis=0)
    for answer in found.values():
        np.testing.assert_allclose(answer.profile, expected, atol=1e-12)
    assert len(notes(model)) == len(found)
    assert "mean effect of other contexts" in notes(model)[0]


def test_the_official_baseline_counts_the_control_among_the_pseudobulks(few_shot):
    view = few_shot.train_view()
    _, found = predictions(few_shot, "cell-eval-baseline")
    bulks = [view.pseudobulk(p, "c1") for p in seen(view, "c1")]
    expected = np.mean([*bulks, view.control_pseudobulk("c1")], axis=0)
    for answer in found.values():
        np.testing.assert_allclose(answer.profile, expected, atol=1e-12)


def test_context_transfer_takes_the_effect_from_the_other_contexts(few_shot):
    view = few_shot.train_view()
    model, found = predictions(few_shot, "context-transfer")
    for query, answer in found.items():
        effect = np.mean([view.effect(query.perturbation, c) for c in ("c0", "c2")], axis=0)
        np.testing.assert_allclose(
            answer.profile, view.control_pseudobulk("c1") + effect, atol=1e-12
        )
    assert notes(model) == ()


def test_context_transfer_says_where_it_had_nothing_to_transfer():
    task = task_of("unseen-perturbation")
    model, found = predictions(task, "context-transfer")
    _, mean = predictions(task, "perturbation-mean")
    assert len(notes(model)) == len(found)
    for query, answer in found.items():
        np.testing.assert_allclose(answer.profile, mean[query].profile, atol=1e-12)


def test_additive_sums_the_effects_of_the_parts():
    task = task_of("unseen-combination", folds=2)
    view = task.train_view()
    model, found = predictions(task, "additive")
    for query, answer in found.items():
        a, b = query.perturbation.split("+")
        sum_ = view.effect(a, query.context) + view.effect(b, query.context)
        expected = view.control_pseudobulk(query.context) + sum_
        np.testing.assert_allclose(answer.profile, expected, atol=1e-12)
    assert notes(model) == ()


def test_additive_says_which_part_it_did_not_know():
    test = [{"perturbation": p, "context": "c0"} for p in ("G00", "G00+G01")]
    task = task_of("listed", test=[*test, {"perturbation": "G01"}])
    model, _ = predictions(task, "additive")
    said = "\n".join(notes(model))
    assert "G00+G01 in c0: G00 was trained on in other contexts" in said
    assert "G00+G01 in c0: G01 was not trained on alone" in said


def test_linear_solves_the_ridge_problem_of_its_paper(few_shot):
    view = few_shot.train_view()
    model, found = predictions(few_shot, "linear", rank=3, ridge=0.5)
    G, W = model.embedding_, model.weights_
    pairs = view.pairs
    means = {
        c: np.mean([view.effect(p, c) for p in seen(view, c)], axis=0) for c in ("c0", "c1", "c2")
    }
    Y = np.array([view.effect(p, c) - means[c] for p, c in pairs]).T
    rows = {gene: i for i, gene in enumerate(view.genes)}
    P = np.array([sum(G[rows[g]] for g in view.targets(p)) for p, _ in pairs])
    ridge = 0.5 * np.eye(3)
    expected = np.linalg.inv(G.T @ G + ridge) @ G.T @ Y @ P @ np.linalg.inv(P.T @ P + ridge)
    np.testing.assert_allclose(W, expected, rtol=1e-8)
    query, answer = next(iter(found.items()))
    features = sum(G[rows[g]] for g in query.targets)
    profile = view.control_pseudobulk("c1") + means["c1"] + G @ W @ features
    np.testing.assert_allclose(answer.profile, profile, rtol=1e-9)


def test_linear_embeds_genes_by_principal_components_of_the_pseudobulks(few_shot):
    view = few_shot.train_view()
    model, _ = predictions(few_shot, "linear", rank=4)
    bulks = np.array([view.pseudobulk(*pair) for pair in view.pairs]).T
    U, s, _ = np.linalg.svd(bulks - bulks.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(model.embedding_), np.abs(U[:, :4] * s[:4]), rtol=1e-6)


def test_linear_lowers_a_rank_that_cannot_be_had_and_says_so(few_shot):
    model, _ = predictions(few_shot, "linear", rank=999)
    assert notes(model)[0].startswith("rank 999 was lowered to ")


def test_linear_without_a_target_gene_is_the_mean(few_shot):
    model = make_model("linear").fit(few_shot.train_view())
    _, mean = predictions(few_shot, "perturbation-mean")
    query = few_shot.queries()[0]
    drug = type(query)("drug", "c1", (), 4)
    answer = next(model.predict([drug]))
    np.testing.assert_allclose(answer.profile, mean[query].profile, atol=1e-12)
    assert "its target is no gene of the screen" in notes(model)[0]


def test_random_pair_gives_cells_of_another_perturbation_of_the_context(few_shot):
    view = few_shot.train_view()
    _, found = predictions(few_shot, "random-pair", seed=3)
    known = np.concatenate([view.cells(p, "c1") for p in seen(view, "c1")])
    for query, answer in found.items():
        assert len(np.unique(answer.cells, axis=0)) == query.n_cells
        assert all((known == cell).all(axis=1).any() for cell in answer.cells)


def test_random_pair_draws_another_pair_with_another_seed(few_shot):
    first, second = (predictions(few_shot, "random-pair", seed=seed)[1] for seed in (0, 1))
    assert any(not np.array_equal(first[q].cells, second[q].cells) for q in first)


def test_replicate_gives_the_half_that_the_truth_does_not_have(few_shot):
    view = few_shot.replicate_view()
    answers = list(make_model("replicate").fit(view).predict(few_shot.queries(half=True)))
    truth = few_shot.truth(half=True)
    held = truth.gene_block(0, 60)
    for answer in answers:
        assert not any((held == cell).all(axis=1).any() for cell in answer.cells)


# --- cells --------------------------------------------------------------------------------------


@pytest.fixture
def profile(few_shot):
    view = few_shot.train_view()
    query = few_shot.queries()[0]
    return Prediction(query, profile=view.control_pseudobulk("c1") + 0.5)


def test_shifted_controls_are_shown_controls_plus_the_effect(few_shot, profile):
    view = few_shot.train_view()
    (answer,) = with_cells([profile], view, "shift-controls")
    controls = view.controls("c1")
    assert answer.cells.dtype == np.float32
    for cell in answer.cells:
        np.testing.assert_allclose(np.abs(controls + 0.5 - cell).max(axis=1).min(), 0, atol=1e-5)


def test_shifted_cells_are_clipped_at_zero(few_shot, profile):
    down = Prediction(profile.query, profile=profile.profile - 3)
    (answer,) = with_cells([down], few_shot.train_view(), "shift-controls")
    assert answer.cells.min() == 0


def test_controls_are_drawn_with_replacement_only_where_there_are_too_few(few_shot, profile):
    query = profile.query
    many = type(query)(query.perturbation, query.context, query.targets, 100)
    (answer,) = with_cells(
        [Prediction(many, profile=profile.profile)], few_shot.train_view(), "shift-controls"
    )
    assert len(answer.cells) == 100
    (answer,) = with_cells([profile], few_shot.train_view(), "shift-controls")
    assert len(np.unique(answer.cells, axis=0)) == query.n_cells


def test_controls_are_drawn_by_seed_and_query(few_shot, profile):
    def cells(query, seed):
        asked = Prediction(query, profile=profile.profile)
        return next(with_cells([asked], few_shot.train_view(), "shift-controls", seed)).cells

    first, second = few_shot.queries()[:2]
    np.testing.assert_array_equal(cells(first, 0), cells(first, 0))
    assert not np.array_equal(cells(first, 0), cells(first, 1))
    assert not np.array_equal(cells(first, 0), cells(second, 0))


def test_tiled_cells_are_the_profile(few_shot, profile):
    (answer,) = with_cells([profile], few_shot.train_view(), "tile-profile")
    assert answer.cells.shape == (profile.query.n_cells, 60)
    np.testing.assert_allclose(answer.cells, np.tile(profile.profile, (20, 1)), rtol=1e-6)


def test_cells_that_a_model_made_are_left_alone(few_shot):
    cells = np.ones((20, 60), dtype="f4")
    given = Prediction(few_shot.queries()[0], cells=cells)
    (answer,) = with_cells([given], few_shot.train_view(), "shift-controls")
    assert answer is given


@pytest.mark.parametrize("profile", [None, np.zeros(3)], ids=["nothing", "wrong_shape"])
def test_a_prediction_that_cannot_be_given_cells_is_refused(few_shot, profile):
    asked = Prediction(few_shot.queries()[0], profile=profile)
    with pytest.raises(ModelError, match=r"expected a profile of shape \(60,\)"):
        next(with_cells([asked], few_shot.train_view(), "tile-profile"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda p: np.where(np.arange(60) == 7, -np.inf, p), "infinity in 'G07'"),
        pytest.param(lambda p: p.astype(complex), "values of type complex128", id="complex"),
        pytest.param(lambda p: p.astype(object), "values of type object", id="objects"),
        pytest.param(list, "values of type list", id="list"),
    ],
)
@pytest.mark.parametrize("step", ["shift-controls", "tile-profile"])
def test_what_a_step_to_cells_would_hide_is_refused(few_shot, step, spoil, message):
    query = few_shot.queries()[0]
    profile = spoil(few_shot.train_view().control_pseudobulk(query.context))
    asked = Prediction(query, profile=profile)
    with pytest.raises(ModelError, match=f"Prediction for '{query.perturbation}' in .*{message}"):
        next(with_cells([asked], few_shot.train_view(), step))


# --- what must come out -------------------------------------------------------------------------


def effect_error(task, name, **parameters):
    """Mean squared error of predicted effects against the held-out ones."""
    truth = task.truth()
    values = truth.gene_block(0, len(truth.genes))

    def mean(perturbation, context):
        mine = (truth.perturbations == perturbation) & (truth.contexts == context)
        return values[mine].mean(axis=0)

    view = task.train_view()
    errors = []
    for query, answer in predictions(task, name, **parameters)[1].items():
        true = mean(query.perturbation, query.context) - mean("control", query.context)
        predicted = answer.profile - view.control_pseudobulk(query.context)
        errors.append(((predicted - true) ** 2).mean())
    return np.mean(errors)


@pytest.mark.parametrize("seed", range(3))
def test_effects_shared_between_contexts_are_worth_transferring(seed):
    screen = tiny_screen(shared=0.9, n_cells=60, seed=seed)
    task = Task(screen, parse_split({"kind": "few-shot-context"}))
    transfer, mean, nothing = (
        effect_error(task, name)
        for name in ("context-transfer", "perturbation-mean", "control-mean")
    )
    assert transfer < mean < nothing


def test_effects_of_one_context_only_are_not_worth_transferring():
    # Over several screens: what a silenced target loses is common to contexts even then.
    errors = []
    for seed in range(4):
        screen = tiny_screen(n_perturbations=24, shared=0.0, n_cells=60, seed=seed)
        task = Task(screen, parse_split({"kind": "few-shot-context"}))
        errors.append([effect_error(task, n) for n in ("context-transfer", "perturbation-mean")])
    transfer, mean = np.mean(errors, axis=0)
    assert transfer > mean


@pytest.mark.parametrize("seed", range(3))
def test_effects_that_follow_gene_programmes_are_learnt_by_the_linear_model(seed):
    screen = tiny_screen(n_perturbations=40, n_combinations=0, n_cells=60, seed=seed)
    task = Task(screen, parse_split({"kind": "unseen-perturbation"}))
    linear = effect_error(task, "linear", rank=6)
    assert linear < effect_error(task, "perturbation-mean")


@pytest.mark.parametrize("seed", range(3))
def test_combinations_whose_effects_add_are_predicted_by_their_sum(seed):
    screen = tiny_screen(n_combinations=8, n_cells=60, seed=seed)
    task = Task(screen, parse_split({"kind": "unseen-combination", "folds": 2}))
    assert effect_error(task, "additive") < effect_error(task, "perturbation-mean")
