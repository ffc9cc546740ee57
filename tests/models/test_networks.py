"""Trained networks: their losses, the loop they share, and that training is worth it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.errors import ModelError
from harness.models import make_model, notes, parameters_of, registered_classes, with_cells
from harness.models.networks import base as settings
from harness.models.networks.encoding import Encoding
from harness.tasks import parse_split
from harness.tasks.task import Task
from harness.testing import tiny_screen

torch = pytest.importorskip("torch", reason="networks need the extra `torch`")

from harness.models.networks.torch import training as loop  # noqa: E402 - needs torch
from harness.models.networks.torch.losses import energy_distance, squared_mmd  # noqa: E402
from harness.models.networks.torch.training import half_precision, reproducible  # noqa: E402

NETWORKS = ["conditional-autoencoder", "decoder-only", "latent-additive", "set-transformer"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """One cache for all tests of the session, so that the screen is drawn once."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))


@pytest.fixture(scope="module")
def task():
    screen = tiny_screen(n_cells=16)
    return Task(screen, parse_split({"kind": "few-shot-context"}))


class Supervised:
    """Supervision in memory, with scores told beforehand; interrupts at a save if told to."""

    def __init__(self, scores=(), interrupt_at=None, better=True):
        self.scores, self.interrupt_at, self.better = list(scores), interrupt_at, better
        self.saved = None
        self.n_saved = 0
        self.curve = []
        self.seen = []

    def higher_is_better(self, metric):
        return self.better

    def validate(self, model, step, metric):
        self.seen.append({k: v.clone() for k, v in model.fitted_.network.state_dict().items()})
        return self.scores[len(self.seen) - 1] if self.scores else None

    def load(self):
        return self.saved

    def save(self, state):
        self.saved = state
        self.n_saved += 1
        if self.n_saved == self.interrupt_at:
            raise KeyboardInterrupt

    def record(self, curve):
        self.curve = [dict(row) for row in curve]


def fitted(task, name, supervision, **parameters):
    model = make_model(name, parameters, seed=3)
    model.supervision_ = supervision
    return model.fit(task.train_view())


# --- losses -------------------------------------------------------------------------------------


def plain_energy(x, y):
    def mean(a, b, *, own):
        found = [
            np.linalg.norm(p - q)
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (own and i == j)
        ]
        return np.mean(found) if found else 0.0

    return 2 * mean(x, y, own=False) - mean(x, x, own=True) - mean(y, y, own=True)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_energy_distance_is_its_definition_whatever_fills_up_the_set(rng, size):
    x, y = rng.normal(size=(2, 4, 3)), rng.normal(1, 2, size=(2, 5, 3))
    weights = np.repeat((np.arange(5) < size)[None] / size, 2, axis=0)
    found = energy_distance(*(torch.tensor(each) for each in (x, y, weights)))
    expected = [plain_energy(a, b[:size]) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)  # 1e-6 under each root


@pytest.mark.parametrize("distance", [energy_distance, squared_mmd])
def test_a_distance_is_about_zero_for_alike_sets_and_grows_with_a_shift(rng, distance):
    x, y = (torch.tensor(rng.normal(size=(40, 20, 5))) for _ in range(2))
    weights = torch.full((40, 20), 0.05, dtype=x.dtype)
    values = [float(distance(x + shift, y, weights).mean()) for shift in (0.0, 0.5, 1.0)]
    assert abs(values[0]) < 0.05 * values[2]
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("distance", [energy_distance, squared_mmd])
def test_a_distance_has_a_gradient_where_cells_coincide(distance):
    x = torch.ones(1, 3, 2, requires_grad=True)
    distance(x, torch.ones(1, 3, 2), torch.full((1, 3), 1 / 3)).sum().backward()
    assert torch.isfinite(x.grad).all()


# --- what a network is told ---------------------------------------------------------------------


def test_a_perturbation_is_told_by_its_parts_and_their_genes(task):
    encoding = Encoding(task.train_view(), rank=4)
    single = encoding.perturbation("G01", ("G01",))
    both = encoding.perturbation("G01+G02", ("G01", "G02"))
    assert single[: len(encoding.names)].sum() == 1
    np.testing.assert_allclose(both, single + encoding.perturbation("G02", ("G02",)), rtol=1e-6)


def test_an_unknown_name_is_told_by_its_target_alone(task):
    encoding = Encoding(task.train_view(), rank=4)
    unseen = encoding.perturbation("elsewhere", ("G50",))
    assert not unseen[: len(encoding.names)].any()
    np.testing.assert_allclose(unseen[len(encoding.names) :], encoding.genes[50], rtol=1e-6)
    assert encoding.knows("elsewhere", ("G50",))
    assert not encoding.knows("elsewhere", ())


@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_network_predicts_what_perturbation_mean_does(task, name):
    model = make_model(name, {"epochs": 0}).fit(task.train_view())
    mean = make_model("perturbation-mean").fit(task.train_view())
    queries = task.queries()
    for found, expected in zip(model.predict(queries), mean.predict(queries), strict=True):
        np.testing.assert_allclose(found.profile, expected.profile, atol=1e-5)


def test_a_perturbation_that_nothing_tells_gets_a_note(task):
    model = make_model("decoder-only", {"epochs": 1}).fit(task.train_view())
    query = replace(task.queries()[0], perturbation="compound", targets=())
    assert len(list(model.predict([query]))) == 1
    assert "cannot tell it from others" in notes(model)[0]


# --- the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(task, name, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", np.inf)
    keys = {"epochs": 4, "batch_size": 3 if name == "set-transformer" else 50}
    scores = [0.3, 0.5]
    whole = Supervised(scores)
    undisturbed = fitted(task, name, whole, **keys)
    first = Supervised(scores, interrupt_at=whole.n_saved // 2 + 1)
    with pytest.raises(KeyboardInterrupt):
        fitted(task, name, first, **keys)
    again = Supervised(scores[len(first.seen) :])
    again.saved = first.saved
    resumed = fitted(task, name, again, **keys)
    assert whole.n_saved > 8
    assert len(first.seen) + len(again.seen) == 2
    assert again.n_saved < whole.n_saved
    curves = [pd.DataFrame(each.curve).drop(columns="seconds") for each in (whole, again)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    for one, other in zip(
        undisturbed.predict(task.queries()), resumed.predict(task.queries()), strict=True
    ):
        np.testing.assert_array_equal(one.profile, other.profile)


def test_a_checkpoint_of_other_code_is_not_gone_on_with(task, monkeypatch):
    first = Supervised()
    fitted(task, "decoder-only", first, epochs=2)
    same, other = Supervised(), Supervised()
    same.saved = other.saved = first.saved
    fitted(task, "decoder-only", same, epochs=2)
    monkeypatch.setattr(loop, "_code", lambda: "other")
    fitted(task, "decoder-only", other, epochs=2)
    assert same.curve == []  # it was at its end already, and no epoch was left
    assert len(other.curve) == 2


def test_every_file_of_the_networks_is_code_of_a_checkpoint(tmp_path, monkeypatch):
    networks = tmp_path / "networks"
    shutil.copytree(Path(settings.__file__).parent, networks)
    monkeypatch.setattr(loop, "__file__", str(networks / "torch" / "training.py"))
    before = loop._code()
    files = {path.relative_to(networks).as_posix() for path in networks.rglob("*.py")}
    assert {"base.py", "encoding.py", "data_loader.py", "torch/losses.py"} <= files
    for name in files:
        text = (networks / name).read_text(encoding="utf-8")
        (networks / name).write_text(text + "EDITED = True\n", encoding="utf-8")
        assert loop._code() != before, name
        (networks / name).write_text(text, encoding="utf-8")
    assert loop._code() == before


@pytest.mark.parametrize(
    ("scores", "better", "looks", "best"),
    [
        pytest.param([1, 3, 2, 2, 2, 9], True, 4, 1, id="higher_is_better"),
        pytest.param([3, 1, 2, 2, 2, 0], False, 4, 1, id="lower_is_better"),
        pytest.param([1, 2, 3, 4, 5, 6], True, 6, 5, id="still_better"),
    ],
)
def test_training_ends_when_validation_no_longer_gets_better(task, scores, better, looks, best):
    supervised = Supervised(scores, better=better)
    keys = {"epochs": 12, "patience": 2, "validate_every": 2}
    model = fitted(task, "decoder-only", supervised, **keys)
    assert len(supervised.seen) == looks
    for name, value in model.fitted_.network.state_dict().items():
        torch.testing.assert_close(value, supervised.seen[best][name], rtol=0, atol=0)
    rows = [row for row in supervised.curve if row["validation"] == row["validation"]]
    assert [row["validation"] for row in rows] == scores[:looks]
    assert [row["epoch"] for row in rows] == [2 * (i + 1) for i in range(looks)]


def test_a_fit_leaves_seed_and_threads_of_the_process_alone(task):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    before = torch.get_num_threads()
    with reproducible(seed=1, threads=before + 1):
        torch.rand(5)
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_a_cpu_is_given_full_precision():
    with half_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_network_can_be_told_its_device_and_lies_on_the_cpu_once_pickled(task):
    model = make_model("set-transformer", {"epochs": 1})
    model.fit(task.train_view())
    model.fitted_.fit(model, set_size=8, device=torch.device("cpu"))
    again = pickle.loads(pickle.dumps(model))
    assert {p.device.type for p in again.fitted_.network.parameters()} == {"cpu"}
    queries = task.queries()[:1]
    (one,), (other,) = list(model.predict(queries)), list(again.predict(queries))
    np.testing.assert_array_equal(one.cells, other.cells)


def test_a_model_keeps_no_hold_of_what_its_trial_offered(task):
    model = fitted(task, "decoder-only", Supervised(), epochs=1)
    assert not hasattr(model, "supervision_")


# --- without torch, and cells -------------------------------------------------------------------


def test_listing_models_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from harness.models import registered_classes, parameters_of\n"
        f"print(all(parameters_of(n) and registered_classes()[n].summary for n in {NETWORKS}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


def test_without_torch_a_network_says_what_to_install(task, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'virtual-cell-harness\[torch\]'"):
        make_model("decoder-only").fit(task.train_view())


def test_parameters_of_networks_are_told_with_their_choices():
    assert "mmd" in str(parameters_of("set-transformer")["loss"].annotation)
    assert "targets" in str(parameters_of("decoder-only")["embedding"].annotation)
    assert "own" in str(parameters_of("set-transformer")["cells"].annotation)
    assert "own" not in str(parameters_of("decoder-only")["cells"].annotation)
    assert registered_classes()["set-transformer"].cells == "own"


def test_a_profile_cannot_stand_for_cells_of_a_model_s_own(task):
    model = make_model("decoder-only", {"epochs": 0}).fit(task.train_view())
    with pytest.raises(ModelError, match="expected the model's own cells"):
        list(with_cells(model.predict(task.queries()), task.train_view(), "own"))
