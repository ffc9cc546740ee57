"""Models by their names: those of this package, of others, and what an author imports."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint

import pytest

from harness.errors import ModelError, UnknownNameError
from harness.models import base, make_model, parameters_of, register, registered_classes

BASELINES = {
    "additive",
    "cell-eval-baseline",
    "context-transfer",
    "control-mean",
    "linear",
    "perturbation-mean",
    "random-pair",
    "replicate",
}


def test_the_baselines_are_registered_and_say_what_they_do():
    models = registered_classes()
    assert set(models) >= BASELINES
    assert all(models[name].summary.endswith(".") or models[name].summary for name in BASELINES)
    assert [name for name in BASELINES if models[name].ceiling] == ["replicate"]


def test_the_means_are_three_models_and_each_keeps_its_step_to_cells():
    models = registered_classes()
    found = {name for name, info in models.items() if info.model.__module__.endswith(".means")}
    assert found == {"control-mean", "perturbation-mean", "cell-eval-baseline"}
    assert {models[name].cells for name in found} == {"match-controls", "tile-profile"}
    assert models["cell-eval-baseline"].cells == "tile-profile"


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (
            "harness.models",
            "Count NonNegative Positive Share Source features_of query_rng register",
        ),
        ("harness.config", "InputFile"),
        ("harness.tasks", "Prediction Query TrainView"),
        ("harness.testing", "CONTRACT Case check_model tiny_screen"),
    ],
)
def test_a_model_s_author_can_import_what_the_documents_name(package, names):
    module = import_module(package)
    for name in names.split():
        assert getattr(module, name) is not None


def test_an_unknown_model_gets_a_near_match():
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        make_model("linaer")


def test_an_unknown_parameter_gets_a_near_match():
    with pytest.raises(UnknownNameError, match="parameter of linear 'rnak'"):
        make_model("linear", {"rnak": 3})


def test_parameters_are_told_with_types_and_defaults():
    rank = parameters_of("linear")["rank"]
    assert (rank.annotation, rank.default) == (base.Count, 10)
    assert parameters_of("linear")["cells"].default == "match-controls"
    assert parameters_of("cell-eval-baseline")["cells"].default == "tile-profile"
    assert "cells" not in parameters_of("replicate")


def test_only_a_model_that_draws_gets_the_seed():
    assert make_model("random-pair", seed=5).seed == 5
    assert not hasattr(make_model("linear", seed=5), "seed")


class Elsewhere:
    """A model of another package."""


def test_an_entry_point_is_a_model_like_any_other(monkeypatch):
    entry = EntryPoint("elsewhere", f"{__name__}:Elsewhere", base.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: Elsewhere)
    monkeypatch.setattr(base, "_offered", lambda: (entry,))
    monkeypatch.setattr(base, "_MODELS", dict(base._MODELS))
    assert registered_classes()["elsewhere"].model is Elsewhere


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch):
    entry = EntryPoint("gone", "nowhere_at_all:Model", base.GROUP)
    monkeypatch.setattr(base, "_offered", lambda: (entry,))
    with pytest.raises(ModelError, match="'gone' cannot be loaded from 'nowhere_at_all:Model'"):
        registered_classes()


def test_a_name_is_given_to_one_model_only():
    with pytest.raises(ValueError, match="'linear' is registered already"):
        register("linear")(Elsewhere)
