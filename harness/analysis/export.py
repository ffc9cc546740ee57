"""Results as files for other tools: tables as CSV or Parquet, the cube as Zarr or netCDF."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError
from harness.storage import paths

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from harness.analysis.results import Results

Form = Literal["csv", "parquet", "zarr", "netcdf"]


def export_results(results: Results, path: str, form: Form) -> None:
    """Write all scores with their trials' factors.

    ``csv`` and ``parquet`` have a row per score; ``zarr`` and ``netcdf`` the cube by context
    (`Results.to_xarray`).

    Raises
    ------
    FileExistsError
        There is something at `path` already, and it is to be a Zarr store, which is many files.
    HarnessError
        netCDF needs h5netcdf, which is not installed.
    """
    if form in ("csv", "parquet"):
        write_frame(results.scores, path, "csv" if form == "csv" else "parquet")
    elif form == "zarr":
        if paths.exists(path):
            raise FileExistsError(f"{path} exists. Remove it, or give another name.")
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            scratch = Path(folder, "cube.zarr")
            cube = results.to_xarray(by_context=True)
            cube.to_zarr(scratch, zarr_format=3, consolidated=False)
            paths.publish(str(scratch), path, last="zarr.json")
    else:
        _write_netcdf(results.to_xarray(by_context=True), path)


def write_frame(frame: pd.DataFrame, path: str, form: Literal["csv", "parquet"]) -> None:
    """Write a table whole: a reader sees the old file, the new one or none."""
    if form == "csv":
        paths.write_atomic(path, frame.to_csv(index=False, lineterminator="\n"))
        return
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    paths.write_atomic(path, buffer.getvalue())


def _write_netcdf(cube: xr.Dataset, path: str) -> None:
    try:
        import h5netcdf  # noqa: F401 - xarray's engine
    except ImportError as error:
        raise HarnessError(
            "netCDF needs h5netcdf, which is not installed. Install it: "
            "pip install 'virtual-cell-harness[results]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        scratch = Path(folder, "cube.nc")
        cube.to_netcdf(scratch, engine="h5netcdf")
        paths.write_atomic(path, scratch.read_bytes())
