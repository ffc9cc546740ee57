"""One way to stream training cells, in a process of its own: `loading.py` runs each by its Python.

    python loading_ways.py WAY FILE SECONDS

Prints one line of JSON: cells that came (controls not counted), the seconds they took, processor
seconds of all processes, peak resident memory and versions. The clock starts when a way is set up
and has read nothing yet; one that comes to the end of the file begins again. Every way gives dense
float32 cells; `harness` and `cell-load` give a control with each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import count, cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH, SET = 4, 64  # 256 cells
SHUFFLED = np.random.default_rng(0)


def harness(file: str) -> Iterator[int]:
    """Sets of 64 cells with as many controls, by `harness.models.networks.data_loader`."""
    from harness.data.store import open_store
    from harness.models.networks.data_loader import Loader, Loading
    from harness.tasks import parse_split
    from harness.tasks.task import Task

    split = parse_split({"kind": "unseen-perturbation", "folds": 60})
    view = Task(open_store(str(Path(file).with_suffix(".zarr"))), split).train_view()
    loader = Loader(view, Loading(batch_size=BATCH, set_size=SET))
    yield 0
    for epoch in count():
        for batch in loader.epoch(epoch):
            assert batch.controls.any()
            yield batch.n_cells


def cell_load(file: str, workers: int = 2) -> Iterator[int]:
    """The same sets, by cell-load's data module."""
    import warnings

    from cell_load.data_modules import PerturbationDataModule

    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        toml = Path(folder, "split.toml")
        split = f'[datasets]\nscreen = "{file}"\n[training]\nscreen = "train"\n'
        toml.write_text(split, encoding="utf-8")
        module = PerturbationDataModule(
            str(toml),
            batch_size=BATCH,
            num_workers=workers,
            pert_col="target_gene",
            batch_col="cell_line",
            cell_type_key="cell_line",
            cell_sentence_len=SET,
            output_space="all",
            is_log1p=False,
        )
        module.setup()
        batches = module.train_dataloader()
        yield 0
        while True:
            for batch in batches:
                assert batch["ctrl_cell_emb"].any()
                yield len(batch["pert_cell_emb"].to_dense())


def cell_load_alone(file: str) -> Iterator[int]:
    """The same, without worker processes."""
    return cell_load(file, workers=0)


def backed(file: str) -> Iterator[int]:
    """Random cells of an AnnData that stays on disk."""
    import anndata

    screen = anndata.read_h5ad(file, backed="r")
    yield 0
    while True:
        order = SHUFFLED.permutation(screen.n_obs)
        for start in range(0, len(order), BATCH * SET):
            rows = np.sort(order[start : start + BATCH * SET])
            yield len(np.asarray(screen[rows].to_memory().X.toarray()))


def random_rows(file: str) -> Iterator[int]:
    """Random cells of one file, row by row, by h5py alone."""
    import h5py

    with h5py.File(file) as opened:
        matrix = opened["X"]
        indptr = matrix["indptr"][:]
        shape = (BATCH * SET, matrix.attrs["shape"][1])
        yield 0
        for start in cycle(range(0, len(indptr) - 1, BATCH * SET)):
            if start == 0:
                order = SHUFFLED.permutation(len(indptr) - 1)
            cells = np.zeros(shape, dtype="f4")
            for i, row in enumerate(order[start : start + BATCH * SET]):
                at = slice(indptr[row], indptr[row + 1])
                cells[i, matrix["indices"][at]] = matrix["data"][at]
            yield min(len(order) - start, BATCH * SET)


def annbatch(file: str) -> Iterator[int]:
    """Cells in shuffled blocks of 256 of the same store, without controls, by annbatch."""
    import zarr
    from annbatch import Loader

    matrix = zarr.open_group(str(Path(file).with_suffix(".zarr")), mode="r")["X"]
    loader = Loader(
        chunk_size=256,
        preload_nchunks=14,
        batch_size=BATCH * SET,
        shuffle=True,
        rng=SHUFFLED,
        preload_to_gpu=False,
        to=None,
    )
    loader.add_dataset(matrix)
    yield 0
    while True:
        for batch in loader:
            yield len(np.asarray(batch["X"], dtype="f4"))


WAYS = {
    "harness": (harness, ("zarr", "numpy")),
    "cell-load": (cell_load, ("cell-load", "torch", "h5py")),
    "cell-load-alone": (cell_load_alone, ("cell-load", "torch", "h5py")),
    "backed": (backed, ("anndata", "h5py")),
    "random": (random_rows, ("h5py",)),
    "annbatch": (annbatch, ("annbatch", "zarr")),
}


def processor_seconds() -> float:
    """Return what this process and those that live under it have used."""
    own = psutil.Process()
    used = 0.0
    for process in [own, *own.children(recursive=True)]:
        times = process.cpu_times()
        used += times.user + times.system
    return used


def resident_bytes() -> int:
    """Return the memory of this process and its children, each page counted once."""
    own = psutil.Process()
    return sum(p.memory_full_info().pss for p in [own, *own.children(recursive=True)])


def main() -> None:
    way, file, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
    function, packages = WAYS[way]
    stream = function(file)
    next(stream)
    begun, used = time.perf_counter(), processor_seconds()
    cells, peak = 0, resident_bytes()
    for n in stream:
        cells += n
        peak = max(peak, resident_bytes())
        if time.perf_counter() - begun > limit:
            break
    found = {
        "cells": cells,
        "seconds": time.perf_counter() - begun,
        "processor": processor_seconds() - used,
        "peak": peak,
        "versions": {name: version(name) for name in packages},
    }
    print(json.dumps(found), flush=True)
    stream.close()


if __name__ == "__main__":
    main()
