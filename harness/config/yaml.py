"""Read YAML in its JSON-like core (version 1.2).

Only ``true`` and ``false`` are truth values, so that a gene named ``NO`` or ``ON`` stays a name,
and ``1e-3`` is a number, which PyYAML's default reads as text. Duplicate keys, tabs and keys that
are not text are errors with their line: each of them otherwise changes a benchmark in silence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from harness.config.validation import Problem
from harness.errors import DeclarationError

if TYPE_CHECKING:
    from pathlib import Path


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
                problem=f"key {key!r} is {type(key).__name__}, expected str: put it in quotes",
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
    """Parse a YAML file; a syntax error is a `DeclarationError` with its line."""
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
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else ""
        raise DeclarationError(Problem(str(path), where, _syntax(error, text))) from error
    except yaml.YAMLError as error:
        raise DeclarationError(Problem(str(path), "", f"is not YAML: {error}.")) from error


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    line = text.split("\n")[mark.line] if mark else ""
    if "\t" in line and "'\\t'" in (error.problem or ""):
        return "a tab cannot indent YAML. Use spaces."
    context = f" {error.context}" if error.context else ""
    return f"{error.problem or 'is not YAML'}{context}."
