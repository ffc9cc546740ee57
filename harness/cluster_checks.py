"""What is wrong with the files of cluster/, each by its kind, before a cluster has to read them.

A cluster file of ours, a Slurm script, a RayJob for Kubernetes or a file of Ray's cluster launcher.
A schema finds what its reader would refuse; beyond that, each check is a pitfall that lets a job
start and then fail, or disturb others, hours later: ports that two jobs on one node share, a
worker that counts the CPUs of the whole node, a socket whose path is too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.config.declarations import Problem, read_yaml
from harness.errors import DeclarationError
from harness.executors.reaching import why_unreachable
from harness.jobs.specs import check_cluster, read_cluster
from harness.launcher_checks import check_launcher
from harness.rayjob_checks import check_rayjob
from harness.slurm_checks import check_script
from harness.storage.paths import declarations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCRIPTS = {".sbatch", ".slurm"}
"""How the names of Slurm scripts end."""

TELLING: dict[str, frozenset[str]] = {
    "launcher": frozenset({"cluster_name", "provider", "available_node_types", "head_node_type"}),
    "kubernetes": frozenset({"apiVersion", "metadata", "spec"}),
}
"""Keys that only one kind of foreign file has."""


def cluster_files(folder: Path | None = None) -> list[Path]:
    """Return the files of a folder that can be checked; without one, those that names stand for."""
    if folder is None:
        named = declarations("cluster").values()
        return sorted({*named, *(file for path in named for file in _scripts(path.parent))})
    return sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml"), *_scripts(folder)])


def _scripts(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.suffix in SCRIPTS)


def check_cluster_file(path: Path, *, knock: bool = False) -> list[Problem]:
    """Return all that is wrong with a file of cluster/.

    Parameters
    ----------
    path
        A cluster file, a Slurm script, a RayJob, or a file for Ray's cluster launcher.
    knock
        Whether to try the address that a cluster file names.
    """
    if path.suffix in SCRIPTS:
        return check_script(path)
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return list(error.args)
    check = _foreign(data)
    if check is not None:
        return check(path, data)
    problems = check_cluster(path)
    return problems if problems or not knock else _unreachable(path)


def _foreign(data: Any) -> Callable[[Path, Any], list[Problem]] | None:
    """Return the check of a file that is not ours but another tool's."""
    keys = set(data) if isinstance(data, dict) else set()
    if keys & TELLING["kubernetes"]:
        return check_rayjob
    return check_launcher if keys & TELLING["launcher"] else None


def _unreachable(path: Path) -> list[Problem]:
    address = read_cluster(str(path)).address
    reason = why_unreachable(address) if address else ""
    if not reason:
        return []
    return [
        Problem(
            str(path),
            "address",
            f"no Ray cluster answers at {address!r}: {reason}. Start one there with `ray start "
            "--head`, or correct the address.",
        )
    ]
