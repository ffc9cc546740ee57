"""The files that trials name by their parameters, and what is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.config import is_file
from harness.errors import JobError
from harness.models import parameters_of
from harness.storage import content_digest, paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from inspect import Parameter

    from harness.jobs import SearchJob, TrialSpec


def with_inputs(trials: Sequence[TrialSpec]) -> Iterator[TrialSpec]:
    """Yield trials with a digest of each file that they name; each file is looked at once.

    Raises
    ------
    JobError
        Two files hold the same, so that two settings would be one trial.
    """
    digests: dict[str, str] = {}
    by_id: dict[str, TrialSpec] = {}
    known_of = {model: parameters_of(model) for model in {trial.model for trial in trials}}
    for trial in trials:
        named = dict(_files(trial, known_of[trial.model]))
        for path in named.values():
            digests[path] = digests.get(path) or content_digest(path)
        inputs = {name: digests[path] for name, path in named.items()}
        known = replace(trial, inputs=tuple(sorted(inputs.items())))
        if inputs and by_id.setdefault(known.id, known) != known:
            other = dict(_files(by_id[known.id], known_of[trial.model]))
            name = next(name for name in named if named[name] != other[name])
            raise JobError(
                f"{trial.model}: {name} {other[name]!r} and {named[name]!r} hold the same, and "
                "would be one trial. Remove one."
            )
        yield known


def wherever(trial: TrialSpec) -> TrialSpec:
    """Return a trial whose files are found by a worker in any folder; its id is the same."""
    places = dict(trial.parameters)
    places |= {name: paths.absolute(str(places[name])) for name, _ in trial.inputs}
    return replace(trial, parameters=tuple(sorted(places.items())))


def digests_of_choices(job: SearchJob) -> dict[str, dict[str, str]]:
    """Return, under ``files``, a digest of each file that a search chooses from; else nothing."""
    known = parameters_of(job.model)
    found = {
        str(value): content_digest(value)
        for name, dimension in job.space.items()
        for value in dimension.choice or ()
        if is_file(known[name].annotation, value)
    }
    return {"files": found} if found else {}


def _files(trial: TrialSpec, known: Mapping[str, Parameter]) -> Iterator[tuple[str, str]]:
    for name, value in trial.parameters:
        if is_file(known[name].annotation, value):
            yield name, str(value)
