"""How fast simulated screens are drawn and written, and how much memory that takes.

Run: ``python tests/benchmarks/simulate.py [SHARE]``; SHARE of the cells of h1, by default 0.05.
Prints the cost of drawing alone, of drawing and writing, the peak memory, and the whole of h1 by
proportion. What is written is removed again.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.data.simulation.presets import draw_screen, preset_with, presets
from harness.data.simulation.screens import simulate

N_DRAWN = 512


def main(share: float) -> None:
    """Draw on one thread, then write a part of h1 on all of them."""
    h1 = presets()["h1"]
    part = {"cells": round(share * h1.cells), "controls": round(share * h1.controls)}
    start = time.perf_counter()
    screen = draw_screen(preset_with("h1", **part))
    print(f"truth of the screen       {time.perf_counter() - start:8.1f} s")
    screen.rows(0, 1)  # compiles
    start = time.perf_counter()
    cells = screen.rows(0, N_DRAWN)
    seconds = time.perf_counter() - start
    print(f"drawing, one thread       {N_DRAWN / seconds:8.0f} cells/s")
    print(f"                          {seconds / cells.size * 1e9:8.1f} ns for each entry")
    print(f"non-zero                  {np.mean(cells > 0):8.1%}")
    print(f"median UMI                {np.median(cells.sum(axis=1)):8.0f}")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = simulate("h1", Path(folder) / "h1.zarr", **part)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    whole = h1.perturbations * h1.cells + h1.controls
    print(f"drawing and writing       {store.n_cells / seconds:8.0f} cells/s")
    print(f"on disk                   {size / store.n_cells / 1024:8.1f} KiB for each cell")
    print(f"peak memory               {_peak_mib():8.0f} MiB")
    print(f"the whole of h1           {seconds * whole / store.n_cells:8.0f} s", end=", ")
    print(f"{size * whole / store.n_cells / 2**30:.1f} GiB")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
