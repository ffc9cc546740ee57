"""Comparative tables: reduce scores to means with intervals, ranks and a footer, and show them.

`reduction` makes arrays of score rows, `harness.statistics` resamples and tests them, `estimates`
computes what a table says, `compare` puts it together, `footer` says what must be said beside it,
`render` shows it. `ablation` is the table of what each factor of an ablation changes, `per_pair`
the one before the mean over pairs.
"""

from __future__ import annotations

from harness.statistics import Bootstrap
from harness.tables.ablation import ablation
from harness.tables.compare import compare
from harness.tables.pairs import per_pair
from harness.tables.table import Table
from harness.tables.writing import compare_suites, write_tables

__all__ = [
    "Bootstrap",
    "Table",
    "ablation",
    "compare",
    "compare_suites",
    "per_pair",
    "write_tables",
]
