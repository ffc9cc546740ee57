"""Measure reading from a store against the same gzip `.h5ad` opened backed, alternating.

    python tests/benchmarks/reading.py FOLDER [--rounds 5] [--cells 50000]

FOLDER has, or gets, the screen of `screen.py` and its store. What is read: all cells of one
perturbation (another one each round, those with 250 to 1,000 cells), and 256 genes of all cells.
Both files are in the page cache, which favours the `.h5ad`: it is larger to inflate, not to fetch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
from screen import N_CELLS, write_screen

from harness.data.cards import Card
from harness.data.conversion import convert
from harness.data.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

CARD = Card(
    name="bench",
    version=1,
    title="Benchmark",
    organism="human",
    control_label="non-targeting",
    source={"file": "a", "page": "https://a.b", "license": "MIT", "cite": "nobody"},
    columns={"perturbation": "target_gene", "context": "cell_line"},
    expression={"scale": "counts"},
)


def timed(read: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = read()
    return time.perf_counter() - begun, found


def report(what: str, ours: list[float], theirs: list[float]) -> None:
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"| {what} | {shown(ours)} | {shown(theirs)} | {b / a:.1f} |", flush=True)


def shown(times: list[float]) -> str:
    ms = [seconds * 1e3 for seconds in times]
    return f"{statistics.median(ms):.0f} ms ({min(ms):.0f}–{max(ms):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=N_CELLS)
    given = parser.parse_args()
    source = given.folder / f"screen{given.cells}.h5ad"
    if not source.exists():
        write_screen(source, given.cells)
    if not source.with_suffix(".zarr").exists():
        convert(source, source.with_suffix(".zarr"), CARD)
    store = open_store(source.with_suffix(".zarr"))
    backed = anndata.read_h5ad(source, backed="r")
    labels = np.asarray(backed.obs["target_gene"])
    sizes = {found.perturbation: found.stop - found.start for found in store.ranges}
    middling = [name for name, size in sizes.items() if 250 <= size <= 1000]
    print("| read | store | gzip .h5ad, backed | times |\n|---|---:|---:|---:|")
    ours, theirs, n_cells = [], [], []
    for name in middling[: given.rounds]:
        seconds, cells = timed(lambda name=name: store.cells(name, "H1"))
        ours.append(seconds)
        seconds, other = timed(lambda name=name: backed[labels == name].to_memory().X.toarray())
        theirs.append(seconds)
        n_cells.append(len(cells))
        np.testing.assert_array_equal(cells, other)
    report(f"one perturbation ({min(n_cells)}–{max(n_cells)} cells)", ours, theirs)
    ours, theirs = [], []
    order = backed.obs_names.get_indexer(store.obs().index)
    for start in range(0, 256 * min(given.rounds, 3), 256):
        seconds, block = timed(lambda at=start: store.gene_block(at, at + 256))
        ours.append(seconds)
        seconds, other = timed(lambda at=start: backed[:, at : at + 256].to_memory().X.toarray())
        theirs.append(seconds)
        np.testing.assert_array_equal(block, other[order])
    report(f"256 genes of all {store.n_cells:,} cells", ours, theirs)


if __name__ == "__main__":
    main()
