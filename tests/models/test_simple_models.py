"""Models on features, and models between contexts: each against its formula."""

from __future__ import annotations

import numpy as np
import pytest

from harness.models import make_model, notes
from harness.models.features import features_of
from harness.models.residuals import PENALTIES, RidgePath
from harness.tasks import parse_split
from harness.tasks.task import Query, Task
from harness.testing import tiny_screen


def task_of(kind, screen=None, **keys):
    return Task(screen or tiny_screen(), parse_split({"kind": kind, **keys}))


@pytest.fixture(scope="module")
def unseen():
    return task_of("unseen-perturbation")


@pytest.fixture(scope="module")
def few_shot():
    return task_of("few-shot-context", tiny_screen(contexts=("c0", "c1", "c2")), contexts=["c1"])


def fitted(task, name, **parameters):
    return make_model(name, parameters).fit(task.train_view())


def effects(task, model, queries=None):
    """The predicted effects, by perturbation and context."""
    view = task.train_view()
    return {
        (a.query.perturbation, a.query.context): a.profile
        - view.control_pseudobulk(a.query.context)
        for a in model.predict(queries or task.queries())
    }


def mean_effect(view, context):
    return np.mean([view.effect(p, c) for p, c in view.pairs if c == context], axis=0)


def residuals(view):
    """What each training perturbation does beyond the mean of its contexts: (n, n_genes)."""
    means = {context: mean_effect(view, context) for context in view.contexts}
    return np.array(
        [
            np.mean([view.effect(q, c) - means[c] for q, c in view.pairs if q == p], axis=0)
            for p in view.perturbations
        ]
    )


def scaled_vectors(view, asked, n_features=5):
    """Vectors of training perturbations and of those asked for, centred, of mean length 1."""
    features = features_of(view, "principal-components", n_features)
    known = np.array([features.of(p) for p in view.perturbations])
    centred = known - known.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=1).mean())
    wanted = np.array([features.of(p) for p in asked]) - known.mean(axis=0)
    return centred / scale, wanted / scale


# --- on features --------------------------------------------------------------------------------


def test_ridge_solves_the_normal_equations(unseen):
    view, queries = unseen.train_view(), unseen.queries()
    X, wanted = scaled_vectors(view, [q.perturbation for q in queries])
    W = np.linalg.inv(X.T @ X + 0.7 * np.eye(5)) @ X.T @ residuals(view)
    found = effects(unseen, fitted(unseen, "ridge", n_features=5, penalty=0.7))
    for query, x in zip(queries, wanted, strict=True):
        expected = mean_effect(view, query.context) + x @ W
        np.testing.assert_allclose(found[query.perturbation, query.context], expected, atol=1e-9)


def test_a_heavy_penalty_leaves_the_mean_effect(unseen):
    found = effects(unseen, fitted(unseen, "ridge", penalty=1e12))
    for (_, context), effect in found.items():
        np.testing.assert_allclose(effect, mean_effect(unseen.train_view(), context), atol=1e-9)


def test_the_penalty_is_the_one_that_predicts_left_out_perturbations_best(rng):
    X, Y = rng.normal(size=(15, 4)), rng.normal(size=(15, 30))
    Y[:, :5] += 2 * X[:, :1]
    K = X @ X.T

    def left_out_error(penalty):
        total = 0.0
        for i in range(15):
            rest = np.delete(np.arange(15), i)
            weights = np.linalg.solve(K[np.ix_(rest, rest)] + penalty * np.eye(14), Y[rest])
            total += ((Y[i] - K[i, rest] @ weights) ** 2).sum()
        return total

    path = RidgePath(K, Y)
    penalty = path.least_left_out_error()
    assert penalty == min(PENALTIES, key=left_out_error)
    assert PENALTIES[0] < penalty < PENALTIES[-1]
    expected = np.linalg.solve(K + penalty * np.eye(15), Y)
    np.testing.assert_allclose(path.weights(penalty), expected, atol=1e-9)


def test_kernel_ridge_is_the_mean_of_a_gaussian_process(unseen):
    view, queries = unseen.train_view(), unseen.queries()
    X, wanted = scaled_vectors(view, [q.perturbation for q in queries])

    def kernel(one, other, median):
        distance = np.linalg.norm(one[:, None] - other[None], axis=2)
        return np.exp(-(distance**2) / (2 * 4 * median))

    apart = np.linalg.norm(X[:, None] - X[None], axis=2)[np.triu_indices(len(X), 1)]
    median = np.median(apart**2)
    weights = np.linalg.inv(kernel(X, X, median) + 0.3 * np.eye(len(X))) @ residuals(view)
    model = fitted(unseen, "kernel-ridge", n_features=5, width=2.0, penalty=0.3)
    found = effects(unseen, model)
    for query, x in zip(queries, wanted, strict=True):
        expected = mean_effect(view, query.context) + (kernel(x[None], X, median) @ weights)[0]
        np.testing.assert_allclose(found[query.perturbation, query.context], expected, atol=1e-8)


def test_nearest_neighbours_are_averaged(unseen):
    view, queries = unseen.train_view(), unseen.queries()
    X, wanted = scaled_vectors(view, [q.perturbation for q in queries])
    found = effects(unseen, fitted(unseen, "nearest-neighbours", n_features=5, k=3))
    for query, x in zip(queries, wanted, strict=True):
        nearest = np.argsort(np.linalg.norm(X - x, axis=1))[:3]
        expected = mean_effect(view, query.context) + residuals(view)[nearest].mean(axis=0)
        np.testing.assert_allclose(found[query.perturbation, query.context], expected, atol=1e-9)


def test_bilinear_minimises_its_loss_among_all_maps_of_its_rank(unseen, rng):
    view = unseen.train_view()
    X, _ = scaled_vectors(view, view.perturbations)
    Y = residuals(view)
    model = fitted(unseen, "bilinear", n_features=5, rank=2, penalty=0.7)

    def loss(B):
        return ((Y - X @ B) ** 2).sum() + 0.7 * (B**2).sum()

    found = model.perturbations_ @ model.genes_.T
    assert np.linalg.matrix_rank(found) == 2
    for size in (1e-3, 1e-1):
        for _ in range(20):
            W = model.perturbations_ + size * rng.normal(size=model.perturbations_.shape)
            G = model.genes_ + size * rng.normal(size=model.genes_.shape)
            assert loss(W @ G.T) > loss(found)


def test_bilinear_of_full_rank_is_ridge(unseen):
    ridge = effects(unseen, fitted(unseen, "ridge", n_features=5))
    model = fitted(unseen, "bilinear", n_features=5, rank=99)
    full = effects(unseen, model)
    for pair, effect in ridge.items():
        np.testing.assert_allclose(full[pair], effect, atol=1e-9)
    assert notes(model)[0].startswith("rank 99 was lowered to ")


@pytest.mark.parametrize("name", ["ridge", "kernel-ridge", "nearest-neighbours", "bilinear"])
def test_a_target_that_is_no_gene_gets_the_mean_effect_and_a_note(unseen, name):
    model = fitted(unseen, name)
    found = effects(unseen, model, [Query("drug", "c1", (), 4)])
    np.testing.assert_allclose(
        found["drug", "c1"], mean_effect(unseen.train_view(), "c1"), atol=1e-12
    )
    assert "its target is no gene of the screen" in notes(model)[0]


def test_by_identity_ridge_learns_what_parts_add_to_a_combination():
    task = task_of("unseen-combination", tiny_screen(n_combinations=8, n_cells=60), folds=2)
    model = fitted(task, "ridge", features="identity", penalty=1e-6)
    view = task.train_view()
    vectors, residual = model.residuals_.vectors, model.residuals_.values
    # With hardly a penalty it goes through all it was trained on that parts can explain.
    projection = vectors @ np.linalg.pinv(vectors)
    np.testing.assert_allclose(vectors @ model.map_.T, projection @ residual, atol=1e-4)
    assert list(effects(task, model)) == [(q.perturbation, q.context) for q in task.queries()]
    assert notes(model) == ()
    drug = Query("drug", "c1", (), 4)
    found = effects(task, model, [drug])["drug", "c1"]
    np.testing.assert_allclose(found, mean_effect(view, "c1"), atol=1e-12)
    assert "a part of it, was not trained on" in notes(model)[0]


def test_ridge_without_a_penalty_is_the_least_of_all_solutions(unseen):
    view, queries = unseen.train_view(), unseen.queries()
    X, wanted = scaled_vectors(view, [q.perturbation for q in queries], n_features=32)
    W = np.linalg.pinv(X, rcond=1e-6) @ residuals(view)
    found = effects(unseen, fitted(unseen, "ridge", n_features=32, penalty=0.0))
    for query, x in zip(queries, wanted, strict=True):
        expected = mean_effect(view, query.context) + x @ W
        np.testing.assert_allclose(found[query.perturbation, query.context], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        pytest.param("ridge", {"penalty": -1.0}, id="penalty"),
        pytest.param("ridge", {"n_features": 0}, id="n_features"),
        pytest.param("kernel-ridge", {"width": 0.0}, id="width"),
        pytest.param("nearest-neighbours", {"k": 0}, id="neighbours"),
        pytest.param("bilinear", {"rank": 0}, id="rank"),
        pytest.param("similar-perturbations", {"k": 0}, id="similar"),
        pytest.param("context-regression", {"shrinkage": -0.5}, id="shrinkage"),
        pytest.param("shrunken-additive", {"shrinkage": -0.5}, id="share"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_with_its_least_value(unseen, name, parameters):
    [(parameter, value)] = parameters.items()
    with pytest.raises(ValueError, match=f"{parameter} is {value!r}, expected at least"):
        fitted(unseen, name, **parameters)


# --- between contexts ---------------------------------------------------------------------------


def shrunken_mean(view, shown, slopes):
    """James and Stein's estimate of c1's mean effect, from what slopes make of c0's and c2's."""
    here, first, second = (np.array([view.effect(p, c) for p in shown]) for c in ("c1", "c0", "c2"))
    left = here - slopes[0] * first - slopes[1] * second
    everywhere = (mean_effect(view, "c0") + mean_effect(view, "c2")) / 2
    prior = slopes[0] * first.mean(axis=0) + slopes[1] * second.mean(axis=0)
    prior += (1 - sum(slopes)) * everywhere
    distance = here.mean(axis=0) - prior
    kept = 1 - left.var(axis=0, ddof=1).mean() / len(shown) / (distance**2).mean()
    return prior + max(0.0, kept) * distance


def test_slopes_are_those_of_least_squares_with_an_intercept_for_each_gene(few_shot):
    view = few_shot.train_view()
    shown = [p for p, c in view.pairs if c == "c1"]

    def centred(context):
        found = np.array([view.effect(p, context) for p in shown])
        origin = found.mean(axis=0)
        for row, name in enumerate(shown):  # the targets' own genes have slopes of their own
            for gene in view.targets(name):
                found[row, view.genes.index(gene)] = origin[view.genes.index(gene)]
        return (found - origin).ravel(), origin

    (y, _), (x0, at0), (x2, at2) = (centred(c) for c in ("c1", "c0", "c2"))
    slopes = np.linalg.lstsq(np.array([x0, x2]).T, y, rcond=None)[0]
    here = shrunken_mean(view, shown, slopes)
    found = effects(few_shot, fitted(few_shot, "context-regression", shrinkage=0.0))
    for query in few_shot.queries():
        other = np.setdiff1d(np.arange(60), [view.genes.index(g) for g in query.targets])
        sources = [view.effect(query.perturbation, c) for c in ("c0", "c2")]
        expected = here + slopes[0] * (sources[0] - at0) + slopes[1] * (sources[1] - at2)
        effect = found[query.perturbation, "c1"]
        np.testing.assert_allclose(effect[other], expected[other], atol=1e-6)


def test_without_shown_pairs_one_context_is_carried_over_as_it_is():
    task = task_of("zero-shot-context", contexts=["c1"])
    view = task.train_view()
    for (name, _), effect in effects(task, fitted(task, "context-regression")).items():
        np.testing.assert_allclose(effect, view.effect(name, "c0"), atol=1e-9)


def test_slopes_shrink_to_how_well_other_contexts_predict_each_other(few_shot):
    view = few_shot.train_view()
    model = fitted(few_shot, "context-regression", shrinkage=1e9)
    query = few_shot.queries()[0]
    shown = [p for p, c in view.pairs if c == "c1"]
    at = {c: np.mean([view.effect(p, c) for p in shown], axis=0) for c in ("c0", "c1", "c2")}
    common = [p for p in view.perturbations if {(p, "c0"), (p, "c2")} <= set(view.pairs)]
    d0, d2 = (np.array([view.effect(p, c) - at[c] for p in common]) for c in ("c0", "c2"))
    slope = 2 * (d0 * d2).sum() / ((d0**2).sum() + (d2**2).sum())
    moved = [view.effect(query.perturbation, c) - at[c] for c in ("c0", "c2")]
    found = effects(few_shot, model)[query.perturbation, "c1"]
    expected = shrunken_mean(view, shown, (slope / 2, slope / 2)) + slope * np.mean(moved, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_context_that_answers_the_other_way_round_has_a_negative_slope():
    screen = tiny_screen(n_cells=60, shared=1.0, n_combinations=0)
    task = task_of("few-shot-context", screen, contexts=["c1"])
    view = task.train_view()
    straight = view.effect
    view.effect = lambda p, c: -straight(p, c) if c == "c0" else straight(p, c)
    model = make_model("context-regression").fit(view)
    transfer = make_model("context-transfer").fit(view)
    means = mean_effect(task.train_view(), "c1")
    errors = {"context-regression": 0.0, "context-transfer": 0.0, "mean": 0.0}
    for query in task.queries():
        true = task.truth()
        mine = (true.perturbations == query.perturbation) & (true.contexts == "c1")
        control = (true.perturbations == "control") & (true.contexts == "c1")
        cells = true.gene_block(0, 60)
        effect = cells[mine].mean(axis=0) - cells[control].mean(axis=0)
        for name, made in (("context-regression", model), ("context-transfer", transfer)):
            profile = next(made.predict([query])).profile - view.control_pseudobulk("c1")
            errors[name] += ((profile - effect) ** 2).mean()
        errors["mean"] += ((means - effect) ** 2).mean()
    assert errors["context-regression"] < errors["mean"] < errors["context-transfer"]


def test_similar_perturbations_are_those_that_correlate_elsewhere(few_shot):
    view = few_shot.train_view()
    means = {c: mean_effect(view, c) for c in view.contexts}
    shown = [p for p, c in view.pairs if c == "c1"]
    found = effects(few_shot, fitted(few_shot, "similar-perturbations", k=2))
    for query in few_shot.queries():

        def similarity(other, name=query.perturbation):
            return np.mean(
                [
                    np.corrcoef(view.effect(name, c) - means[c], view.effect(other, c) - means[c])
                    for c in ("c0", "c2")
                ],
                axis=0,
            )[0, 1]

        nearest = sorted(shown, key=similarity)[-2:]
        expected = np.mean([view.effect(p, "c1") for p in nearest], axis=0)
        np.testing.assert_allclose(found[query.perturbation, "c1"], expected, atol=1e-9)


@pytest.mark.parametrize("name", ["context-regression", "similar-perturbations"])
def test_a_perturbation_that_is_nowhere_else_gets_the_mean_effect_and_a_note(unseen, name):
    model = fitted(unseen, name)
    for (_, context), effect in effects(unseen, model).items():
        np.testing.assert_allclose(effect, mean_effect(unseen.train_view(), context), atol=1e-12)
    assert len(notes(model)) == len(unseen.queries())
    assert "the mean effect is used" in notes(model)[0]


# --- combinations -------------------------------------------------------------------------------


def test_the_share_of_a_sum_is_the_slope_of_other_combinations():
    task = task_of("unseen-combination", folds=2)
    view = task.train_view()
    pairs = [(p, c) for p, c in view.pairs if "+" in p]
    sums = np.array([sum(view.effect(a, c) for a in p.split("+")) for p, c in pairs])
    measured = np.array([view.effect(p, c) for p, c in pairs])
    model = fitted(task, "shrunken-additive", shrinkage=0.0)
    share = (sums * measured).sum() / (sums**2).sum()
    assert model.share_ == pytest.approx(share)
    assert share < 1
    for (name, context), effect in effects(task, model).items():
        whole = sum(view.effect(part, context) for part in name.split("+"))
        np.testing.assert_allclose(effect, share * whole, atol=1e-9)
    heavy = fitted(task, "shrunken-additive", shrinkage=1e9)
    assert heavy.share_ == pytest.approx(1.0)


def test_singles_are_not_shrunk_and_without_combinations_nothing_is():
    task = task_of("few-shot-context", tiny_screen(n_combinations=0))
    model = fitted(task, "shrunken-additive")
    plain = effects(task, fitted(task, "additive"))
    for pair, effect in effects(task, model).items():
        np.testing.assert_array_equal(effect, plain[pair])
    assert "the sum is not shrunk" in notes(model)[0]


def share_left(view):
    columns = {gene: column for column, gene in enumerate(view.genes)}
    left = there = 0.0
    for perturbation, context in view.pairs:
        for target in view.targets(perturbation):
            left += view.pseudobulk(perturbation, context)[columns[target]]
            there += view.control_pseudobulk(context)[columns[target]]
    return left / there


@pytest.mark.parametrize("name", ["target-knockdown", "mean-and-target"])
def test_a_target_is_lowered_as_targets_are_in_training(unseen, name):
    view = unseen.train_view()
    model = fitted(unseen, name)
    for answer in model.predict(unseen.queries()):
        context = answer.query.context
        expected = view.control_pseudobulk(context).copy()
        if name == "mean-and-target":
            expected += mean_effect(view, context)
        assert answer.query.targets
        for target in answer.query.targets:
            column = view.genes.index(target)
            expected[column] = share_left(view) * view.control_pseudobulk(context)[column]
        np.testing.assert_allclose(answer.profile, expected)
    assert not notes(model)


@pytest.mark.parametrize("name", ["target-knockdown", "mean-and-target"])
def test_a_query_whose_target_was_not_measured_gets_a_note(unseen, name):
    model = fitted(unseen, name)
    query = Query("compound", "c0", (), 5)
    other = "control-mean" if name == "target-knockdown" else "perturbation-mean"
    [answer] = model.predict([query])
    [floor] = fitted(unseen, other).predict([query])
    np.testing.assert_array_equal(answer.profile, floor.profile)
    assert notes(model) == (
        "compound in c0: its target is no gene of the screen, no gene is lowered",
    )
