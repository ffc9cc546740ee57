"""A trial as a value."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from harness.storage import canonical, text_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.config import JSON, Controls, OwnCellStep


@dataclass(frozen=True)
class TrialSpec:
    """The smallest thing scheduled and scored, as a value.

    `split_spec` is the split's declaration as canonical JSON, `fingerprint` that of the store's
    content, `parameters` are sorted and complete. `data` holds the data factors that differ from
    their defaults. `side` is ``validation`` for a trial to choose by. `prediction` says, for one
    that was made elsewhere, what is in the file and how it is read, as JSON. `inputs` has a digest
    of each file that a parameter names: the id is of the content, wherever it lies. `command` is,
    for a model that is a program, all of its declaration that decides what it predicts. What is
    left at its default is not in the trial's JSON, so that its id is that of a time before there
    were any.
    """

    dataset: str
    dataset_version: int
    fingerprint: str
    split: str
    split_spec: str
    fold: int
    model: str
    parameters: tuple[tuple[str, JSON], ...]
    cells: OwnCellStep | None
    seed: int
    controls: Controls
    data: tuple[tuple[str, JSON], ...] = ()
    side: Literal["validation", "test"] = "test"
    prediction: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    command: str = ""

    @cached_property  # asked for again and again
    def id(self) -> str:
        """The first 12 hexadecimal digits of a hash over everything that the trial computes."""
        named = self
        if self.inputs:  # the digest stands for the path
            parameters = {**dict(self.parameters), **dict(self.inputs)}
            named = replace(self, parameters=frozen_parameters(parameters))
        return text_digest(named.to_json())

    def __str__(self) -> str:
        return (
            f"Trial {self.id} ({self.model}, {self.dataset}, {self.split}, "
            f"fold {self.fold}, seed {self.seed})"
        )

    def to_json(self) -> str:
        """Return the trial as canonical JSON: equal trials give equal text."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {name: dict(values[name]) for name in _MAPPINGS}
        for name, default in _LEFT_OUT.items():
            if values[name] == default:
                del values[name]
        return canonical(values)

    @classmethod
    def from_json(cls, text: str) -> TrialSpec:
        """Read a trial that `to_json` wrote."""
        values = json.loads(text)
        for name in _MAPPINGS:
            values[name] = frozen_parameters(values.get(name, {}))
        values = {**_LEFT_OUT, **values}
        return cls(**{one.name: values[one.name] for one in fields(cls)})


_LEFT_OUT = {"data": {}, "side": "test", "prediction": "", "inputs": {}, "command": ""}
"""Fields that a trial's JSON has only where they differ from this."""


_MAPPINGS = ("parameters", "data", "inputs")
"""The fields of a trial that are mappings in its JSON."""


def frozen_parameters(parameters: Mapping[str, Any]) -> tuple[tuple[str, JSON], ...]:
    """Return parameters as a `TrialSpec` holds them: sorted by name, lists as tuples."""
    return tuple((name, _frozen(value)) for name, value in sorted(parameters.items()))


def _frozen(value: Any) -> JSON:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
