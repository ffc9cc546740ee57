"""Comparative tables: reduce scores to means with intervals, ranks and a footer, and show them.

`reduction` makes arrays of score rows, `drawing` resamples them, `statistics` tests them.
`compare` is the comparison; `ablation`, `sweep`, `pairs`, `ranks`, `perturbations`, `strata`,
`cost` and `drift` are the other kinds, by name in `kinds`. `cells` says what stands in a cell,
`table_notes` the notes below it; `render`, `latex` and `hypertext` show it.
"""

from __future__ import annotations

from harness.analysis.statistics import Bootstrap
from harness.analysis.tables.ablation import ablation
from harness.analysis.tables.comparison import compare
from harness.analysis.tables.kinds import Kind, tables_of
from harness.analysis.tables.per_perturbation import per_pair
from harness.analysis.tables.table import Format, Table
from harness.analysis.tables.write import compare_suites, write_batch_tables, write_tables

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
    "write_batch_tables",
    "write_tables",
]
