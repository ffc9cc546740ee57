"""Training cells per second from disk: the harness, cell-load, AnnData, plain reads, annbatch.

    python tests/benchmarks/loading.py FOLDER --cell-load VENV/bin/python --annbatch VENV/bin/python

Each way runs in a process of its own, in turn, `--rounds` times; the file's pages are dropped from
the cache before each, so that it is read from disk. The peers' Pythons need psutil besides. Two
screens of 5,000 and 50,000 cells show what memory does as the file grows tenfold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from reading import CARD
from screen import N_CELLS, write_screen

from harness.data.conversion import convert

HERE = Path(__file__).parent


def prepared(folder: Path, n_cells: int) -> Path:
    """Return the screen as `.h5ad`, its store beside it; both are made once."""
    source = folder / f"screen{n_cells}.h5ad"
    if not source.exists():
        write_screen(source, n_cells)
    if not source.with_suffix(".zarr").exists():
        convert(source, source.with_suffix(".zarr"), CARD)
    return source


def forget(path: Path) -> None:
    """Drop a file, or all files of a folder, from the page cache."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measured(python: str, way: str, file: Path, seconds: float) -> dict[str, Any]:
    """Run one way once."""
    forget(file)
    forget(file.with_suffix(".zarr"))
    command = [python, str(HERE / "loading_ways.py"), way, str(file), str(seconds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{way}: {run.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def row(way: str, n_cells: int, runs: list[dict[str, Any]]) -> str:
    """Return a line of the table."""
    by_wall = [run["cells"] / run["seconds"] for run in runs]
    by_processor = statistics.median(run["cells"] / run["processor"] for run in runs)
    peak = max(run["peak"] for run in runs) / 2**20
    spread = f"{min(by_wall):,.0f}–{max(by_wall):,.0f}"
    return (
        f"| {way} | {n_cells:,} | {statistics.median(by_wall):,.0f} ({spread}) | "
        f"{by_processor:,.0f} | {peak:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cell-load", help="a Python that has cell-load")
    parser.add_argument("--annbatch", help="a Python, 3.12 or later, that has annbatch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--cells", type=int, nargs="+", default=[N_CELLS // 10, N_CELLS])
    given = parser.parse_args()
    pythons = {"harness": sys.executable, "backed": sys.executable, "random": sys.executable}
    if given.cell_load:
        pythons |= {"cell-load": given.cell_load, "cell-load-alone": given.cell_load}
    if given.annbatch:
        pythons["annbatch"] = given.annbatch
    versions: dict[str, str] = {}
    head = "| way | cells in the file | cells/s (range) | cells per processor second | peak MB |"
    print(f"{head}\n|---|---:|---:|---:|---:|", flush=True)
    for n_cells in given.cells:
        file = prepared(given.folder, n_cells)
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in pythons}
        for _ in range(given.rounds):
            for way, python in pythons.items():
                runs[way].append(measured(python, way, file, given.seconds))
                versions |= runs[way][-1]["versions"]
        for way, found in runs.items():
            print(row(way, n_cells, found), flush=True)
    print(versions)


if __name__ == "__main__":
    main()
