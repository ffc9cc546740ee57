"""Digests of the source files of a model, so that a rerun can warn after an edit.

A trial's id says what is computed, not by which code: a model that was edited finds its old scores.
They are kept, but a finished trial records the digests of its model's code, and a plan compares.

The code of a class is its own file, with those of its bases and of the modules of the same package
that these import, directly or not, for more than types. Of a shipped model only files under
``harness/models`` count that decide what a model computes; it is recorded as one digest under the
name of its class, without the files' names and the lines that import from this package, so that a
moved file is no edit. The code of an external program is part of its trials' ids; recorded are the
files that its commands name.
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
"""Modules of this package that are code of models."""

NOT_COMPUTING = ("harness.models.base",)
"""Modules of models that say what a model is; they do not change what one predicts."""

LARGEST_BYTES = 100_000_000
"""A file that a command names is read up to this size: more would slow down every plan."""


def code_of_model(name: str, command: str = "") -> dict[str, str]:
    """Compute digests of the files of a model's code; empty if they cannot be found.

    Parameters
    ----------
    name
        The model.
    command
        For an external program, its declaration as text.
    """
    if not command:
        return dict(_of_class(model_class(name)))
    spec = Command.from_json(command).spec
    folder, threads = str(paths.cache_folder()), available_threads()
    named = {word.rpartition("=")[2] for word in (*(spec.train or ()), *spec.predict)}
    files = [Path(word) for word in sorted(named) if word.startswith("/")]
    return {
        str(file): remembered_digest(file, threads, folder)
        for file in files
        if file.is_file() and file.stat().st_size <= LARGEST_BYTES
    }


def is_other_code(then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return True if two records differ in a file that both have; no record differs from any.

    An older record of a shipped model has a digest for each of its modules, under names that begin
    with ``harness.``. It cannot be compared and counts as no record.
    """
    then = {name: digest for name, digest in then.items() if not name.startswith("harness.")}
    both = then.keys() & now.keys()
    return any(then[name] != now[name] for name in both) or bool(then and now and not both)


@cache  # what this process has loaded does not change with the file
def _of_class(model: type[Model]) -> Mapping[str, str]:
    files = source_files(model)
    if not model.__module__.startswith(SHIPPED):
        return {module: _digest(file.read_bytes()) for module, file in files.items()}
    digests = sorted(_digest(_without_imports(file.read_bytes())) for file in files.values())
    return {model.__qualname__: _digest("\0".join(digests).encode())}


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _without_imports(content: bytes) -> bytes:
    """Remove from a file of this package its imports from this package.

    They name files, which may move. An import of other code is still noticed: the file that it is
    in is part of the digest.
    """
    lines = content.splitlines(keepends=True)
    own = __name__.partition(".")[0]
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == own:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = b""
    return b"".join(lines)


def source_files(model: type[Model]) -> dict[str, Path]:
    """Find the files of the code that a class computes with, by module."""
    package = model.__module__.partition(".")[0]
    left = [base.__module__ for base in model.__mro__]
    files: dict[str, Path] = {}
    while left:
        module = left.pop()
        source = _source(module) if module.partition(".")[0] == package else None
        if source is None or module in files:
            continue
        files[module] = source
        left += filter(_computes, _imported(module, source))
    return files


def _computes(module: str) -> bool:
    """Return True if an imported module is code of a model; of this package, not all is."""
    if module.partition(".")[0] != __name__.partition(".")[0]:
        return True
    return module.startswith(SHIPPED) and module not in NOT_COMPUTING


def _source(module: str) -> Path | None:
    """Find the Python file of a module."""
    loaded = sys.modules.get(module)
    try:
        spec = None if loaded else find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    path = Path(origin) if origin else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _imported(module: str, source: Path) -> Iterator[str]:
    """Find the modules of its own package that a module imports, and names that may be modules."""
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
                yield f"{SHIPPED}networks.torch.{name}"


def _imported_from(node: ast.ImportFrom, module: str, package: str) -> Iterator[str]:
    relative = "." * node.level + (node.module or "")
    origin = resolve_name(relative, package) if node.level else relative
    if origin.partition(".")[0] != module.partition(".")[0]:
        return
    yield origin
    source = _source(origin)
    # A name that is imported from a plain module is no module, and to look for it would run it.
    if source is None or source.name == "__init__.py":
        yield from (f"{origin}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the nodes of a tree, without the imports that are for types only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child)
