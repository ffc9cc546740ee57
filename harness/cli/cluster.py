"""`harness cluster check`: what is wrong with the files that say where, each by its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from harness.cli.console import complain, notes
from harness.cluster_checks import check_cluster_file, cluster_files
from harness.storage.paths import find_declaration


def cluster_(action: Literal["check"], *files: str) -> int:
    """Tell what is wrong with cluster files, Slurm scripts, RayJobs and launcher files.

    Parameters
    ----------
    action
        check: read each file as its kind demands, and try the address that it names.
    files
        Paths, folders, or names of cluster files; all that can be found when there are none.
    """
    paths = [path for file in files for path in _meant(file)] if files else cluster_files()
    problems = [problem for path in paths for problem in check_cluster_file(path, knock=True)]
    for problem in problems:
        complain(problem)
    notes().print(
        f"{len(paths)} read, {f'{len(problems)} problems' if problems else 'nothing wrong'}."
    )
    return 1 if problems else 0


def _meant(file: str) -> list[Path]:
    path = Path(file)
    if path.is_dir():
        return cluster_files(path)
    return [path if path.is_file() else find_declaration("cluster", file)]
