"""The settings that a model's entry means: lists crossed, ``zip:`` paired, filters applied.

A setting is complete: defaults are written in, so that a trial's id changes when a default does,
and one that is spelled out is the same trial as one that is left out.

A repetition is a trial with another seed. The first repetition of seed s has s itself, so that a
job which asks for more keeps what it has; the r-th has the first 31 bits of sha256 of ``"s/r"``,
the same on every machine and for every model.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config import DATA_FACTORS, kinds
from harness.errors import JobError, near_match
from harness.jobs.trial_spec import frozen_parameters
from harness.tasks import factor_value, factor_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from inspect import Parameter

    from harness.config import JSON
    from harness.jobs.job import ModelEntry

PLACES = ("dataset", "split")
"""What a filter may name beside parameters, ``cells`` and data factors."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A model with all of its parameters, ``cells`` among them, and the data factors it is given.

    `data` leaves defaults out.
    """

    model: str
    values: Mapping[str, Any]
    data: tuple[tuple[str, JSON], ...] = ()

    @property
    def parameters(self) -> tuple[tuple[str, JSON], ...]:
        """The parameters as a `TrialSpec` holds them, without ``cells``."""
        values = {name: value for name, value in self.values.items() if name != "cells"}
        return frozen_parameters(values)

    @property
    def named(self) -> dict[str, Any]:
        """Every factor of the setting by its name, the data factors at their defaults too."""
        return {**dict.fromkeys(DATA_FACTORS), **dict(self.data), **self.values}


def settings(
    given: Mapping[str, Any], zipped: Mapping[str, Sequence[Any]] | None = None
) -> list[dict[str, Any]]:
    """Cross the lists of an entry into single settings, the last key varying fastest.

    Parameters
    ----------
    given
        Parameters with one value or a list: "each of these".
    zipped
        Parameters whose values go together, first with first; crossed with the others as one.

    >>> settings({"rank": [4, 16], "ridge": 0.1})
    [{'rank': 4, 'ridge': 0.1}, {'rank': 16, 'ridge': 0.1}]
    >>> settings({"steps": 9}, {"rank": [4, 16], "ridge": [0.1, 1.0]})
    [{'steps': 9, 'rank': 4, 'ridge': 0.1}, {'steps': 9, 'rank': 16, 'ridge': 1.0}]
    """
    choices = [
        [{name: one} for one in (value if isinstance(value, list) else [value])]
        for name, value in given.items()
    ]
    if zipped:
        rows = zip(*zipped.values(), strict=True)
        choices.append([dict(zip(zipped, row, strict=True)) for row in rows])
    crossed = itertools.product(*choices)
    return [{k: v for part in parts for k, v in part.items()} for parts in crossed]


def settings_of(
    entry: ModelEntry, known: Mapping[str, Parameter], data: Mapping[str, Any] | None
) -> Iterator[Setting]:
    """Yield the settings of an entry, before its filters.

    Parameters
    ----------
    known
        The model's parameters, with `specs.CELLS` among them for one that predicts profiles.
    data
        The job's data factors, for an entry that has none of its own.
    """
    factors = [
        factor_values(chosen)
        for chosen in settings(entry.data if entry.data is not None else data or {})
    ]
    _check_zip(entry)
    for chosen in settings(entry.given, entry.zip):
        values = complete(entry.model, chosen, known)
        yield from (Setting(entry.model, values, factor) for factor in factors)


def _check_zip(entry: ModelEntry) -> None:
    zipped = entry.zip or {}
    lengths = {name: len(values) for name, values in zipped.items()}
    if entry.zip is not None and (not lengths or not all(lengths.values())):
        raise JobError("zip: found an empty list, expected values: it means no trial at all.")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise JobError(
            f"zip: found {found}, expected as many values of each: the first goes with the first. "
            "To cross them, write them beside zip."
        )
    both = [name for name in zipped if name in entry.given]
    if both:
        raise JobError(f"zip.{both[0]}: is given beside zip, too. Remove one of them.")


def complete(
    model: str, setting: Mapping[str, Any], known: Mapping[str, Parameter]
) -> dict[str, Any]:
    """Fill in the defaults of a setting; whole numbers become floats where one is declared."""
    wrong = [name for name in setting if name not in known or name == "seed"]
    if wrong:
        raise JobError(
            f"{wrong[0]!r} is not a parameter of {model}. {near_match(wrong[0], list(known))}"
        )
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        if name == "seed":
            continue
        value = setting.get(name, parameter.default)
        if value is parameter.empty:
            raise JobError(f"{name!r} is missing: {model} has no default for it.")
        options = kinds(parameter.annotation)
        # 1 and 1.0 are one setting of a float, and must have one id.
        as_float = type(value) is int and float in options and int not in options
        values[name] = float(value) if as_float else value
    return values


def repeated(seeds: Sequence[int], times: int) -> list[int]:
    """List the seeds of all repetitions, seed by seed.

    >>> repeated([0], 3)
    [0, 1419524863, 1323506485]
    """
    return list(dict.fromkeys(_repetition(s, r) for s in seeds for r in range(times)))


def _repetition(seed: int, number: int) -> int:
    """Compute the seed of a repetition, as the module says."""
    if number == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


class Filter:
    """``only:`` and ``except:`` of one entry; knows which of its partial settings fitted nothing.

    A filter without effect is a mistake, such as a value that the lists do not have.
    """

    def __init__(self, entry: ModelEntry, known: Mapping[str, Parameter]) -> None:
        self._only = entry.only
        self._parts = [
            (f"{key}[{i}]", part)
            for key, parts in (("only", entry.only), ("except", entry.except_))
            for i, part in enumerate(parts or ())
        ]
        self._unused = dict(self._parts)
        names = [*(name for name in known if name != "seed"), *DATA_FACTORS, *PLACES]
        for key, part in self._parts:
            for name in part:
                if name not in names:
                    hint = near_match(name, names)
                    raise JobError(f"{key}.{name}: is nothing that settings have. {hint}")
            if not part:
                raise JobError(f"{key}: is empty, expected at least one parameter and its value.")

    def keeps(self, setting: Setting, place: Mapping[str, str]) -> bool:
        """Whether a setting stays, at a dataset and split."""
        named = {**setting.named, **place}
        fitting = [key for key, part in self._parts if _fits(part, named)]
        for key in fitting:
            self._unused.pop(key, None)
        wanted = self._only is None or any(key.startswith("only") for key in fitting)
        return wanted and not any(key.startswith("except") for key in fitting)

    def check(self, kept: int) -> None:
        """Raise where a partial setting fitted nothing, or nothing is left."""
        for key, part in self._unused.items():
            shown = ", ".join(f"{name}={value!r}" for name, value in part.items())
            raise JobError(f"{key}: fits none of the entry's settings: {shown}. Remove it.")
        if not kept:
            raise JobError(
                "only and except leave no trial. Remove the entry, or one of its filters."
            )


def _fits(part: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    return all(
        any(
            named[name] == _read(name, value)
            for value in (wanted if isinstance(wanted, list) else [wanted])
        )
        for name, wanted in part.items()
    )


def _read(name: str, value: Any) -> Any:
    try:
        return factor_value(name, value) if name in DATA_FACTORS else value
    except ValueError as error:
        raise JobError(f"{name}: {error}") from None
