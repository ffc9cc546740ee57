"""`harness plan`: what a job comes to, before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from harness.cli.console import Bars, out
from harness.cli.run_command import Reporter
from harness.planning import estimates
from harness.sweep import plan_job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.planning import Estimate
    from harness.sweep import Plan


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
        plan = plan_job(job, run, Reporter(bars))
    out().print(summary(plan), soft_wrap=False)
    return 0


def summary(plan: Plan) -> Table:
    """Return the trials of a plan, counted by model, with totals and needs below."""
    table = Table(title=f"{plan.path.name} → {plan.run.path}", title_justify="left", box=None)
    for heading in ("model", "trials", "done", "to score", "to run", "s/trial"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    known = estimates(plan)
    for model, found in known.items():
        took = "—" if found.seconds is None else f"{found.seconds:.2g}"
        table.add_row(model, *_counts(plan, model), took)
    table.add_section()
    table.add_row("all", *_counts(plan), style="bold")
    needs = plan.resources
    memory = f", {needs.memory} of memory" if needs.memory else ""
    seeds, folds = (len({getattr(t, name) for t in plan.trials}) for name in ("seed", "fold"))
    named = (dict.fromkeys(getattr(t, key) for t in plan.trials) for key in ("dataset", "split"))
    places = filter(None, (", ".join(filter(None, names)) for names in named))
    table.caption = (
        f"{' · '.join(places)} · {folds} folds · "
        f"{seeds} seeds. Each trial needs {needs.cpus:g} CPUs, {needs.gpus:g} GPUs{memory}. "
        f"{_left(known.values(), needs.cpus)}"
    )
    table.caption_justify = "left"
    return table


def _left(found: Iterable[Estimate], cpus: float) -> str:
    """Return what is left to do, as far as what ran before tells."""
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
    hours = sum(one.left or 0.0 for one in told) * cpus / 3600
    size = sum(one.n_missing * (one.size or 0.0) for one in told)
    kept = f" and {size / 1e6:.3g} MB in the run folder" if size else ""
    return f"Left, by what ran before: {hours:.2g} CPU-hours{kept}. {unknown}".strip()


def _counts(plan: Plan, model: str | None = None) -> list[str]:
    ids = {trial.id for trial in plan.trials if model in (None, trial.model)}
    done, scoring = ids & plan.done, ids & plan.scoring
    return [str(len(part)) for part in (ids, done, scoring, ids - done - scoring)]
