"""Check declarations against pydantic models: all that is wrong at once, in our words.

What pydantic finds is turned into `Problem` values: a file, a dotted key (``models[2].rank``) and
a sentence that says what was found, what was expected, and the nearest known name.
"""

from __future__ import annotations

import operator
import re
import types
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.config.input_file import choices, is_file, takes_file
from harness.errors import near_match
from harness.storage import exists, parse_size

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from pydantic_core import ErrorDetails

    Found = tuple[str, str]


class Declared(BaseModel):
    """Base of what YAML declares: unknown keys are errors, values keep their YAML type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)


def check_model(model: type[T], data: Any, file: str) -> tuple[T | None, list[Problem]]:
    """Return `data` as a `model`, or nothing and everything that is wrong with it."""
    if data is None:
        return None, [Problem(file, "", "is empty.")]
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, _problems(model, data, file, error.errors(include_url=False))


def _problems(
    model: type[BaseModel], data: Any, file: str, errors: Iterable[ErrorDetails]
) -> list[Problem]:
    """One problem for each key: the branches of a union are joined by "or"."""
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
        if not (key in expected and any(_is_below(other, key) for other in found))
    ]


def _is_below(key: str, above: str) -> bool:
    """Whether a key is inside another: what is wrong inside says more than that it is no text."""
    return key.startswith((f"{above}.", f"{above}[")) if above else bool(key)


def dotted(steps: Iterable[str | int]) -> str:
    """Return ``("models", 2, "rank")`` as ``models[2].rank``."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps
    ).removeprefix(".")


def _steps(error: ErrorDetails, data: Any) -> tuple[str | int, ...]:
    """Return the error's place, without pydantic's names for the branches of a union."""
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
    """Return what is wrong, with ``{expected}`` as a place for the second, what was expected."""
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
    """Return the models that may stand at `steps` below `model`."""
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
    """Return a value as a message shows it: ``'two' (str)``, cut when long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({_type_name(value)})"


def _type_name(value: Any) -> str:
    names: Mapping[type, str] = {dict: "mapping", type(None): "null", bool: "true or false"}
    return names.get(type(value), type(value).__name__)


def check_size(text: str | None) -> str | None:
    """Return the text of a size; ``ValueError`` where it is none."""
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


def parameter_problems(
    key: str, owner: str, given: dict[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Yield the problems of parameters; each has one value or a list of values."""
    for name, value in given.items():
        if name not in known:
            hint = near_match(name, tuple(known))
            yield f"{key}.{name}", f"is not a parameter of {owner}. {hint}"
        elif value == []:
            yield f"{key}.{name}", "is an empty list: it means no trial at all."
        else:
            yield from value_problems(f"{key}.{name}", value, known[name].annotation)


def missing(
    key: str, owner: str, given: Container[str], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Yield the parameters that are not given and have no default."""
    for name, parameter in known.items():
        if parameter.default is Parameter.empty and name not in given:
            yield f"{key}.{name}", f"is missing: {owner} has no default for it."


def value_problems(key: str, value: Any, annotation: Any) -> Iterator[Found]:
    """Yield the problems of one value, or of a list of values, with an annotation."""
    many = value if isinstance(value, list) else [value]
    for i, one in enumerate(many):
        place = f"{key}[{i}]" if isinstance(value, list) else key
        if not accepts(annotation, one):
            yield place, f"found {describe(one)}, expected {words(annotation)}."
        elif is_file(annotation, one) and not exists(one):
            yield place, f"there is no file {one!r}.{_choice_near(one, annotation)}"


def _choice_near(value: str, annotation: Any) -> str:
    """Return a "Did you mean" sentence for an unknown file; empty without a near match."""
    close = get_close_matches(value, choices(annotation), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value from YAML fits an annotation; one that is not understood fits anything."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(accepts(option, value) for option in get_args(annotation))
    if origin is Annotated:
        plain, *bounds = get_args(annotation)
        return accepts(plain, value) and all(_within(bound, value) for bound in bounds)
    if origin is Literal:
        return any(type(value) is type(a) and value == a for a in get_args(annotation))
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation in (int, str, bool):
        return type(value) is annotation
    return True


def _within(bound: Any, value: Any) -> bool:
    """Whether a value keeps a bound; what is no bound on it does not matter."""
    kept = {Ge: operator.ge, Gt: operator.gt, Le: operator.le, Lt: operator.lt}.get(type(bound))
    if kept is None or isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return bool(kept(value, getattr(bound, type(bound).__name__.lower())))


def kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the types in an annotation, without the metadata of `Annotated`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for option in get_args(annotation) for kind in kinds(option))
    return (get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation,)


def words(annotation: Any) -> str:
    """Return an annotation as a message has it."""
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(words(option) for option in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " or ".join(repr(option) for option in get_args(annotation))
    if takes_file(annotation):
        return "the path of a file"
    if get_origin(annotation) is Annotated:
        plain, *bounds = get_args(annotation)
        bounded = " and ".join(text for text in map(_bound, bounds) if text)
        return f"{words(plain)}, {bounded}" if bounded else words(plain)
    plain = {float: "a number", bool: "true or false", type(None): "null", None: "null"}
    return plain.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _bound(bound: Any) -> str:
    said = {Ge: "at least {}", Gt: "above {}", Le: "at most {}", Lt: "below {}"}
    text = said.get(type(bound))
    return text.format(getattr(bound, type(bound).__name__.lower())) if text else ""
