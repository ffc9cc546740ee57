"""The report of one or several runs: one page that needs no network, and files for a paper.

`figures` makes data of tables, `genes` those of chosen pairs, `prose` writes methods, provenance
and failures, `page` puts it together. Numbers are those of `tables`; nothing is computed
here that is not in a table or a file of the run.
"""

from __future__ import annotations

from harness.analysis.report.page import report_html, write_report

__all__ = ["report_html", "write_report"]
