"""Tests of reading foreign files block by block."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.data.anndata_file import open_source
from harness.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N_CELLS, N_GENES = 300, 70


def matrix() -> np.ndarray:
    return np.random.default_rng(0).poisson(0.4, (N_CELLS, N_GENES)).astype("f4")


def screen(values: Any = None) -> anndata.AnnData:
    obs = pd.DataFrame(
        {"gene": pd.Categorical(np.resize(["ctrl", "G1", "G2"], N_CELLS))},
        index=[f"cell{i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
    return anndata.AnnData(sparse.csr_matrix(matrix()) if values is None else values, obs, var)


def write_tenx(path: Path, kinds: list[str] | None = None) -> Path:
    """Write what Cell Ranger writes: features × barcodes, by columns."""
    by_column = sparse.csc_matrix(matrix().T.astype("i4"))
    kinds = kinds or ["Gene Expression"] * N_GENES
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group.create_dataset(name, data=getattr(by_column, name), compression="gzip")
        group["shape"] = by_column.shape
        group["barcodes"] = np.array([f"cell{i}" for i in range(N_CELLS)], dtype="S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i}" for i in range(N_GENES)], dtype="S")
        features["name"] = np.array([f"G{i}" for i in range(N_GENES)], dtype="S")
        features["feature_type"] = np.array(kinds, dtype="S")
    return path


def write_h5ad(path: Path, values: Any = None, compression: Any = "gzip") -> Path:
    screen(values).write_h5ad(path, compression=compression)
    return path


def write_zarr(path: Path, zarr_format: int, values: Any = None) -> Path:
    chosen = anndata.settings.override(zarr_write_format=zarr_format, auto_shard_zarr_v3=False)
    with warnings.catch_warnings(action="ignore"), chosen:  # AnnData's own, of formats to come
        screen(values).write_zarr(path)
    return path


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "csr": lambda folder: write_h5ad(folder / "a.h5ad"),
    "csr_plain": lambda folder: write_h5ad(folder / "a.h5ad", compression=None),
    "csr_lzf": lambda folder: write_h5ad(folder / "a.h5ad", compression="lzf"),
    "csc": lambda folder: write_h5ad(folder / "a.h5ad", sparse.csc_matrix(matrix())),
    "dense": lambda folder: write_h5ad(folder / "a.h5ad", matrix()),
    "tenx": lambda folder: write_tenx(folder / "a.h5"),
    "zarr2": lambda folder: write_zarr(folder / "a.zarr", 2),
    "zarr3": lambda folder: write_zarr(folder / "a.zarr", 3),
    "zarr3_csc": lambda folder: write_zarr(folder / "a.zarr", 3, sparse.csc_matrix(matrix())),
    "zarr3_dense": lambda folder: write_zarr(folder / "a.zarr", 3, matrix()),
}


@pytest.fixture(params=LAYOUTS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return LAYOUTS[request.param](tmp_path)


@pytest.mark.parametrize("max_bytes", [1, 3000, 10**9], ids=["tiny", "small", "large"])
def test_row_blocks_are_the_matrix_whatever_the_layout(file: Path, max_bytes: int) -> None:
    with open_source(file) as source:
        blocks = list(source.row_blocks(max_bytes))
    assert [start for start, _ in blocks] == [
        sum(block.shape[0] for _, block in blocks[:i]) for i in range(len(blocks))
    ]
    np.testing.assert_array_equal(np.vstack([b.toarray() for _, b in blocks]), matrix())
    assert (len(blocks) == 1) == (max_bytes == 10**9)


def test_labels_are_known_before_the_matrix_is_read(file: Path) -> None:
    with open_source(file) as source:
        assert (source.n_cells, source.n_genes) == (N_CELLS, N_GENES)
        assert list(source.obs.index[:2]) == ["cell0", "cell1"]
        symbols = source.var.get("gene_symbols", source.var.index.to_series())
        assert list(symbols[:2]) == ["G0", "G1"]


def test_blocks_may_be_read_by_several_threads(file: Path) -> None:
    with open_source(file) as source, ThreadPoolExecutor(4) as pool:
        total = sum(block.sum() for block in pool.map(source.read, source.plan(2000)))
    assert total == matrix().sum()


def test_a_layer_is_read_by_its_name(tmp_path: Path) -> None:
    with_layer = screen(np.zeros((N_CELLS, N_GENES), "f4"))
    with_layer.layers["counts"] = sparse.csr_matrix(matrix())
    with_layer.write_h5ad(tmp_path / "a.h5ad")
    with open_source(tmp_path / "a.h5ad", layer="counts") as source:
        ((_, block),) = source.row_blocks(10**9)
    np.testing.assert_array_equal(block.toarray(), matrix())


def test_an_unknown_layer_is_refused_with_a_near_match(tmp_path: Path) -> None:
    with_layer = screen()
    with_layer.layers["counts"] = with_layer.X
    with_layer.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"no matrix 'count'. Did you mean 'counts'"):
        open_source(tmp_path / "a.h5ad", layer="count")


def test_guides_and_antibodies_of_a_tenx_file_are_no_genes(tmp_path: Path) -> None:
    kinds = [*["Gene Expression"] * (N_GENES - 2), "CRISPR Guide Capture", "Antibody Capture"]
    with open_source(write_tenx(tmp_path / "a.h5", kinds)) as source:
        assert source.n_genes == N_GENES - 2
        ((_, block),) = source.row_blocks(10**9)
    np.testing.assert_array_equal(block.toarray(), matrix()[:, :-2])


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_adds_columns_by_the_cells_names(tmp_path: Path, ending: str) -> None:
    cells = [f"cell{i}" for i in range(N_CELLS)]
    table = pd.DataFrame({"barcode": cells[::-1], "batch": range(N_CELLS)})
    path = tmp_path / f"cells.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if ending == "csv" else "\t", index=False)
    with open_source(write_tenx(tmp_path / "a.h5"), obs=path) as source:
        assert list(source.obs["batch"]) == list(range(N_CELLS))[::-1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("cell,x\ncell0,1\n", r"299 of 300 cells.*'cell1', 'cell2'", id="missing"),
        pytest.param("cell,x\ncell0,1\ncell0,2\n", "'cell0' have several rows", id="twice"),
        pytest.param(
            "cell,gene\n" + "".join(f"cell{i},G1\n" for i in range(N_CELLS)),
            r"columns 'gene' are in .* too",
            id="column_in_both",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "cells.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_source(write_h5ad(tmp_path / "a.h5ad"), obs=tmp_path / "cells.csv")


def test_a_table_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected an existing .csv, .tsv or .parquet"):
        open_source(write_h5ad(tmp_path / "a.h5ad"), obs=tmp_path / "cells.xlsx")


# --- damage -------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.h5ad: no such file"):
        open_source(tmp_path / "none.h5ad")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_text("no cells here", encoding="utf-8")
    with pytest.raises(DataError, match=r"a.h5ad: cannot be opened"):
        open_source(tmp_path / "a.h5ad")


def test_an_hdf5_file_without_cells_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "a.h5ad", "w").close()
    with pytest.raises(DataError, match="expected AnnData's obs and var"):
        open_source(tmp_path / "a.h5ad")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = write_h5ad(tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"a.h5ad: cannot be opened.*truncated file"):
        open_source(path)


@pytest.mark.parametrize("layout", ["csr", "dense", "csc"])
def test_an_overwritten_chunk_is_found_and_its_place_said(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    with h5py.File(path) as opened:
        data = opened["X"] if layout == "dense" else opened["X/data"]
        chunk = data.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 20 : chunk.byte_offset + 60] = b"#" * 40
    path.write_bytes(content)
    axis = "genes" if layout == "csc" else "cells"
    with (
        open_source(path) as source,
        pytest.raises(DataError, match=rf"a.h5ad: the matrix cannot be read at {axis} 0:\d+ of"),
    ):
        list(source.row_blocks(10**9))


def test_a_dense_zarr_without_any_chunk_is_not_read_as_zeros(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", 3, matrix())
    shutil.rmtree(path / "X" / "c")
    with pytest.raises(DataError, match=r"found none of the \d+ chunks of the matrix"):
        open_source(path)


def test_missing_chunks_of_a_zarr_are_not_read_as_zeros(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", 3)
    next(entry for entry in (path / "X" / "indices" / "c").iterdir()).unlink()
    with pytest.raises(DataError, match=r"1 of 1 chunks of 'indices' are missing"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param("indptr", lambda old: old[::-1], "indptr .* is damaged", id="indptr"),
        pytest.param("data", lambda old: old[:-5], r"cut short", id="data"),
    ],
)
def test_a_sparse_matrix_that_contradicts_itself_is_refused(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    path = write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        changed = value(file[f"X/{name}"][:])
        del file[f"X/{name}"]
        file[f"X/{name}"] = changed
    with pytest.raises(DataError, match=message):
        open_source(path)


def test_an_index_beyond_the_genes_is_refused(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", compression=None)
    with h5py.File(path, "r+") as file:
        file["X/indices"][7] = N_GENES
    with open_source(path) as source, pytest.raises(DataError, match="an index outside 0:70"):
        source.read(source.plan(10**9)[0])


def test_a_matrix_of_another_shape_than_its_labels_is_refused(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "a.h5ad", matrix())
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = matrix()[1:]
    with pytest.raises(DataError, match=r"is 299 × 70, but obs has 300 rows"):
        open_source(path)
