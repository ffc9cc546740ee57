"""Which code a model is, so that whoever runs a job again after an edit is told.

A trial's id says what is computed, and not by which code: a model that was edited finds its old
scores. They are kept, since nobody wants a night's work dropped for a comment, but a finished trial
says which code made it, and whoever plans compares.

The code of a class is the file that it is in, with those of its bases and what these import of the
same package, directly or not, for more than types. Of this package that is models alone, with what
they name to `network_module`, which loads the part of a network that needs PyTorch, and the loader:
a new version of the harness is other code of a shipped model only where one of these changed. The
code of a program that is declared is part of its trials' ids; besides, it is the files that its
commands name outright.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import TYPE_CHECKING

from harness.kernels import available_threads
from harness.models.base import model_class
from harness.models.external.spec import Command
from harness.storage import paths, remembered_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.models.base import Model

SHIPPED = "harness.models."
"""Modules of this package that are code of models, beside the loader."""

NOT_COMPUTING = ("harness.models.base", "harness.models.supervision")
"""Those that say what a model is; none of them changes what one predicts."""

LARGEST_BYTES = 100_000_000
"""A file that a command names is read up to this size: more would slow down every plan."""


def code_of_model(name: str, command: str = "") -> dict[str, str]:
    """Return digests of the files that a model's code is in; none where they cannot be found.

    Parameters
    ----------
    name
        The model.
    command
        For one that is a program, its declaration as text.
    """
    return _of_program(command) if command else dict(_of_class(model_class(name)))


def is_other_code(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two codes differ in a file that both know; unknown code differs from none."""
    both = then.keys() & now.keys()
    return any(then[name] != now[name] for name in both) or bool(then and now and not both)


@cache  # what this process has loaded does not change with the file
def _of_class(model: type[Model]) -> Mapping[str, str]:
    home = model.__module__.partition(".")[0]
    left = [base.__module__ for base in model.__mro__]
    found: dict[str, str] = {}
    while left:
        module = left.pop()
        source = _source(module) if module.partition(".")[0] == home else None
        if source is None or module in found:
            continue
        found[module] = blake2b(source.read_bytes(), digest_size=16).hexdigest()
        left += filter(_computes, _imported(module, source))
    return found


def _computes(module: str) -> bool:
    """Whether an imported module is code of a model; of this package not all that is imported."""
    if module.partition(".")[0] != __name__.partition(".")[0]:
        return True
    shipped = module.startswith(SHIPPED) and module not in NOT_COMPUTING
    return shipped or module == "harness.models.networks.data_loader"


def _source(module: str) -> Path | None:
    """Return the file of Python that a module is in."""
    loaded = sys.modules.get(module)
    try:
        spec = None if loaded else find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    path = Path(origin) if origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _imported(module: str, source: Path) -> Iterator[str]:
    """Yield what a module imports of its own package, and what may be a module among it."""
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(source.read_bytes())
    except SyntaxError:
        return
    for node in _executed(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(level=level) if package or not level:
                yield from _imported_from(node, module, package)
            case ast.Call(func=ast.Name(id="network_module"), args=[ast.Constant(value=str(name))]):
                yield f"{SHIPPED}networks.{name}"


def _imported_from(node: ast.ImportFrom, module: str, package: str) -> Iterator[str]:
    wanted = "." * node.level + (node.module or "")
    origin = resolve_name(wanted, package) if node.level else wanted
    if origin.partition(".")[0] != module.partition(".")[0]:
        return
    yield origin
    source = _source(origin)
    # What is imported from a plain module is none, and to look for it would run that one.
    if source is None or source.name == "__init__.py":
        yield from (f"{origin}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, without imports that are for types only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child)


def _of_program(command: str) -> dict[str, str]:
    spec = Command.from_json(command).spec
    folder, threads = str(paths.cache_folder()), available_threads()
    named = {word.rpartition("=")[2] for word in (*(spec.train or ()), *spec.predict)}
    files = [Path(word) for word in sorted(named) if word.startswith("/")]
    return {
        str(file): remembered_digest(file, threads, folder)
        for file in files
        if file.is_file() and file.stat().st_size <= LARGEST_BYTES
    }
