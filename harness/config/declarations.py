"""Read YAML and check it against a pydantic model: all that is wrong at once, in our words.

YAML here is its JSON-like core (version 1.2): only ``true`` and ``false`` are truth values, so
that a gene named ``NO`` or ``ON`` stays a name, and ``1e-3`` is a number, which PyYAML's default
reads as text. Duplicate keys, tabs and keys that are not text are errors with their line: each of
them otherwise changes a benchmark in silence.

What pydantic finds is turned into `Problem` values: a file, a dotted key (``models[2].rank``) and
a sentence that says what was found, what was expected, and the nearest known name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import DeclarationError, near_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one declaration."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)


class Declared(BaseModel):
    """Base of what YAML declares: unknown keys are errors, values keep their YAML type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)


# --- YAML ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, reduced to the core schema, refusing what is ambiguous."""

    # None of the parent's: its YAML 1.1 rules read NO as false, 1e-3 as text and 012 as ten.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 — PyYAML reads it from the class


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_Loader.yaml_implicit_resolvers[""] = [("tag:yaml.org,2002:null", re.compile(r"^$"))]
_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 10)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f"key {key!r} is {_type_name(key)}, expected str: put it in quotes",
                problem_mark=key_node.start_mark,
            )
        if key in result:
            raise yaml.MarkedYAMLError(
                problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file says; what cannot be read is a `DeclarationError` with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DeclarationError(
            Problem(str(path), "", f"cannot be read: {error.strerror}.")
        ) from error
    except UnicodeDecodeError as error:
        raise DeclarationError(Problem(str(path), "", "is not a UTF-8 text file.")) from error
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 — _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise DeclarationError(Problem(str(path), _where(error), _syntax(error, text))) from error
    except yaml.YAMLError as error:
        raise DeclarationError(Problem(str(path), "", f"is not YAML: {error}.")) from error


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}" if mark else ""


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    line = text.split("\n")[mark.line] if mark else ""
    if "\t" in line and "'\\t'" in (error.problem or ""):
        return "a tab cannot indent YAML. Use spaces."
    context = f" {error.context}" if error.context else ""
    return f"{error.problem or 'is not YAML'}{context}."


# --- models -------------------------------------------------------------------------------------


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
