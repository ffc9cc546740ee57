"""obs and var read without AnnData are what AnnData reads."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import read_elem

from harness.data.anndata_file import read_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INDEX = ["c0", "c1", "é"]

FRAMES = {
    "no-columns": pd.DataFrame(index=INDEX),
    "texts": pd.DataFrame({"gene": ["G1", "", "ö"], "line": ["a", "b", "a"]}, index=INDEX),
    "categories": pd.DataFrame({"gene": pd.Categorical(["b", None, "a"])}, index=INDEX),
    "ordered": pd.DataFrame(
        {"dose": pd.Categorical(["low", "high", "low"], ["low", "high"], ordered=True)}, index=INDEX
    ),
    "numbers": pd.DataFrame(
        {"x": [0.5, np.nan, 1], "n": [1, 2, 3], "b": [True, False, True]}, index=INDEX
    ),
    "number-categories": pd.DataFrame({"dose": pd.Categorical([1, 5, 1])}, index=INDEX),
    "nullable": pd.DataFrame({"n": pd.array([1, None, 3], dtype="Int64")}, index=INDEX),
    "named-index": pd.DataFrame({"x": [1, 2, 3]}, index=pd.Index(INDEX, name="barcode")),
    "empty": pd.DataFrame({"gene": pd.Categorical([], ["a"])}, index=pd.Index([], dtype=str)),
}


@pytest.mark.parametrize("name", list(FRAMES))
def test_a_frame_is_what_anndata_reads(tmp_path: Path, name: str) -> None:
    frame = FRAMES[name]
    anndata.AnnData(np.zeros((len(frame), 0), "f4"), obs=frame).write(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        pd.testing.assert_frame_equal(read_frame(file["obs"]), read_elem(file["obs"]))
        pd.testing.assert_frame_equal(read_frame(file["var"]), read_elem(file["var"]))


def test_real_files_are_read_as_anndata_reads_them(data_file: Callable[[str], Any]) -> None:
    for name in ("papalexi21.h5ad", "datlinger21.h5ad"):
        with h5py.File(data_file(name)) as file:
            pd.testing.assert_frame_equal(read_frame(file["obs"]), read_elem(file["obs"]))
            pd.testing.assert_frame_equal(read_frame(file["var"]), read_elem(file["var"]))


def test_opening_a_common_file_does_not_import_anndata(tmp_path: Path) -> None:
    frame = FRAMES["categories"].assign(text="a")
    anndata.AnnData(np.zeros((3, 2), "f4"), obs=frame).write(tmp_path / "x.h5ad")
    code = (
        "import sys; from harness.data.anndata_file import open_source; open_source(sys.argv[1]); "
        "assert 'anndata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.h5ad")], check=True)
