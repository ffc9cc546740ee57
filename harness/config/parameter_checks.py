"""Check values of parameters, as YAML gives them, against the type hints of a model.

A hint is a plain type, a `Literal`, a union, or an `Annotated` type with bounds or the mark of an
`InputFile`. A hint of any other kind accepts every value.
"""

from __future__ import annotations

import operator
import types
from difflib import get_close_matches
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from harness.config.input_file import choices, is_file, takes_file
from harness.config.validation import describe
from harness.errors import near_match
from harness.storage import exists

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    Found = tuple[str, str]

_UNIONS = (Union, types.UnionType)
_BOUNDS = {
    Ge: ("ge", "at least"),
    Gt: ("gt", "above"),
    Le: ("le", "at most"),
    Lt: ("lt", "below"),
}
"""Bounds, each with its name as an attribute and in `operator`, and its words in messages."""


def parameter_problems(
    key: str, owner: str, given: dict[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Check parameters; each has one value or a list of values. Yields keys and messages."""
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
    """Find parameters that are not given and have no default. Yields keys and messages."""
    for name, parameter in known.items():
        if parameter.default is Parameter.empty and name not in given:
            yield f"{key}.{name}", f"is missing: {owner} has no default for it."


def value_problems(key: str, value: Any, annotation: Any) -> Iterator[Found]:
    """Check one value, or a list of values, against a hint. Yields keys and messages."""
    many = value if isinstance(value, list) else [value]
    for i, one in enumerate(many):
        place = f"{key}[{i}]" if isinstance(value, list) else key
        if not accepts(annotation, one):
            yield place, f"found {describe(one)}, expected {words(annotation)}."
        elif is_file(annotation, one) and not exists(one):
            close = get_close_matches(one, choices(annotation), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            yield place, f"there is no file {one!r}.{hint}"


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value from YAML fits a hint; a hint of an unknown kind accepts every value."""
    origin = get_origin(annotation)
    if origin in _UNIONS:
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
    """Whether a number keeps a bound; other metadata and other values do not matter."""
    if type(bound) not in _BOUNDS or isinstance(value, bool) or not isinstance(value, int | float):
        return True
    name, _ = _BOUNDS[type(bound)]
    return bool(getattr(operator, name)(value, getattr(bound, name)))


def kinds(annotation: Any) -> tuple[Any, ...]:
    """List the types in a hint, without the metadata of `Annotated`."""
    if get_origin(annotation) in _UNIONS:
        return tuple(kind for option in get_args(annotation) for kind in kinds(option))
    return (get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation,)


def words(annotation: Any) -> str:
    """Put a hint into the words of a message, such as ``int, at least 1 or null``."""
    if get_origin(annotation) in _UNIONS:
        return " or ".join(words(option) for option in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " or ".join(repr(option) for option in get_args(annotation))
    if takes_file(annotation):
        return "the path of a file"
    if get_origin(annotation) is Annotated:
        plain, *bounds = get_args(annotation)
        known = [(bound, *_BOUNDS[type(bound)]) for bound in bounds if type(bound) in _BOUNDS]
        limits = " and ".join(f"{said} {getattr(bound, name)}" for bound, name, said in known)
        return f"{words(plain)}, {limits}" if limits else words(plain)
    plain = {float: "a number", bool: "true or false", type(None): "null", None: "null"}
    return plain.get(annotation) or str(getattr(annotation, "__name__", annotation))
