"""One trial as calls for an executor: a call for each part of it, chained to the next."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.executors import STAGES, Call
from harness.runs.folder import RunFolder
from harness.runs.trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.executors import Part, Worker
    from harness.jobs import Limits
    from harness.runs.request import Errand


def chained(errand: Errand, parts: Sequence[Part], limits: Limits, behind: str | None) -> Call:
    """Return the first of the calls that carry out a trial; the others follow from it.

    Parameters
    ----------
    errand
        The trial.
    parts
        Which stages go together, and what they need.
    limits
        Those of each call.
    behind
        The last stage that need not be carried out any more.
    """
    done = STAGES[: STAGES.index(behind) + 1] if behind else ()
    left = [part for part in parts if not set(part.stages) <= set(done)]
    call: Call | None = None
    for part in reversed(left):
        call = _call(errand, part, limits, call)
    assert call is not None  # scoring is never behind a trial that is missing
    return call


def _call(errand: Errand, part: Part, limits: Limits, then: Call | None) -> Call:
    run, needs = RunFolder(errand.run), part.needs
    errand = replace(errand, stages=part.stages, threads=needs.threads, gpus=needs.gpus)
    return Call(
        errand.spec.id,
        run_trial,
        (errand,),
        needs,
        limit_s=limits.seconds,
        stall_s=limits.stall_seconds,
        silence=partial(run.silence, errand.spec.id),
        age=partial(run.age, errand.spec.id),
        worker=_worker(part),
        then=then,
    )


def _worker(part: Part) -> Worker:
    """Return which process is to carry a part: on a GPU, fits begin afresh and scoring stays."""
    if not part.needs.gpus:
        return "shared"
    return "lasting" if part.stages == ("score",) else "fresh"
