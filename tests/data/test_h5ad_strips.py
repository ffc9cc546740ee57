"""Files larger than memory, read where they lie: the same values as in memory, and errors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.data.h5ad_strips import StripCells
from harness.data.predictions import open_predictions
from harness.errors import DataError
from harness.kernels.threads import Limits
from harness.scoring.group_statistics import measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.data.cells import Cells

N_CELLS, N_GENES = 90, 600
SMALL = Limits(threads=2, memory=1000)


def screen(dtype: str = "f4") -> np.ndarray:
    values = np.random.default_rng(3).poisson(0.7, (N_CELLS, N_GENES))
    values[:, 250:260] = 0  # around where columns are noted
    values[5] = 0
    return (values * 0.5 if dtype[0] == "f" else values).astype(dtype)


def write(path: Path, matrix: Any, **options: Any) -> Path:
    obs = pd.DataFrame({"g": ["a", "c", "b"] * 30}, index=[f"{i}" for i in range(N_CELLS)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)])
    anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(path, **options)
    return path


def opened(path: Path, limits: Limits = SMALL) -> Cells:
    return open_predictions(
        str(path), perturbation_column="g", context_column=None, control_label="c", limits=limits
    )


def laid_anew(**layout: Any) -> Callable[[Path], None]:
    """Return a function that gives the matrix's arrays another layout in their file."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            group = file["X"]
            for name in ("data", "indices"):
                values = group[name][:]
                del group[name]
                group.create_dataset(name, data=values, **layout)

    return change


LAYOUTS = {
    "as-anndata-writes": lambda path: None,
    "in-one-piece": laid_anew(),
    "rows-across-chunks": laid_anew(chunks=(37,), maxshape=(None,)),
}


def dense(block: Any) -> np.ndarray:
    return block.toarray() if sparse.issparse(block) else block


def check_equal(cells: Any, x: np.ndarray) -> None:
    assert isinstance(cells, StripCells)
    for start, stop in ((0, N_GENES), (0, 256), (200, 300), (251, 259), (599, 600)):
        np.testing.assert_array_equal(dense(cells.gene_block(start, stop)), x[:, start:stop])
    rows = np.array([7, 5, 88, 7])
    np.testing.assert_array_equal(dense(cells.take(rows)), x[rows])
    np.testing.assert_array_equal(cells.library_sizes(), x.sum(axis=1, dtype=float))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "u2"])
def test_rows_of_entries_read_as_in_memory(tmp_path: Path, layout: str, dtype: str) -> None:
    x = screen(dtype)
    path = write(tmp_path / "x.h5ad", sparse.csr_matrix(x))
    LAYOUTS[layout](path)
    cells = opened(path)
    check_equal(cells, x)
    assert cells.scale == ("counts" if dtype == "u2" else "log1p")


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_dense_rows_read_as_in_memory(tmp_path: Path, dtype: str) -> None:
    x = screen(dtype)
    check_equal(opened(write(tmp_path / "x.h5ad", x)), x)


@pytest.mark.parametrize("form", [sparse.csr_matrix, np.asarray], ids=["sparse", "dense"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u2"])
def test_statistics_are_those_of_the_matrix_in_memory(
    tmp_path: Path, form: Any, dtype: str
) -> None:
    path = write(tmp_path / "x.h5ad", form(screen(dtype)))
    whole, strips = opened(path, Limits()), opened(path)
    assert not isinstance(whole, StripCells)
    one, other = (
        measure(cells, name="x", threads=2, memory=memory)
        for cells, memory in ((whole, 1 << 30), (strips, 1000))
    )
    np.testing.assert_array_equal(one.u, other.u)
    np.testing.assert_array_equal(one.ties, other.ties)
    np.testing.assert_allclose(one.means, other.means, rtol=1e-13)


def unsorted(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        first, stop = file["X/indptr"][:2]
        for name in ("data", "indices"):
            file[f"X/{name}"][first:stop] = file[f"X/{name}"][first:stop][::-1]


@pytest.mark.parametrize(
    "change",
    [laid_anew(compression="gzip"), unsorted],
    ids=["compressed", "columns-out-of-order"],
)
def test_what_cannot_be_read_where_it_lies_is_copied(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    x = screen()
    path = write(tmp_path / "x.h5ad", sparse.csr_matrix(x))
    change(path)
    cells = opened(path)
    assert not isinstance(cells, StripCells)
    np.testing.assert_array_equal(cells.gene_block(0, N_GENES), x)


def test_a_column_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5ad", sparse.csr_matrix(screen()))
    with h5py.File(path, "r+") as file:
        file["X/indices"][int(file["X/indptr"][1]) - 1] = N_GENES
    with pytest.raises(DataError, match="an index outside 0:600"):
        opened(path)


def test_a_wrong_value_is_named_with_its_cell_and_gene(tmp_path: Path) -> None:
    x = screen()
    x[40, 300] = 20.0
    cells = opened(write(tmp_path / "x.h5ad", sparse.csr_matrix(x)))
    with pytest.raises(DataError, match=r"Found 20.0 in cell 40 for gene 'G300'"):
        measure(cells, name="x", memory=1000)


def test_a_file_that_is_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5ad", screen())
    cells = opened(path)
    os.truncate(path, 4 * N_CELLS * N_GENES // 2)
    with pytest.raises(DataError, match="cut short or changed while it was in use"):
        cells.gene_block(0, N_GENES)


def test_the_file_is_closed_with_the_cells(tmp_path: Path) -> None:
    cells: Any = opened(write(tmp_path / "x.h5ad", screen()))
    file = cells.parts["data"].file
    os.fstat(file)
    del cells
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
