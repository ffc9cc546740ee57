"""Which settings a search proposes: the same ones, however long each takes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness.jobs.search_space import Dimension, Sampler, Scheduler
from harness.runs.search_sampler import Proposals, Tried, should_prune

# --- proposals ----------------------------------------------------------------------------------

SPACE = {
    "layers": Dimension(choice=[[8], [8, 8]]),
    "rate": Dimension(log=[0.001, 1.0]),
    "width": Dimension.model_validate({"int": [1, 9]}),
}


def proposed(
    seed: int, kind: Any = "tpe", known: int = 0, n: int = 24
) -> dict[int, dict[str, Any]]:
    """Play a search of three at a time, in which whichever ends first is drawn by lot."""
    lot = random.Random(seed)
    tried: list[Tried] = []
    if known:
        before = proposed(seed + 1, kind, n=known)
        tried = [_scored(number, drawn) for number, drawn in before.items()]
    proposals = Proposals(
        SPACE, Sampler(kind=kind), concurrent=3, higher_is_better=False, tried=tried
    )
    running: list[int] = []
    waiting = list(range(known, n))
    while waiting or running:
        while waiting and proposals.ready(waiting[0]):
            running.append(waiting[0])
            proposals.ask(waiting.pop(0))
        number = running.pop(lot.randrange(len(running)))
        proposals.tell(_scored(number, proposals.drawn[number]))
    return proposals.drawn


def _scored(number: int, drawn: dict[str, Any]) -> Tried:
    return Tried(number, drawn, "done", abs(drawn["rate"] - 0.1) + drawn["width"])


@pytest.mark.parametrize("kind", ["tpe", "random", "qmc"])
def test_what_ends_first_changes_no_setting(kind: str) -> None:
    assert proposed(1, kind) == proposed(2, kind) == proposed(3, kind, known=7)


def test_tpe_learns_from_what_was_tried() -> None:
    late = [drawn["width"] for number, drawn in proposed(0).items() if number >= 12]
    assert sum(late) / len(late) < 4


@pytest.mark.slow
def test_a_gaussian_process_learns_and_does_not_care_what_ends_first() -> None:
    pytest.importorskip("torch", reason="torch is not installed: no search by Gaussian process")
    found = proposed(1, "gp", n=15)
    assert found == proposed(2, "gp", known=12, n=15)
    late = [drawn["width"] for number, drawn in found.items() if number >= 13]
    assert sum(late) / len(late) < 4


GRID = {
    "layers": Dimension(choice=[[8], [8, 8], [16]]),
    "width": Dimension.model_validate({"int": [3, 6]}),
}


def asked(space: dict[str, Dimension], kind: Any, n: int, seed: int = 0) -> list[dict[str, Any]]:
    sampler = Sampler(kind=kind, seed=seed)
    proposals = Proposals(space, sampler, concurrent=n, higher_is_better=False)
    return [proposals.ask(number) for number in range(n)]


def test_a_grid_has_every_setting_once_in_an_order_of_its_seed() -> None:
    found = asked(GRID, "grid", 12)
    assert {(len(one["layers"]), one["layers"][0], one["width"]) for one in found} == {
        (*layers, width) for layers in ((1, 8), (2, 8), (1, 16)) for width in (3, 4, 5, 6)
    }
    assert found[:5] == asked(GRID, "grid", 5)
    assert found != asked(GRID, "grid", 12, seed=1)
    assert len({one["width"] for one in found[:6]}) > 2  # not one corner of it


def test_a_sobol_sequence_fills_the_space_evenly() -> None:
    found = asked(SPACE, "qmc", 32)
    decades = [sum(0.1**k <= one["rate"] < 0.1 ** (k - 1) for one in found) for k in (1, 2, 3)]
    assert all(10 <= number <= 11 for number in decades)
    assert [sum(one["layers"] == layers for one in found) for layers in ([8], [8, 8])] == [16, 16]
    assert {one["width"] for one in found} == set(range(1, 10))
    assert found != asked(SPACE, "qmc", 32, seed=1)


# --- halving ------------------------------------------------------------------------------------

HALVING = Scheduler(kind="asha", grace=2, factor=3)


@pytest.mark.parametrize(
    ("steps", "others", "kept"),
    [
        pytest.param({2: 0.5}, [], True, id="first"),
        pytest.param({2: 0.5}, [{2: 0.4}], False, id="worse_than_one"),
        pytest.param({2: 0.3}, [{2: 0.4}], True, id="best"),
        pytest.param({2: 0.5, 4: 0.9}, [{2: 0.6, 4: 0.1}], True, id="between_rungs"),
        pytest.param({2: 0.3, 6: 0.9}, [{2: 0.4, 6: 0.1}], False, id="worse_later"),
        pytest.param({2: 0.3, 6: 0.9}, [{2: 0.4}], True, id="alone_later"),
    ],
)
def test_halving_keeps_the_best_of_those_that_reached_a_rung(
    steps: dict[int, float], others: list[dict[int, float]], kept: bool
) -> None:
    assert should_prune(HALVING, steps, others, higher_is_better=False) != kept
    flipped = {step: -value for step, value in steps.items()}
    mirrored = [{step: -value for step, value in one.items()} for one in others]
    assert should_prune(HALVING, flipped, mirrored, higher_is_better=True) != kept


def test_settings_are_compared_at_rungs_alone() -> None:
    at = [step for step in range(1, 20) if HALVING.reaches_rung(step - 1, step)]
    assert at == [2, 6, 18]
    assert HALVING.reaches_rung(3, 7)
    assert not Scheduler().reaches_rung(0, 100)
