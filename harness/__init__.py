"""The benchmark harness for virtual-cell models.

>>> import harness
>>> results = harness.run("quickstart", on="inline")            # doctest: +SKIP
>>> scores = harness.score("truth.h5ad", "prediction.h5ad")     # doctest: +SKIP
>>> store = harness.open_store("screen.zarr")                   # doctest: +SKIP

Importing this package loads none of what it is built on; a public name does when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.results import Results
    from harness.data.conversion import convert
    from harness.data.simulation.screens import simulate
    from harness.data.store import Store, open_store
    from harness.errors import HarnessError
    from harness.runs.runner import run_for_results as run
    from harness.scoring.score import score
    from harness.scoring.scores import Scores

    __version__: str

_PUBLIC = {
    "HarnessError": "harness.errors:HarnessError",
    "Results": "harness.analysis.results:Results",
    "Scores": "harness.scoring.scores:Scores",
    "Store": "harness.data.store:Store",
    "convert": "harness.data.conversion:convert",
    "open_store": "harness.data.store:open_store",
    "run": "harness.runs.runner:run_for_results",
    "score": "harness.scoring.score:score",
    "simulate": "harness.data.simulation.screens:simulate",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("virtual-cell-harness")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
