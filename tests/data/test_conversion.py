"""Tests of converting files of cells into stores."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import harness.data.store
from harness.data.cards import Card, read_card
from harness.data.conversion import convert
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_CELLS, N_GENES = 600, 40
LINES = np.resize(["RPE1", "K562"], N_CELLS)
PERTURBATIONS = np.resize(["G2", "ctrl", "ctrl", "G1", "G10"], N_CELLS)


def matrix() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.5, (N_CELLS, N_GENES)).astype("f4")


def screen(values: Any = None, **columns: Any) -> anndata.AnnData:
    labels = {"line": LINES, "gene": PERTURBATIONS} | columns
    obs = pd.DataFrame(labels, index=[f"cell{i}" for i in range(N_CELLS)])
    var = pd.DataFrame(
        {"symbol": [f"S{i}" for i in range(N_GENES)]}, index=[f"G{i}" for i in range(N_GENES)]
    )
    return anndata.AnnData(sparse.csr_matrix(matrix()) if values is None else values, obs, var)


def card(**changes: Any) -> Card:
    given = {
        "name": "made",
        "version": 1,
        "title": "Made up",
        "organism": "human",
        "source": {"file": "a.h5ad", "page": "https://a.b", "license": "MIT", "cite": "nobody"},
        "columns": {"perturbation": "gene", "context": "line"},
        "control_label": "ctrl",
        "expression": {"scale": "counts"},
    }
    return Card.model_validate(given | changes)


LOG1P = card(expression={"scale": "log1p"})


def written(folder: Path, made: anndata.AnnData) -> Path:
    made.write_h5ad(folder / "a.h5ad", compression="gzip")
    return folder / "a.h5ad"


def assert_holds(path: str, source: anndata.AnnData) -> None:
    """Assert that a store gives back a source: the same values, obs and var, sorted."""
    found = anndata.read_zarr(path)
    expected = source[found.obs_names].copy()
    values = expected.X.toarray() if sparse.issparse(expected.X) else expected.X
    np.testing.assert_array_equal(found.X, values)
    assert found.X.dtype == values.dtype
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, source.var)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda: sparse.csr_matrix(matrix()), id="csr"),
        pytest.param(lambda: sparse.csc_matrix(matrix()), id="csc"),
        pytest.param(matrix, id="dense"),
        pytest.param(lambda: sparse.csr_matrix(matrix().astype("f8")), id="float64"),
        pytest.param(lambda: sparse.csr_matrix(matrix().astype("i8")), id="int64"),
        pytest.param(lambda: matrix().astype("u2"), id="uint16"),
    ],
)
def test_anndata_reads_back_what_was_converted(tmp_path: Path, values: Any) -> None:
    made = screen(values())
    store = convert(written(tmp_path, made), tmp_path / "a.zarr", card())
    assert_holds(store.path, anndata.read_h5ad(tmp_path / "a.h5ad"))
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["papalexi21", "zhao21", "datlinger21", "perturbench_devel"])
def test_real_screens_are_converted_as_they_are(
    tmp_path: Path, data_file: Callable[[str], Path], name: str
) -> None:
    described = read_card(name)
    source = data_file(described.source.file)
    store = convert(source, tmp_path / "a.zarr", described)
    assert_holds(store.path, anndata.read_h5ad(source))
    assert store.scale == described.expression.scale
    assert all(len(store.controls(context)) for context in store.contexts)


def test_a_tenx_file_is_converted_with_a_table_of_its_cells(tmp_path: Path) -> None:
    by_column = sparse.csc_matrix(matrix().T.astype("i4"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(by_column, name)
        group["shape"] = by_column.shape
        group["barcodes"] = np.array([f"cell{i}" for i in range(N_CELLS)], "S")
        group["features/id"] = np.array([f"G{i}" for i in range(N_GENES)], "S")
        group["features/name"] = np.array([f"S{i}" for i in range(N_GENES)], "S")
    screen().obs.to_csv(tmp_path / "cells.csv")
    named = card(gene_column="gene_symbols")
    store = convert(tmp_path / "a.h5", tmp_path / "a.zarr", named, obs=tmp_path / "cells.csv")
    wanted = (LINES == "K562") & (PERTURBATIONS == "G2")
    np.testing.assert_array_equal(store.cells("G2", "K562"), matrix()[wanted])
    assert store.genes[:2] == ("S0", "S1")


def test_cells_are_sorted_by_pair_and_then_as_in_the_source(tmp_path: Path) -> None:
    store = convert(written(tmp_path, screen()), tmp_path / "a.zarr", card())
    assert [found[:2] for found in store.ranges] == [
        (line, gene) for line in ("K562", "RPE1") for gene in ("G1", "G10", "G2", "ctrl")
    ]
    number = store.obs().index.str.removeprefix("cell").astype(int)
    for found in store.ranges:
        assert number[found.start : found.stop].is_monotonic_increasing


def test_without_a_column_all_cells_are_of_the_one_context(tmp_path: Path) -> None:
    one = card(columns={"perturbation": "gene"}, context_label="H1")
    store = convert(written(tmp_path, screen()), tmp_path / "a.zarr", one)
    assert store.contexts == ("H1",)


@pytest.mark.parametrize("labels", [[3, 0, 1], [3.5, 0.0, 1.0], [True, False, True]])
def test_labels_that_are_no_text_become_text(tmp_path: Path, labels: list[Any]) -> None:
    made = screen(gene=np.resize(labels, N_CELLS), line="K562")
    store = convert(
        written(tmp_path, made), tmp_path / "a.zarr", card(control_label=str(labels[1]))
    )
    assert store.perturbations == tuple(sorted({str(labels[0]), str(labels[2])}))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a shard of every 256 cells, so that a few hundred cells have several."""
    monkeypatch.setattr(harness.data.store, "SHARD_BYTES", 0)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(lambda: sparse.csr_matrix(matrix()), id="csr"),
        pytest.param(lambda: sparse.csc_matrix(matrix()), id="csc"),
        pytest.param(matrix, id="dense"),
    ],
)
def test_blocks_and_threads_change_nothing(tmp_path: Path, values: Any) -> None:
    source = written(tmp_path, screen(values()))
    stages = []
    store = convert(
        source,
        tmp_path / "a.zarr",
        card(),
        memory="350KiB",
        threads=3,
        progress=lambda *stage: stages.append(stage),
    )
    other = convert(source, tmp_path / "b.zarr", card(), threads=1)
    totals = {stage: total for stage, _, total in stages}
    assert totals["read"] > 1
    assert totals["write"] == 3
    assert store.fingerprint == other.fingerprint
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a store, by its name within it."""
    files = (entry for entry in folder.rglob("*") if entry.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_entries_in_any_order_and_stored_zeros_are_accepted(tmp_path: Path) -> None:
    values = sparse.csr_matrix(matrix())
    for start, stop in zip(values.indptr, values.indptr[1:], strict=False):
        values.indices[start:stop] = values.indices[start:stop][::-1].copy()
        values.data[start:stop] = values.data[start:stop][::-1].copy()
    values.data[:5] = 0
    values.has_sorted_indices = False
    source = written(tmp_path, screen(values))
    store = convert(source, tmp_path / "a.zarr", card())
    assert_holds(store.path, anndata.read_h5ad(source))


def test_too_little_memory_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"too little: .* Give at least '1MiB'"):
        convert(written(tmp_path, screen()), tmp_path / "a.zarr", card(), memory="1KiB")
    assert not (tmp_path / ".a.zarr.partial").exists()


def test_an_existing_store_is_not_touched(tmp_path: Path) -> None:
    source = written(tmp_path, screen())
    convert(source, tmp_path / "a.zarr", card())
    with pytest.raises(DataError, match=r"a.zarr exists already"):
        convert(source, tmp_path / "a.zarr", card())


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    """Twelve thousand cells of 18,080 genes are 870 MB dense; the bound is 256 MiB."""
    n_cells, n_genes = 12_000, 18_080
    rng = np.random.default_rng(0)
    values = sparse.csr_matrix(
        (
            rng.integers(1, 9, n_cells * 1500).astype("f4"),
            np.sort(rng.integers(0, 12, (n_cells, 1500)) + 12 * np.arange(1500)).ravel(),
            np.arange(n_cells + 1) * 1500,
        ),
        shape=(n_cells, n_genes),
    )
    obs = {"gene": np.resize(["ctrl", "A", "B"], n_cells), "line": "K562"}
    obs = pd.DataFrame(obs, index=[f"cell{i}" for i in range(n_cells)])
    anndata.AnnData(values, obs).write_h5ad(tmp_path / "a.h5ad", compression="lzf")
    program = f"""
import json, re, psutil, anndata.io, dask.base, dask.delayed, h5py, zarr.codecs
from harness.data.cards import Card
from harness.data.conversion import convert
card = Card.model_validate(json.loads({card().model_dump_json()!r}))
before = psutil.Process().memory_info().rss
convert({str(tmp_path / "a.h5ad")!r}, {str(tmp_path / "a.zarr")!r}, card, memory="256MiB")
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
print((int(peak[1]) * 1024 - before) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(done.stdout) < 256


# --- refusals -----------------------------------------------------------------------------------


def changed(row: int, column: int, value: float, scale: str = "counts") -> np.ndarray:
    values = matrix() if scale == "counts" else np.log1p(matrix())
    values[row, column] = value
    return values


REFUSED: dict[str, tuple[anndata.AnnData, Card, str]] = {
    "missing_columns": (
        screen(),
        card(columns={"perturbation": "genes", "context": "lin", "batch": "lane"}),
        r"'genes' \(columns.perturbation\) is not in obs. Did you mean 'gene'.*'lin'.*'lane'",
    ),
    "missing_gene_column": (
        screen(),
        card(gene_column="symbols"),
        r"'symbols' \(gene_column\) is not in var. Did you mean 'symbol'",
    ),
    "control_absent": (
        screen(),
        card(control_label="ctl"),
        r"no cell of column 'gene' has the control label 'ctl'. Did you mean 'ctrl'",
    ),
    "context_without_control": (
        screen(gene=np.where(LINES == "K562", "G1", PERTURBATIONS)),
        card(),
        r"contexts 'K562' have perturbed cells and no control 'ctrl'",
    ),
    "unlabelled_cells": (
        screen(gene=np.where(np.arange(N_CELLS) < 3, None, PERTURBATIONS)),
        card(),
        r"3 cells have no perturbation in column 'gene': 'cell0', 'cell1', 'cell2'",
    ),
    "empty_labels": (
        screen(line=np.where(np.arange(N_CELLS) == 5, " ", LINES)),
        card(),
        r"1 cells have no context in column 'line': 'cell5'",
    ),
    "duplicate_genes": (
        screen(),
        card(gene_column="twice"),
        r"genes 'S0', 'S1' occur more than once",
    ),
    "nan": (screen(changed(7, 3, np.nan)), card(), r"nan in cell 'cell7', gene 'G3'"),
    "infinity": (
        screen(changed(7, 3, np.inf, "log1p")),
        LOG1P,
        r"1 values are not finite; the first is inf in cell 'cell7', gene 'G3'",
    ),
    "negative": (screen(changed(7, 3, -2)), card(), r"negative; the first is -2.0 in cell 'cell7'"),
    "negative_integers": (
        screen(changed(7, 3, -2).astype("i4")),
        card(),
        r"negative; the first is -2 in cell 'cell7'",
    ),
    "negative_log1p": (screen(changed(7, 3, -0.5, "log1p")), LOG1P, "negative"),
    "fractions_in_counts": (
        screen(np.log1p(matrix())),
        card(),
        r"fractions, but the card declares counts; the first is 0.69.* and \d+ more; genes",
    ),
    "counts_as_log1p": (screen(), LOG1P, r"whole numbers without exception.*scale to counts"),
    "integers_as_log1p": (
        screen(matrix().astype("i4")),
        LOG1P,
        r"whole numbers without exception",
    ),
    "few_whole_numbers_as_log1p": (
        screen(np.eye(N_CELLS, N_GENES, dtype="f4")),
        LOG1P,
        r"declares log1p, but all values are whole numbers",
    ),
    "too_large_for_log1p": (
        screen(changed(7, 3, 15.5, "log1p")),
        LOG1P,
        r"1 values are too large for the declared log1p; the first is 15.5 in cell 'cell7'",
    ),
}
REFUSED["duplicate_genes"][0].var["twice"] = ["S0", "S1", *[f"S{i}" for i in range(N_GENES - 2)]]


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_card_is_refused(tmp_path: Path, case: str) -> None:
    made, described, message = REFUSED[case]
    source = written(tmp_path, made.copy())
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "a.zarr", described)
    assert os.listdir(tmp_path) == ["a.h5ad"]  # noqa: PTH208 - names are compared


def test_cells_of_the_same_name_are_refused(tmp_path: Path) -> None:
    made = screen()
    made.obs_names = ["cell0", "cell0", *made.obs_names[2:]]
    with pytest.warns(UserWarning, match="not unique"):
        source = written(tmp_path, made.copy())
    with pytest.raises(DataError, match="cells 'cell0' occur more than once"):
        convert(source, tmp_path / "a.zarr", card())


def test_entries_stored_twice_are_refused(tmp_path: Path) -> None:
    source = written(tmp_path, screen())
    with h5py.File(source, "r+") as file:
        file["X/indices"][1] = file["X/indices"][0]
    with pytest.raises(DataError, match="1 values are stored twice for the same cell and gene"):
        convert(source, tmp_path / "a.zarr", card())


def test_a_damaged_source_leaves_nothing_behind(tmp_path: Path) -> None:
    source = written(tmp_path, screen())
    with h5py.File(source) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    content = bytearray(source.read_bytes())
    content[chunk.byte_offset + 9 : chunk.byte_offset + 49] = b"#" * 40
    source.write_bytes(content)
    with pytest.raises(DataError, match=r"a.h5ad: the matrix cannot be read at cells 0:\d+ of 600"):
        convert(source, tmp_path / "a.zarr", card())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5ad"]


@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_truncated_source_leaves_nothing_behind(tmp_path: Path, share: float) -> None:
    source = written(tmp_path, screen())
    source.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
    with pytest.raises(DataError, match=r"a.h5ad: cannot be opened.*truncated"):
        convert(source, tmp_path / "a.zarr", card())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5ad"]
