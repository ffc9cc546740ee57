"""Scores of finished trials: results, statistics, tables and reports.

`Results` reads run folders. `statistics` has intervals, tests and ranks as array functions,
`tables` compares settings, `report` writes the page and the files of a paper.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.analysis.export import Form as Form
    from harness.analysis.export import export_results as export_results
    from harness.analysis.export import write_frame as write_frame
    from harness.analysis.query import query_results as query_results
    from harness.analysis.report import write_report as write_report
    from harness.analysis.report.page import report_html as report_html
    from harness.analysis.report.paper import export_paper as export_paper
    from harness.analysis.results import Results as Results
    from harness.analysis.results import write_scores as write_scores
    from harness.analysis.tables import Format as Format
    from harness.analysis.tables import Kind as Kind
    from harness.analysis.tables import Table as Table
    from harness.analysis.tables import tables_of as tables_of
    from harness.analysis.tables import write_batch_tables as write_batch_tables
    from harness.analysis.tables import write_tables as write_tables
    from harness.analysis.tables.metric_checks import FOLDER as FOLDER
    from harness.analysis.tables.metric_checks import trust_table as trust_table
    from harness.analysis.trials import read_run as read_run

_NAMES = {
    "export": "Form export_results write_frame",
    "query": "query_results",
    "report": "write_report",
    "report.page": "report_html",
    "report.paper": "export_paper",
    "results": "Results write_scores",
    "tables": "Format Kind Table tables_of write_batch_tables write_tables",
    "tables.metric_checks": "FOLDER trust_table",
    "trials": "read_run",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
