"""Submissions to the Virtual Cell Challenge: written, checked and read.

`prepare` writes a prediction as a ``.vcc`` archive, `check_submission` says everything that the
challenge would refuse.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.challenge.checks import Rules as Rules
    from harness.challenge.checks import read_genes as read_genes
    from harness.challenge.checks import read_perturbations as read_perturbations
    from harness.challenge.submission import Layout as Layout
    from harness.challenge.submission import check_submission as check_submission
    from harness.challenge.submission import prepare as prepare

_NAMES = {
    "checks": "Rules read_genes read_perturbations",
    "submission": "Layout check_submission prepare",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
