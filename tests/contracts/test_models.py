"""The model contract over every registered model, and over models that break it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import HeldOutError, ModelError
from harness.models import registered_classes
from harness.tasks.task import Prediction
from harness.testing import CONTRACT, Case, check_model


@pytest.mark.parametrize("name", registered_classes())
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_every_registered_model_keeps_the_contract(name, clause):
    # A network keeps the contract in its second epoch or never; by default it has thirty.
    brief = {"epochs": 2} if hasattr(registered_classes()[name].model, "trains") else {}
    clause(Case(name, brief))


class Good:
    """Ten lines that keep the contract; each broken model below changes one thing."""

    def __init__(self, *, strength: float = 1.0, seed: int = 0) -> None:
        self.strength = strength
        self.seed = seed

    def fit(self, train):
        self.train_ = train
        return self

    def predict(self, queries):
        for query in queries:
            yield Prediction(query, profile=self.profile(query))

    def profile(self, query):
        return self.train_.control_pseudobulk(query.context) * self.strength


class Positional(Good):
    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength


class Renames(Good):
    def __init__(self, *, strength: float = 1.0) -> None:
        self.power = strength


class ChangesItsDefault(Good):
    def __init__(self, *, strength: float = 1.0, depth: int | None = None) -> None:
        self.strength = strength
        self.depth = depth or 3


class PredictsLists(Good):
    def profile(self, query):
        return list(super().profile(query))


class PredictsCellsAtTimes(Good):
    asked = 0

    def predict(self, queries):
        for answer in super().predict(queries):
            type(self).asked += 1
            cells = np.ones((answer.query.n_cells, 60), dtype="f4")
            yield replace(answer, cells=cells if self.asked % 7 else None)


class LearnsEarly(Good):
    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength
        self.weights_ = None


class ReturnsNothing(Good):
    def fit(self, train):
        self.train_ = train


class SkipsOne(Good):
    def predict(self, queries):
        yield from super().predict(queries[1:])


class AnswersTwice(Good):
    def predict(self, queries):
        yield from super().predict([*queries, queries[0]])


class Backwards(Good):
    def predict(self, queries):
        yield from super().predict(queries[::-1])


class YieldsArrays(Good):
    def predict(self, queries):
        yield from map(self.profile, queries)


class PredictsNothing(Good):
    def predict(self, queries):
        return None


class Invents(Good):
    def predict(self, queries):
        yield from super().predict([*queries, replace(queries[0], perturbation="new")])


class WrongShape(Good):
    def profile(self, query):
        return super().profile(query)[:-1]


class PredictsCounts(Good):
    def profile(self, query):
        return np.expm1(super().profile(query)) * 10


class PredictsNaN(Good):
    def profile(self, query):
        return super().profile(query) * np.nan


class Negative(Good):
    def predict(self, queries):
        for query in queries:
            cells = np.full((query.n_cells, 60), -1, dtype="f4")
            yield Prediction(query, cells=cells)


class DoubleCells(Good):
    def predict(self, queries):
        for query in queries:
            yield Prediction(query, cells=np.zeros((query.n_cells, 60)))


class Unseeded(Good):
    def profile(self, query):
        return super().profile(query) * np.random.default_rng().random()


class Remembers(Good):
    def fit(self, train):
        self.n_ = getattr(self, "n_", 0) + 1
        return super().fit(train)

    def profile(self, query):
        return super().profile(query) / self.n_


class DependsOnOrder(Good):
    def predict(self, queries):
        for i, query in enumerate(queries, start=1):
            yield Prediction(query, profile=self.profile(query) / i)


class Peeks(Good):
    def profile(self, query):
        return self.train_.pseudobulk(query.perturbation, query.context)


class PeeksInSilence(Good):
    def profile(self, query):
        try:
            return self.train_.pseudobulk(query.perturbation, query.context)
        except HeldOutError:
            return super().profile(query)


class NoPickle(Good):
    def fit(self, train):
        self.scale_ = lambda x: x
        return super().fit(train)


class GivesNoReason(Good):
    def profile(self, query):
        if not any(pair.context == query.context for pair in self.train_.pairs):
            raise ModelError("cannot")
        return super().profile(query)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(Positional, "expected keyword-only", id="positional"),
        pytest.param(Renames, "does not have it as 'strength'", id="renames"),
        pytest.param(ChangesItsDefault, "does not have it as 'depth'", id="default"),
        pytest.param(PredictsLists, "profile of type list, expected an array", id="lists"),
        pytest.param(PredictsCellsAtTimes, "cells for .* differ", id="cells_at_times"),
        pytest.param(LearnsEarly, "are set before fit", id="learns_early"),
        pytest.param(ReturnsNothing, "fit returned NoneType", id="returns_nothing"),
        pytest.param(SkipsOne, r"1 of \d+ queries got no answer: 'G.* in c0'", id="skips_one"),
        pytest.param(AnswersTwice, "1 queries were answered more than once: 'G", id="twice"),
        pytest.param(Backwards, "another order than they were asked in", id="backwards"),
        pytest.param(YieldsArrays, "yielded ndarray, expected a .*Prediction", id="arrays"),
        pytest.param(PredictsNothing, "predict returned NoneType, expected", id="no_answers"),
        pytest.param(Invents, "'new' in 'c.': nobody asked for it", id="invents"),
        pytest.param(WrongShape, r"shape \(59,\), expected \(60,\)", id="wrong_shape"),
        pytest.param(PredictsCounts, "counts, not log1p", id="counts"),
        pytest.param(PredictsNaN, "NaN or infinite", id="nan"),
        pytest.param(Negative, "negative", id="negative"),
        pytest.param(DoubleCells, "float64, expected float32", id="dtype"),
        pytest.param(Unseeded, "differ another time", id="unseeded"),
        pytest.param(Remembers, "differ after another fit", id="remembers"),
        pytest.param(DependsOnOrder, "differ among other queries", id="order"),
        pytest.param(Peeks, "is on the test side", id="peeks"),
        pytest.param(PeeksInSilence, "which it must not see", id="peeks_in_silence"),
        pytest.param(NoPickle, "cannot be pickled", id="no_pickle"),
        pytest.param(GivesNoReason, "without naming the query", id="gives_no_reason"),
    ],
)
def test_a_model_that_breaks_the_contract_is_told_how(model, message):
    with pytest.raises(ModelError, match=message):
        check_model(model, strength=0.5)


def test_a_stranger_s_model_keeps_the_contract():
    check_model(Good, strength=0.5)
