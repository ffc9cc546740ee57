"""`harness list`: what there is, one line each, from the docstrings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich.table import Table

from harness.cli.console import out
from harness.config import declarations
from harness.data import presets, read_card, source_status
from harness.errors import DeclarationError
from harness.jobs import read_job
from harness.metrics import registered as metrics
from harness.metrics import registered_suites
from harness.models import broken, command_of
from harness.models import registered as models
from harness.tasks import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

Thing = Literal["models", "metrics", "datasets", "jobs", "splits"]
UNREADABLE = "cannot be read; see: harness check"


def list_(what: Thing) -> int:
    """Show what there is, one line each.

    Parameters
    ----------
    what
        models, metrics, datasets, jobs or splits.
    """
    listed = {
        "models": _models,
        "metrics": _metrics,
        "datasets": _datasets,
        "jobs": _jobs,
        "splits": _splits,
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in listed[what]():
        table.add_row(name, words)
    out().print(table, soft_wrap=False)
    return 0


def _models() -> Iterator[tuple[str, str]]:
    for name, info in models().items():
        kind = " (a ceiling: it sees half of the truth)" * info.ceiling
        kind = kind or " (a program, by its declaration)" * (command_of(name) is not None)
        yield name, f"{info.summary}{kind}"
    for name in broken():
        yield name, UNREADABLE


def _metrics() -> Iterator[tuple[str, str]]:
    members: dict[str, list[str]] = {}
    for suite in registered_suites().values():
        for name in suite.metrics:
            members.setdefault(name, []).append(suite.name)
    signs = {True: "↑", False: "↓", None: " "}
    for name, metric in metrics().items():
        where = f" [{', '.join(members[name])}]" if name in members else ""
        yield f"{signs[metric.higher_is_better]} {name}", f"{metric.summary}{where}"


def _datasets() -> Iterator[tuple[str, str]]:
    for name in declarations("datasets"):
        try:
            card = read_card(name)
        except DeclarationError:
            yield name, UNREADABLE
            continue
        yield name, f"{card.title} ({source_status(card)})"
    for name, preset in presets().items():
        yield f"sim:{name}", preset.title


def _jobs() -> Iterator[tuple[str, str]]:
    for name in declarations("jobs"):
        try:
            job = read_job(name)
        except DeclarationError:
            yield name, UNREADABLE
            continue
        yield name, job.title or f"{len(job.models)} models on {', '.join(job.datasets)}"


def _splits() -> Iterator[tuple[str, str]]:
    for name, kind in KINDS.items():
        yield name, (kind.__doc__ or "").strip().partition("\n")[0]
