"""The wall against leaks: splits of pairs, and what a model may see of a screen.

A split gives each pair of perturbation and context a side. A `Task` is a screen with a split; its
`TrainView` gives training cells and controls and raises for held-out pairs, its queries say what to
predict.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.tasks.data_factors import DataFactors as DataFactors
    from harness.tasks.data_factors import data_factor_problems as data_factor_problems
    from harness.tasks.data_factors import factor_value as factor_value
    from harness.tasks.data_factors import factor_values as factor_values
    from harness.tasks.split_kinds import KINDS as KINDS
    from harness.tasks.split_kinds import SplitSpec as SplitSpec
    from harness.tasks.split_kinds import parse_split as parse_split
    from harness.tasks.splits import Pair as Pair
    from harness.tasks.splits import n_folds as n_folds
    from harness.tasks.splits import ordered as ordered
    from harness.tasks.task import Prediction as Prediction
    from harness.tasks.task import Query as Query
    from harness.tasks.task import Task as Task
    from harness.tasks.task import TrainView as TrainView
    from harness.tasks.visible_cells import VisibleCells as VisibleCells
    from harness.tasks.visible_cells import kept_mean as kept_mean

_NAMES = {
    "data_factors": "DataFactors factor_value factor_values data_factor_problems",
    "split_kinds": "KINDS SplitSpec parse_split",
    "splits": "Pair n_folds ordered",
    "task": "Prediction Query Task TrainView",
    "visible_cells": "VisibleCells kept_mean",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
