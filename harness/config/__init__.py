"""YAML declarations: read, checked, and found by name.

`yaml` reads the files, `validation` turns every mistake into a file, a key and a sentence,
`parameter_checks` checks values against a model's type hints, and `lookup` finds a declaration by
its name. Cluster files and the types that several kinds of declaration share are here, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.config.cluster import OTHER_TOOLS as OTHER_TOOLS
    from harness.config.cluster import ClusterSpec as ClusterSpec
    from harness.config.cluster import check_cluster as check_cluster
    from harness.config.cluster import read_cluster as read_cluster
    from harness.config.input_file import InputFile as InputFile
    from harness.config.input_file import is_file as is_file
    from harness.config.input_file import read_file as read_file
    from harness.config.input_file import with_contents as with_contents
    from harness.config.lookup import Kind as Kind
    from harness.config.lookup import declarations as declarations
    from harness.config.lookup import find_declaration as find_declaration
    from harness.config.parameter_checks import kinds as kinds
    from harness.config.parameter_checks import missing as missing
    from harness.config.parameter_checks import parameter_problems as parameter_problems
    from harness.config.parameter_checks import value_problems as value_problems
    from harness.config.parameter_checks import words as words
    from harness.config.types import CELL_STEP as CELL_STEP
    from harness.config.types import CELLS as CELLS
    from harness.config.types import DATA_FACTORS as DATA_FACTORS
    from harness.config.types import ENTRY_KEYS as ENTRY_KEYS
    from harness.config.types import JSON as JSON
    from harness.config.types import CellStep as CellStep
    from harness.config.types import Controls as Controls
    from harness.config.types import Kept as Kept
    from harness.config.types import Name as Name
    from harness.config.types import Natural as Natural
    from harness.config.types import OwnCellStep as OwnCellStep
    from harness.config.types import Positive as Positive
    from harness.config.types import Seed as Seed
    from harness.config.validation import Declared as Declared
    from harness.config.validation import Problem as Problem
    from harness.config.validation import check_model as check_model
    from harness.config.validation import check_size as check_size
    from harness.config.validation import describe as describe
    from harness.config.yaml import read_yaml as read_yaml

_NAMES = {
    "cluster": "ClusterSpec OTHER_TOOLS check_cluster read_cluster",
    "input_file": "InputFile is_file read_file with_contents",
    "lookup": "Kind declarations find_declaration",
    "parameter_checks": "kinds missing parameter_problems value_problems words",
    "types": (
        "CELLS CELL_STEP CellStep Controls DATA_FACTORS ENTRY_KEYS JSON Kept Name Natural "
        "OwnCellStep Positive Seed"
    ),
    "validation": "Declared Problem check_model check_size describe",
    "yaml": "read_yaml",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
