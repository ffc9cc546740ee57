"""The report as one HTML page: no network, no server; what it needs of Plotly is inside."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from harness.analysis.report import plotly_figures as figures
from harness.analysis.report.gene_figures import gene_figures
from harness.analysis.report.methods import citations, failures, methods, provenance
from harness.analysis.results import Results
from harness.analysis.tables import tables_of
from harness.analysis.tables.html import fragment
from harness.analysis.tables.metric_checks import trust_of
from harness.analysis.tables.score_array import BLOCK
from harness.analysis.tables.selection import suite_names
from harness.errors import DataError
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    import pandas as pd

    from harness.analysis.report.methods import ModelSummary
    from harness.analysis.report.plotly_figures import Figure
    from harness.analysis.tables import Kind, Table

    Runs = str | PathLike[str] | Sequence[str | PathLike[str]]

MOST_SETTINGS = 200
"""Beyond so many settings, tables that compare each with each are left to `harness table`."""


@dataclass(frozen=True, slots=True)
class Part:
    """One section of the page: tables as HTML, and figures."""

    name: str
    title: str
    intro: str
    tables: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()


def write_report(
    runs: Runs,
    output: str,
    models: Mapping[str, ModelSummary],
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    title: str | None = None,
) -> None:
    """Write the report of runs to a file or URL; see `report_html`."""
    page = report_html(Results(runs), models, suites=suites, baseline=baseline, title=title)
    paths.write_atomic(output, page)


def report_html(
    results: Results,
    models: Mapping[str, ModelSummary],
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    title: str | None = None,
    live: bool = False,
) -> str:
    """Return the page.

    Parameters
    ----------
    results
        Of one run or several.
    models
        Every registered model by name.
    suites
        By which scores; all that there are by default.
    baseline
        What combined scores are measured from; what the jobs say by default.
    title
        Its heading; the runs' names by default.
    live
        Whether the page asks again while the run goes on, as ``harness watch`` serves it.

    Raises
    ------
    DataError
        The folders hold no run.
    """
    if results.trials.empty:
        raise DataError(
            f"{', '.join(results.runs)}: nothing to report. Found no trial, expected a folder that "
            "`harness run` wrote, such as runs/quickstart."
        )
    names = tuple(suites) or tuple(suite_names(results))
    parts = tuple(_parts(results, names, baseline)) if names else ()
    states = results.trials["state"].value_counts().to_dict()
    page: str = _template().render(
        title=title or ", ".join(run.rstrip("/").rpartition("/")[2] for run in results.runs),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        states=states,
        datasets=sorted(set(results.trials["dataset"].astype(str))),
        suites=names,
        parts=parts,
        data=_embedded(figure for part in parts for figure in part.figures),
        methods=methods(results, names, models),
        citations=citations(results, names, models),
        provenance=provenance(results),
        failures=failures(results),
        style=_asset("style.css"),
        script=_asset("page.js"),
        plotly=_plotly() if any(part.figures for part in parts) else "",
        live=live,
    )
    return page


def _parts(results: Results, suites: Sequence[str], baseline: str | None) -> Iterator[Part]:
    def made(kind: Kind) -> tuple[Table, ...]:
        found = tables_if_any(results, kind, suites, baseline)
        return tuple(table for table in found if kind == "comparison" or not table.frame.empty)

    comparison = made("comparison")
    yield Part(
        "comparison",
        "Which model, by how much",
        "Every model and setting by every metric, best first. Click a heading to sort.",
        _html(comparison),
        _drawn(figures.forest, comparison),
    )
    n_settings = max(len(table.frame) for table in comparison)
    ranks = made("ranks") if n_settings <= MOST_SETTINGS else ()
    yield Part(
        "ranks",
        "How sure the order is",
        "Ranks with intervals, by every metric and by the mean over metrics.",
        _html(ranks),
        _drawn(figures.rank_plot, ranks),
    )
    cost = made("cost")
    yield Part(
        "cost",
        "Score against cost",
        "What a trial of each setting takes, beside what it gets.",
        _html(cost),
        _drawn(figures.cost_plot, cost),
    )
    ablation = made("ablation")
    yield Part(
        "ablation",
        "Which ingredient makes the difference",
        "Each factor changed alone from the base, over the same pairs.",
        _html(ablation),
        _drawn(figures.ablation_plot, ablation),
    )
    sweep = made("sweep")
    yield Part(
        "sweep",
        "What each parameter does",
        "Marginal effects, and the best setting with where it was chosen.",
        _html(sweep),
        (*_drawn(figures.heat_maps, comparison), *figures.curves_plot(curves_of(results))),
    )
    strata = made("strata")
    pairs = _of_best(made("perturbations"), comparison)
    yield Part(
        "perturbations",
        "Where models fail",
        "Scores by effect size, number of cells and expression of the target, and pair by pair.",
        _html(strata),
        (*_drawn(figures.effect_plot, pairs), *gene_figures(results, comparison[0].frame)),
    )
    trust = trust_of(results)
    yield Part(
        "trust",
        "What the metrics are worth here",
        "Whether a metric tells a replicate from the mean of others, and which tricks raise it.",
        _html(trust),
    )


def tables_if_any(
    results: Results, kind: Kind, suites: Sequence[str], baseline: str | None
) -> tuple[Table, ...]:
    """Return the tables of a kind; none where the runs do not allow it."""
    try:
        return tables_of(results, kind, suites=suites, baseline=baseline)
    except DataError:
        return ()  # no job of these runs is an ablation


def _of_best(pairs: Sequence[Table], comparison: Sequence[Table]) -> tuple[Table, ...]:
    """Return tables of single pairs, cut to the best setting of each model."""
    tables = []
    for table, compared in zip(pairs, comparison, strict=False):
        keys = [name for name in (*BLOCK, "model", "setting") if name in table.frame]
        best = compared.frame.drop_duplicates(keys[:-1])[keys]
        same = table.frame[keys].astype(str).agg(tuple, axis=1)
        wanted = same.isin(set(best.astype(str).itertuples(index=False, name=None)))
        tables.append(replace(table, frame=table.frame[wanted]))
    return tuple(tables)


def _html(tables: Sequence[Table]) -> tuple[str, ...]:
    return tuple(fragment(table.sections, table.notes) for table in tables)


def _drawn(draw: Any, tables: Sequence[Table]) -> tuple[Figure, ...]:
    return tuple(figure for table in tables for figure in draw(table))


def curves_of(results: Results) -> dict[str, pd.DataFrame]:
    """Return the learning curves that trials have stored, by the trial's name."""
    import pandas as pd

    found = {}
    trials = results.trials
    for row in trials[trials["state"] == "done"].to_dict("records"):
        path = paths.join(str(row["run"]), "trials", str(row["trial"]), "curve.parquet")
        if row.get("trains", True) and paths.exists(path):
            name = f"{row['model']} fold {row['fold']} seed {row['seed']} ({row['trial']})"
            found[name] = pd.read_parquet(path)
    return found


def _embedded(drawn: Iterator[Figure]) -> str:
    """Return the figures' data as JSON that is safe within a script element."""
    data = {figure.name: dict(figure.variants) for figure in drawn}
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("harness.analysis.report") / "assets" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # An end of script within the library would end ours.
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["slug"] = lambda text: "".join(c if c.isalnum() else "-" for c in text)
    return environment.from_string(_asset("page.html"))
