"""`harness export`: what a paper needs of runs."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from harness.cli.console import notes, split_names
from harness.errors import OptionError


def export_(
    *runs: Annotated[str, Parameter(required=True)],
    purpose: Annotated[Literal["paper"], Parameter(name="--for")] = "paper",
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    suite: str | None = None,
    baseline: str | None = None,
) -> int:
    """Write tables (LaTeX, CSV), figures (PDF, SVG), methods, citations and how to run it again.

    Parameters
    ----------
    runs
        Run folders.
    purpose
        What for; a paper.
    output
        The folder; by default paper/ in the first run folder.
    suite
        Which suites' scores, several with commas; all that there are by default.
    baseline
        The model that combined scores are measured from; the job's own by default.
    """
    try:
        import matplotlib  # noqa: F401, ICN001 - only whether it is there
    except ImportError as error:
        raise OptionError(
            "harness export draws with Matplotlib, which is not installed. Install it with: "
            "pip install 'virtual-cell-harness[paper]'"
        ) from error
    from harness.analysis import export_paper
    from harness.models import registered

    folder = output or f"{runs[0].rstrip('/')}/{purpose}"
    suites = split_names(suite)
    written = export_paper(runs, folder, registered(), suites=suites, baseline=baseline)
    notes().print(f"{folder}: {len(written)} files", markup=False)
    return 0
