"""`harness plan`: what a job comes to, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from harness.cli.console import Bars, out
from harness.cli.run import Reporter
from harness.runs import changed_code, estimates, older_defaults, plan_job, searched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.executors import Part
    from harness.runs import Estimate, Plan


def plan_(job: str, *, run: Annotated[str | None, Parameter(name=["--run", "-o"])] = None) -> int:
    """Show the trials of a job: what is done, what is missing, what it needs.

    Parameters
    ----------
    job
        A job's name, or its file.
    run
        The run folder; runs/NAME by default.
    """
    with Bars() as bars:
        plan = plan_job(job, run, Reporter(bars).preparing)
    out().print(summary(plan), soft_wrap=False)
    if text := searched(plan):
        out().print(text, markup=False)
    for text in (*changed_code(plan), *older_defaults(plan)):
        out().print(text, markup=False)
    return 0


def summary(plan: Plan) -> Table:
    """Return the trials of a plan, counted by model, with totals and needs below."""
    table = Table(title=f"{plan.path.name} → {plan.run.path}", title_justify="left", box=None)
    for heading in ("model", "trials", "done", "to score", "to run", "s/trial", "peak memory"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    known = estimates(plan)
    for model, found in known.items():
        took = "—" if found.seconds is None else f"{found.seconds:.2g}"
        held = "—" if found.memory is None else f"{found.memory / 1e6:.0f} MB"
        table.add_row(model, *_counts(plan, model), took, held)
    table.add_section()
    table.add_row("all", *_counts(plan), style="bold")
    seeds, folds = (len({getattr(t, name) for t in plan.trials}) for name in ("seed", "fold"))
    named = (dict.fromkeys(getattr(t, key) for t in plan.trials) for key in ("dataset", "split"))
    places = filter(None, (", ".join(filter(None, names)) for names in named))
    table.caption = (
        f"{' · '.join(places)} · {folds} folds · "
        f"{seeds} seeds. Each trial: {'; '.join(map(_needs, plan.parts))}. {_left(known.values())}"
    )
    if plan.search is not None and not plan.trials:
        table.caption = "No trial yet: the one that is scored is of the setting to be found."
    table.caption_justify = "left"
    return table


def _needs(part: Part) -> str:
    """Describe the needs of a part, such as ``fit and predict with 1 CPU, 0.5 GPUs``."""
    needs = part.needs
    amounts = [f"{needs.cpus:g} CPU{'' if needs.cpus == 1 else 's'}"]
    if needs.gpus:
        amounts.append(f"{needs.gpus:g} GPU{'' if needs.gpus == 1 else 's'}")
    if needs.memory:
        amounts.append(f"{needs.memory} of memory")
    amounts += [f"{number:g} {name}" for name, number in needs.custom.items()]
    return f"{' and '.join(part.stages)} with {', '.join(amounts)}"


def _left(found: Iterable[Estimate]) -> str:
    """Estimate the work that is left, from what ran before."""
    due = [one for one in found if one.n_missing]
    told = [one for one in due if one.left is not None]
    if not due:
        return "Nothing is left to do."
    n_unknown = sum(one.n_missing for one in due if one.left is None)
    unknown = (
        f"{n_unknown} trials of models that have not run yet: no estimate." if n_unknown else ""
    )
    if not told:
        return unknown
    amounts = [f"{sum(one.cpu_seconds or 0.0 for one in told) / 3600:.2g} CPU-hours"]
    if gpu := sum(one.gpu_seconds or 0.0 for one in told):
        amounts.append(f"{gpu / 3600:.2g} GPU-hours")
    if size := sum(one.n_missing * (one.size or 0.0) for one in told):
        amounts.append(f"{size / 1e6:.3g} MB in the run folder")
    return f"Left, by what ran before: {', '.join(amounts)}. {unknown}".strip()


def _counts(plan: Plan, model: str | None = None) -> list[str]:
    ids = {trial.id for trial in plan.trials if model in (None, trial.model)}
    done, scoring = ids & plan.done, ids & plan.scoring
    return [str(len(part)) for part in (ids, done, scoring, ids - done - scoring)]
