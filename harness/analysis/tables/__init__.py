"""Comparative tables: reduce scores to means with intervals, ranks and a footer, and show them.

`score_array` makes arrays of score rows, `resampling` resamples them.
`compare` is the comparison; `ablation`, `sweep`, `pairs`, `ranks`, `perturbations`, `strata`,
`cost` and `drift` are the other kinds, by name in `kinds`. `formatting` makes the cells of a table,
`notes` the notes below it; `text`, `latex` and `html` show it.
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
