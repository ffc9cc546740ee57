"""Who may import whom; the picture is in docs/architecture.md, the rule is here."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "harness"

# From the top down: a module imports only from lines below its own. Modules on one line in
# different groups do not know each other; modules in one group do.
LAYERS: tuple[tuple[frozenset[str], ...], ...] = tuple(
    tuple(frozenset(group.split()) for group in line.split("|"))
    for line in (
        "cli __main__",
        "scoring anchored scaffold assessment report",
        "sweep calls provenance submitting search trying listening planning prediction_files"
        " prediction_manifest"
        " trial_inputs preparation checking cluster_checks conversion_cards | tables",
        "executors | trial supervision given fitted stages pulse recorded errands judge"
        " | trust exploits",
        "known_models command_model program_files model_code",
        "models testing | score scores reading prepared identity anchors count_scores agreement"
        " long_scores de_tables | submission submission_checks",
        "metrics | predictions answered held foreign strips annotated"
        " | results trial_rows cube queries exports joining score_rows"
        " | reference reference_store counts energy populations | convert convert_checks"
        " | tasks shown loading cells counted data_factors pseudobulks"
        " | simulate simulate_screen simulate_effects simulate_counts",
        "store store_writer store_layout | node_copies | sources opening | splits split_files"
        " | fetch | job_checks search_checks | runs ledger"
        " | launcher_checks rayjob_checks slurm_checks",
        "cards | expansion settings ablations proposals | spill inflate archives h5ad frames"
        " | environments",
        "specs resources searches scoring_keys screen_names entries factors commands"
        " parameter_checks",
        "declarations | kernels | statistics | input_files | processes keeper",
        "paths object_store",
        "errors",
    )
)

ALLOWED = {
    "kernels": {"kernels"},
    "metrics": {"metrics", "kernels"},
    "models": {"models", "tasks", "loading", "cells", "kernels", "input_files", "errors"},
    "executors": {"executors", "specs", "resources", "errors"},
    "statistics": {"statistics"},
}

SOLE_IMPORTERS = {
    "ray": {
        f"executors.{name}" for name in ("ray_cluster", "ray_kills", "ray_search", "ray_workers")
    },
    "cupy": {"kernels.backend"},
    "anndata": {"store", "store_layout", "sources", "convert", "frames"},
    "dask": {"convert"},
    "optuna": {"proposals"},
    "duckdb": {"queries"},
    "statsmodels": {"statistics.paired"},
    "torch": {
        f"models.networks.{name}"
        for name in (
            "conditional_autoencoder",
            "decoder_only",
            "distances",
            "fitted",
            "inputs",
            "latent_additive",
            "loop",
            "set_transformer",
        )
    },
}

HEAVY = ("ray", "cupy", "torch", "dask", "anndata", "optuna", "duckdb", "statsmodels")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, but not for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def inner_imports(module: str) -> set[str]:
    """The harness modules that a harness module imports."""
    names = {
        name.removeprefix("harness.")
        for name in imports(MODULES[module])
        if name.startswith("harness.")
    }
    return {name for name in names if name in MODULES} - {module}


def top(module: str) -> str:
    return module.partition(".")[0]


def place(module: str) -> tuple[int, int]:
    """The line and the group of a module."""
    for line, groups in enumerate(LAYERS):
        for position, group in enumerate(groups):
            if top(module) in group:
                return line, position
    pytest.fail(f"harness/{module} stands in no layer: give it one in {Path(__file__).name}")


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_only_downwards(module: str) -> None:
    line, group = place(module)
    for other in inner_imports(module):
        other_line, other_group = place(other)
        same = (line, group) == (other_line, other_group)
        assert same or other_line > line, f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("module", [name for name in MODULES if top(name) in ALLOWED])
def test_narrow_modules_import_what_they_may(module: str) -> None:
    seen = {top(other) for other in inner_imports(module)}
    assert seen <= ALLOWED[top(module)]


def test_no_import_cycles() -> None:
    graph = {
        name: {other for other in inner_imports(name) if not name.startswith(f"{other}.")}
        for name in MODULES
        if name
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("library", SOLE_IMPORTERS)
def test_a_library_is_imported_where_it_belongs(library: str) -> None:
    importers = {
        name
        for name, path in MODULES.items()
        if any(top(imported) == library for imported in imports(path))
    }
    assert importers <= SOLE_IMPORTERS[library]


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {top(name) for name in run.stdout.split()}


def test_importing_harness_loads_nothing_heavy() -> None:
    assert not loaded_after("import harness") & set(HEAVY)


def test_kernels_and_metrics_need_numpy_scipy_and_numba_alone() -> None:
    loaded = loaded_after("import harness.kernels, harness.metrics")
    assert not loaded & {*HEAVY, "zarr", "pandas", "xarray", "pydantic", "h5py", "fsspec"}
