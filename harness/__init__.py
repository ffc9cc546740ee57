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
    from harness.analysis import Results
    from harness.data import Store, convert, open_store, simulate
    from harness.errors import HarnessError
    from harness.runs import run_for_results as run
    from harness.scoring import Scores, score

    __version__: str

_PUBLIC = {
    "HarnessError": ("errors", "HarnessError"),
    "Results": ("analysis", "Results"),
    "Scores": ("scoring", "Scores"),
    "Store": ("data", "Store"),
    "convert": ("data", "convert"),
    "open_store": ("data", "open_store"),
    "run": ("runs", "run_for_results"),
    "score": ("scoring", "score"),
    "simulate": ("data", "simulate"),
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
    package, public = _PUBLIC[name]
    return getattr(import_module(f"harness.{package}"), public)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
