"""The benchmark harness for virtual-cell models.

>>> import harness
>>> results = harness.run("quickstart", on="inline")            # doctest: +SKIP
>>> scores = harness.score("truth.h5ad", "prediction.h5ad")     # doctest: +SKIP
>>> store = harness.open_store("screen.zarr")                   # doctest: +SKIP

Importing this package loads none of what it is built on; a public name does when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.convert import convert
    from harness.errors import HarnessError
    from harness.results import Results
    from harness.score import score
    from harness.scores import Scores
    from harness.simulate import simulate
    from harness.store import Store, open_store
    from harness.sweep import run_for_results as run

__version__ = "0.1.0"

_PUBLIC = {
    "HarnessError": "harness.errors:HarnessError",
    "Results": "harness.results:Results",
    "Scores": "harness.scores:Scores",
    "Store": "harness.store:Store",
    "convert": "harness.convert:convert",
    "open_store": "harness.store:open_store",
    "run": "harness.sweep:run_for_results",
    "score": "harness.score:score",
    "simulate": "harness.simulate:simulate",
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


class _Package(ModuleType):
    """The package itself, whose functions `score`, `simulate` and `convert` are named as modules.

    Importing a submodule sets it as an attribute of its package, which would hide the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'harness' has no attribute {name!r}")
        module, _, attribute = _PUBLIC[name].partition(":")
        return getattr(import_module(module), attribute)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
