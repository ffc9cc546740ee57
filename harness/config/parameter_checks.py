"""Check values from YAML against the parameters that a function declares."""

from __future__ import annotations

import operator
import types
from difflib import get_close_matches
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from harness.config.declarations import describe
from harness.config.input_file import choices, is_file, takes_file
from harness.errors import near_match
from harness.storage.paths import exists

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    Found = tuple[str, str]


def wrong_parameters(
    key: str, owner: str, given: dict[str, Any], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Yield what is wrong with parameters that are given, each with one value or a list."""
    for name, value in given.items():
        if name not in known:
            hint = near_match(name, tuple(known))
            yield f"{key}.{name}", f"is not a parameter of {owner}. {hint}"
        elif value == []:
            yield f"{key}.{name}", "is an empty list: it means no trial at all."
        else:
            yield from wrong_values(f"{key}.{name}", value, known[name].annotation)


def missing(
    key: str, owner: str, given: Container[str], known: Mapping[str, Parameter]
) -> Iterator[Found]:
    """Yield the parameters that are not given and have no default."""
    for name, parameter in known.items():
        if parameter.default is Parameter.empty and name not in given:
            yield f"{key}.{name}", f"is missing: {owner} has no default for it."


def wrong_values(key: str, value: Any, annotation: Any) -> Iterator[Found]:
    """Yield what does not fit an annotation, of one value or a list."""
    many = value if isinstance(value, list) else [value]
    for i, one in enumerate(many):
        place = f"{key}[{i}]" if isinstance(value, list) else key
        if not accepts(annotation, one):
            yield place, f"found {describe(one)}, expected {words(annotation)}."
        elif is_file(annotation, one) and not exists(one):
            yield place, f"there is no file {one!r}.{_choice_near(one, annotation)}"


def _choice_near(value: str, annotation: Any) -> str:
    """Return what might have been meant instead of a file, in a sentence; nothing often."""
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
    """Return the types that an annotation allows, without what is said of them besides."""
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
