"""Files that a model reads beside the screen: a table of features, weights, a graph of genes.

A parameter that is declared as `InputFile` holds a path or a URL. What the model computes depends
on what is in the file, not on where it lies: so its content is part of a trial's identity and its
place is not. A moved file computes nothing anew, and one that was written anew does.

::

    def __init__(self, *, graph: InputFile, weights: Literal["none"] | InputFile = "none") -> None:
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from harness.errors import DataError
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = "harness: input file"

InputFile = Annotated[str, MARK]
"""The path or URL of a file that a model reads; see the module."""

SHOWN_DIGITS = 8
"""How many digits of a digest stand in a table."""


def takes_file(annotation: Any) -> bool:
    """Whether a parameter can be the name of an input file."""
    if get_origin(annotation) is Annotated:
        return MARK in annotation.__metadata__
    return any(takes_file(option) for option in get_args(annotation))


def is_file(annotation: Any, value: Any) -> bool:
    """Whether a value of a parameter names an input file, and is none of its fixed choices."""
    return isinstance(value, str) and takes_file(annotation) and value not in choices(annotation)


def choices(annotation: Any) -> tuple[str, ...]:
    """List the fixed values that a parameter accepts in place of a file."""
    if get_origin(annotation) is Literal:
        return tuple(value for value in get_args(annotation) if isinstance(value, str))
    if get_origin(annotation) is Annotated:
        return ()
    return tuple(name for option in get_args(annotation) for name in choices(option))


def read_file(path: str) -> bytes:
    """Read an input file; `DataError` where there is none."""
    try:
        return paths.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(f"{path}: cannot be read: there is no such file.") from error


def with_contents(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Show the files among a trial's parameters by name and digest, so that two contents differ.

    >>> with_contents({"parameters": {"features": "s3://b/genept.csv"}, "inputs": {}})
    {'features': 's3://b/genept.csv'}
    >>> spec = {"parameters": {"features": "s3://b/genept.csv"}}
    >>> with_contents(spec | {"inputs": {"features": "1f3a9c0d2b7e"}})
    {'features': 'genept.csv@1f3a9c0d'}
    """
    parameters = dict(spec.get("parameters", {}))
    for name, digest in dict(spec.get("inputs", {})).items():
        file = str(parameters[name]).rstrip("/").rpartition("/")[2]
        parameters[name] = f"{file}@{digest[:SHOWN_DIGITS]}"
    return parameters
