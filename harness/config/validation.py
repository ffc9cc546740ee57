"""Check declarations against pydantic models: all that is wrong at once, in our words.

What pydantic finds is turned into `Problem` values: a file, a dotted key (``models[2].rank``) and
a sentence that says what was found, what was expected, and the nearest known name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import near_match
from harness.storage import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import ErrorDetails


class Declared(BaseModel):
    """Base of what YAML declares: unknown keys are errors, values keep their YAML type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)


def check_model(model: type[T], data: Any, file: str) -> tuple[T | None, list[Problem]]:
    """Validate `data` as a `model`; on errors there is no model, but a list of all problems."""
    if data is None:
        return None, [Problem(file, "", "is empty.")]
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, _problems(model, data, file, error.errors(include_url=False))


def _problems(
    model: type[BaseModel], data: Any, file: str, errors: Iterable[ErrorDetails]
) -> list[Problem]:
    """Make one problem for each key; what the branches of a union expect is joined by "or"."""
    expected: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for error in errors:
        steps = _steps(error, data)
        key = dotted(steps)
        sentence, wanted = _sentence(error, model, steps)
        found.setdefault(key, sentence)
        if wanted and wanted not in expected.setdefault(key, []):
            expected[key].append(wanted)
    return [
        Problem(file, key, sentence.replace("{expected}", " or ".join(expected.get(key, []))))
        for key, sentence in found.items()
        # What is wrong inside a key says more than that the key's value is no text.
        if not (key in expected and any(_is_below(other, key) for other in found))
    ]


def _is_below(key: str, above: str) -> bool:
    return key.startswith((f"{above}.", f"{above}[")) if above else bool(key)


def dotted(steps: Iterable[str | int]) -> str:
    """Join the steps to a value, such as ``("models", 2, "rank")``, to ``models[2].rank``."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps
    ).removeprefix(".")


def _steps(error: ErrorDetails, data: Any) -> tuple[str | int, ...]:
    """Find the place of an error; pydantic's names for the branches of a union are left out."""
    steps: list[str | int] = []
    for step in error["loc"]:
        in_mapping = isinstance(data, dict) and step in data
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_mapping or in_list:
            data = data[step]
        elif error["type"] != "missing" or not isinstance(data, dict):
            continue
        steps.append(step)
    return tuple(steps)


_TYPES = {
    "int": "int",
    "float": "a number",
    "string": "str",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
    "none": "null",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "too_short": ("min_length", "{a list} no shorter than"),
    "string_too_short": ("min_length", "str no shorter than"),
}


def _sentence(
    error: ErrorDetails, model: type[BaseModel], steps: tuple[str | int, ...]
) -> tuple[str, str]:
    """Describe an error: a sentence, and what was expected for its ``{expected}``, if anything."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "is missing.", ""
    if kind == "extra_forbidden":
        known = tuple(name for owner in _owners(model, steps[:-1]) for name in owner.model_fields)
        return f"is not a known key. {near_match(str(steps[-1]), known)}", ""
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "literal_error":
        choices = tuple(re.findall(r"'([^']*)'", str(context["expected"])))
        close = near_match(value, choices) if isinstance(value, str) else ""
        hint = f" {close}" if close.startswith("Did") else ""
        return f"found {describe(value)}, expected {{expected}}.{hint}", str(context["expected"])
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        kind = "a mapping" if isinstance(value, dict) else "a list"
        words = words.replace("{a list}", kind)
        return f"found {describe(value)}, expected {{expected}}.", f"{words} {context[bound]:.12g}"
    wanted = _TYPES.get(kind.partition("_")[0], error["msg"])
    return f"found {describe(value)}, expected {{expected}}.", wanted


def _owners(model: type[BaseModel], steps: Iterable[str | int]) -> list[type[BaseModel]]:
    """List the pydantic models that may stand at `steps` below `model`."""
    owners = [model]
    for step in steps:
        fields = [o.model_fields[step] for o in owners if step in o.model_fields]
        if fields:  # else a list position or a free key of a mapping: still the same models
            owners = [m for field in fields for m in _models_in(field.annotation)]
    return owners


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def describe(value: Any) -> str:
    """Show a value with its type for a message, such as ``'two' (str)``; a long one is cut."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = repr(value)
    name = "mapping" if type(value) is dict else type(value).__name__
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({name})"


def check_size(text: str | None) -> str | None:
    """Check the text of a size and give it back; ``ValueError`` where it is no size."""
    if text is not None:
        parse_size(text)
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one declaration."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)
