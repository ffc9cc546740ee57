"""Names of simulated screens: parsed or refused, and each drawn once in the cache."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.data.simulation.screens import parse_sim, simulate, simulated_store, simulation_options
from harness.data.store import open_store
from harness.errors import DeclarationError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path


def test_names_of_simulated_screens_are_parsed() -> None:
    parsed = parse_sim("sim:small?seed=3&contexts=2&shared=1")
    assert parsed == {"preset": "small", "seed": 3, "contexts": 2, "shared": 1}
    assert set(parsed) - {"preset"} <= set(simulation_options())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("sim:tinny", "Unknown simulation preset 'tinny'.*'tiny'", id="preset"),
        pytest.param("sim:tiny?context=2", "'context'. Did you mean 'contexts'", id="option"),
    ],
)
def test_unknown_names_get_a_near_match(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        parse_sim(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("tiny", "does not name a simulated screen", id="no-prefix"),
        pytest.param("sim:tiny?seed", "does not name a simulated screen", id="no-value"),
        pytest.param("sim:tiny?seed=a", "seed is 'a', expected a whole number", id="word"),
        pytest.param("sim:tiny?seed=-1", "seed is -1, expected 0 or more", id="negative-seed"),
        pytest.param("sim:tiny?contexts=0", "contexts is 0, expected 1 or more", id="no-context"),
        pytest.param("sim:tiny?shared=2", "shared is 2, expected a number from 0", id="shared"),
        pytest.param(
            "sim:tiny?combinations=9999", "can be combined in 276 ways", id="combinations"
        ),
    ],
)
def test_values_that_no_screen_can_have_are_refused(name: str, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        parse_sim(name)


def test_more_targets_than_expressed_genes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only .* of 40 genes are expressed well enough"):
        simulate("tiny", tmp_path / "a.zarr", genes=40, perturbations=39)


def test_a_simulated_screen_is_made_once_in_the_cache(tmp_path: Path) -> None:
    leftover = tmp_path / ".sim-tiny-cells=3-v1.zarr.0000.partial"
    leftover.mkdir()
    first = simulated_store("sim:tiny?cells=3", tmp_path)
    calls: list[tuple[int, int]] = []
    again = simulated_store(
        "sim:tiny?seed=0&cells=3", tmp_path, progress=lambda *done: calls.append(done)
    )
    assert (again.path, calls) == (first.path, [])
    assert not leftover.exists()


ASK = (
    "import sys; from harness.data.simulation.screens import simulated_store as s; "
    "print(s(*sys.argv[1:]).path)"
)


def test_two_processes_that_ask_at_once_get_the_same_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, "sim:tiny?cells=3", str(tmp_path)]
    asked = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0].strip() for process in asked}
    assert [process.returncode for process in asked] == [0, 0]
    (path,) = answers
    assert open_store(path).n_cells > 0
    assert not list(tmp_path.glob("*.partial"))
