"""Which package may import which; docs/architecture.md has the picture.

Imports inside functions and under `TYPE_CHECKING` count like all others.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "harness"

BELOW_RUNS = (
    "errors kernels storage config data metrics tasks scoring executors models jobs analysis"
)

# Each package, from the bottom up, and what its files may import: packages, by the names that their
# `__init__.py` offers, and single modules of others.
ALLOWED = {
    "errors": "",
    "kernels": "",
    "storage": "errors kernels.threads",
    "config": "errors storage",
    "data": "errors kernels storage config",
    "metrics": "kernels",
    "tasks": "errors kernels storage config data",
    "scoring": "errors kernels storage data metrics",
    "executors": "errors storage config",
    "models": "errors kernels storage config data tasks",
    "jobs": "errors storage config data.dataset_names tasks executors.resources",
    "challenge": "errors kernels storage config data",
    "analysis": "errors storage config data metrics scoring jobs.trial_spec",
    "runs": f"{BELOW_RUNS}",
    "check": f"{BELOW_RUNS} challenge runs",
    "testing": "errors kernels data tasks models",
    "cli": f"{BELOW_RUNS} challenge runs check",
    "__main__": "cli",
    "": "errors data scoring analysis runs",
}

SOLE_IMPORTERS = {
    "ray": "executors",
    "dask": "data",
    "anndata": "data",
    "cupy": "kernels.backend",
    "torch": "models.networks.torch",
    "optuna": "runs.search_sampler",
    "duckdb": "analysis.query",
    "statsmodels": "analysis.statistics",
}

HEAVY = ("ray", "cupy", "torch", "dask", "anndata", "optuna", "duckdb", "statsmodels")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py" and name} - {
    "cli",
    "testing",
}

MODULES_OFFERED = {"storage.paths"}
"""Modules that others use as such, `paths.join(...)`, imported from their package."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = name.removeprefix("harness.") in MODULES
                found.add(name if is_module else node.module)
    return found


def inner_imports(module: str) -> set[str]:
    """The modules of this project that a module imports."""
    names = {
        name.removeprefix("harness").removeprefix(".")
        for name in imports(MODULES[module])
        if name.partition(".")[0] == "harness"
    }
    return names - {module}


def package(module: str) -> str:
    return module.partition(".")[0]


def is_within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_only_from_those_below(module: str) -> None:
    allowed = ALLOWED[package(module)].split()
    for other in inner_imports(module):
        if package(other) != package(module):
            from_package = other == package(other) or other in MODULES_OFFERED
            known = other in allowed or (from_package and package(other) in allowed)
            assert known, f"{module or 'harness'} imports {other}"


@pytest.mark.parametrize("name", [name for name in ALLOWED if name in PACKAGES])
def test_a_package_offers_its_names_without_loading_them(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for_types = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness.")
        for alias in node.names
    }
    offered = import_module(f"harness.{name}")
    modules = {one.partition(".")[2] for one in MODULES if is_within(one, name)}
    assert for_types == {
        (f"harness.{name}.{module}", public) for public, module in offered._MODULE_OF.items()
    }
    assert not modules & set(offered._MODULE_OF), "a module of that name would hide the function"
    for public in offered._MODULE_OF:
        assert getattr(offered, public) is not None


def test_no_files_import_each_other() -> None:
    graph = {name: inner_imports(name) for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("library", SOLE_IMPORTERS)
def test_a_library_is_imported_where_it_belongs(library: str) -> None:
    for name, path in MODULES.items():
        if any(package(imported) == library for imported in imports(path)):
            assert is_within(name, SOLE_IMPORTERS[library]), f"{name} imports {library}"


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {package(name) for name in run.stdout.split()}


def test_importing_harness_loads_nothing_heavy() -> None:
    assert not loaded_after("import harness") & set(HEAVY)


def test_kernels_and_metrics_need_numpy_scipy_and_numba_alone() -> None:
    loaded = loaded_after("import harness.kernels, harness.metrics")
    assert not loaded & {*HEAVY, "zarr", "pandas", "xarray", "pydantic", "h5py", "fsspec"}
