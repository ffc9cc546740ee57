"""Comparative tables: reduce scores to means with intervals, ranks and a footer, and show them.

`reduction` makes arrays of score rows, `drawing` resamples them, `harness.statistics` tests them.
`compare` is the comparison; `ablation`, `sweep`, `pairs`, `ranks`, `perturbations`, `strata`,
`cost` and `drift` are the other kinds, by name in `kinds`. `cells` says what stands in a cell,
`footer` what must be said beside it; `render`, `latex` and `hypertext` show it.
"""

from __future__ import annotations

from harness.statistics import Bootstrap
from harness.tables.ablation import ablation
from harness.tables.compare import compare
from harness.tables.kinds import Kind, tables_of
from harness.tables.perturbations import per_pair
from harness.tables.table import Format, Table
from harness.tables.writing import compare_suites, write_tables

__all__ = [
    "Bootstrap",
    "Format",
    "Kind",
    "Table",
    "ablation",
    "compare",
    "compare_suites",
    "per_pair",
    "tables_of",
    "write_tables",
]
