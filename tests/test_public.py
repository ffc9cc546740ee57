"""What `import harness` offers."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import harness


def test_the_public_names() -> None:
    assert sorted(harness.__all__) == [
        "HarnessError",
        "Results",
        "Scores",
        "Store",
        "__version__",
        "convert",
        "open_store",
        "run",
        "score",
        "simulate",
    ]


@pytest.mark.parametrize("name", ["convert", "open_store", "run", "score", "simulate"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name: str) -> None:
    code = f"""
import harness.scoring.scorer, harness.data.simulation.screens, harness.data.conversion
import harness
assert callable(harness.{name}), harness.{name}
from harness import {name}
assert callable({name})
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("name", [name for name in harness.__all__ if name != "__version__"])
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(harness, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'scores_of_all'"):
        _ = harness.scores_of_all  # type: ignore[attr-defined]
