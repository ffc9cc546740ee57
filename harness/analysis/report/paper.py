"""What a paper needs of runs: tables, figures, methods, citations, and how to run it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.analysis.report.matplotlib_figures import drawings
from harness.analysis.report.methods import citations, methods, provenance
from harness.analysis.report.page import tables_if_any
from harness.analysis.results import Results
from harness.analysis.tables.selection import suite_names
from harness.analysis.trials import read_run
from harness.config import declarations
from harness.errors import DataError
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.analysis.report.methods import ModelSummary
    from harness.analysis.tables import Kind, Table

KINDS: tuple[Kind, ...] = ("comparison", "ranks", "pairs", "ablation", "sweep", "strata", "cost")


def export_paper(
    runs: Sequence[str],
    output: str,
    models: Mapping[str, ModelSummary],
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
) -> list[str]:
    """Write the files of a paper and return their names.

    ``tables/KIND-SUITE.tex`` and ``.csv``; ``figures/NAME.pdf`` and ``.svg``; ``methods.md``;
    ``citations.md``; ``reproduce.md``, whose commands run the jobs again.

    Parameters
    ----------
    runs
        Run folders.
    output
        The folder.
    models
        Every registered model by name.
    suites, baseline
        As `harness.analysis.report.report_html` takes them.

    Raises
    ------
    DataError
        There are no scores to write about.
    """
    results = Results(runs)
    names = tuple(suites) or tuple(suite_names(results))
    if not names:
        raise DataError(
            f"{', '.join(results.runs)}: nothing to export. Found no scores, expected finished "
            "trials. See what is missing with: harness status RUN."
        )
    files: dict[str, str | bytes] = {}
    made: dict[Kind, list[Table]] = {}
    for kind in KINDS:
        compared = None if kind == "pairs" else baseline
        found = tables_if_any(results, kind, names, compared)
        kept = kind in {"comparison", "cost"}
        made[kind] = [table for table in found if kept or not table.frame.empty]
        for table in made[kind]:
            stem = f"tables/{kind}-{table.suite.replace(':', '-')}"
            files |= {f"{stem}.tex": table.to_latex(), f"{stem}.csv": table.to_csv()}
    ranks = {table.suite: table for table in made["ranks"]}
    for comparison, cost in zip(made["comparison"], made["cost"], strict=True):
        for name, forms in drawings(comparison, ranks.get(comparison.suite), cost):
            stem = f"figures/{name}-{comparison.suite.replace(':', '-')}"
            files |= {f"{stem}.{form}": content for form, content in forms.items()}
    files["methods.md"] = f"# Methods\n\n{' '.join(methods(results, names, models))}\n"
    listed = (f"- **{name}**: {text}" for name, text in citations(results, names, models))
    files["citations.md"] = "\n".join(["# What to cite", "", *listed, ""])
    files["reproduce.md"] = _reproduce(results)
    for name, content in files.items():
        paths.write_atomic(paths.join(output, name), content)
    return list(files)


def _reproduce(results: Results) -> str:
    """Return the commands that run the jobs of the runs again, and what ran them."""
    lines = ["# How to run this again", ""]
    for run, said in zip(results.runs, provenance(results), strict=True):
        name = run.rstrip("/").rpartition("/")[2]
        version = said["harness"] or "the version named in run.json"
        lines += [
            f"## {name}",
            "",
            f"Run with virtual-cell-harness {version}, commit {said['commit'] or 'unknown'}, "
            f"Python {said['python'] or 'unknown'}. The job as it was written:",
            "",
            "```yaml",
            _job_text(run),
            "```",
            "",
            "```",
            f"pip install virtual-cell-harness=={said['harness']}" if said["harness"] else "",
            *(f"harness fetch {name}" for name in _fetched(results, run)),
            f"harness run {name}.yaml -o runs/{name}      # the job above, saved as {name}.yaml",
            f"harness report runs/{name} -o report.html",
            "```",
            "",
        ]
    return "\n".join(lines)


def _job_text(run: str) -> str:
    path = paths.join(run, "job.yaml")
    return paths.read_text(path).rstrip() if paths.exists(path) else str(read_run(run).get("job"))


def _fetched(results: Results, run: str) -> list[str]:
    """Return the datasets of a run that have a card to fetch."""
    known = declarations("datasets")
    of_run = results.trials.loc[results.trials["run"] == run, "dataset"].astype(str)
    return [name for name in dict.fromkeys(of_run) if name in known]
