"""Opening foreign files of cells: `.h5ad`, 10x `.h5` and AnnData `.zarr` as a `Source`.

What cannot be read, is damaged or is of another kind is a `DataError` that names the file and says
what was found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import zarr

from harness.data.anndata_matrix import DAMAGE, Layout, Source
from harness.errors import DataError, listed, near_match
from harness.storage import refuse_url

if TYPE_CHECKING:
    import os


def open_source(
    path: str | os.PathLike[str], layer: str = "X", *, obs: str | os.PathLike[str] | None = None
) -> Source:
    """Open a file of cells, reading its labels but none of its matrix.

    Parameters
    ----------
    path
        `.h5ad`, AnnData `.zarr` (v2 or v3), or 10x `.h5`.
    layer
        ``"X"``, or the name of a layer.
    obs
        A table (`.csv`, `.tsv` or `.parquet`) with a row for each cell, the cell's name or barcode
        in its first column; its other columns are added to the annotation of cells. 10x files have
        no annotation of their own and need one.
    """
    refuse_url(str(path))
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file. Give the path of a .h5ad, .h5 or .zarr.")
    try:
        if path.is_dir():
            source = _open_anndata(path, zarr.open_group(str(path), mode="r"), layer)
        else:
            source = _open_hdf5(path, layer)
    except DAMAGE as error:
        raise DataError(
            f"{path}: cannot be opened as .h5ad, 10x .h5 or AnnData .zarr ({error}). The file is "
            "damaged, cut short or of another kind: compare its checksum."
        ) from error
    if obs is None:
        return source
    try:
        return _annotated(source, Path(obs))
    except BaseException:
        source.close()
        raise


def _open_hdf5(path: Path, layer: str) -> Source:
    file = h5py.File(path, "r")
    try:
        group = file.get("matrix")
        if isinstance(group, h5py.Group) and "barcodes" in group:
            return _open_tenx(path, group)
        return _open_anndata(path, file, layer)
    except BaseException:
        file.close()
        raise


def _open_anndata(path: Path, root: Any, layer: str) -> Source:
    if "obs" not in root or "var" not in root:
        raise DataError(
            f"{path}: found {listed(sorted(root)) or 'nothing'}, expected AnnData's obs and var. "
            "Give a .h5ad, an AnnData .zarr, or a 10x .h5 with the group 'matrix'."
        )
    matrix = _matrix(path, root, layer)
    obs, var = read_frame(root["obs"]), read_frame(root["var"])
    shape = (len(obs), len(var))
    if isinstance(matrix, h5py.Dataset | zarr.Array):
        layout: Layout = "dense"
        # single chunks, of zeros, may be left out
        if isinstance(matrix, zarr.Array) and matrix.size and not matrix.nchunks_initialized:
            raise DataError(
                f"{path}: found none of the {matrix.nchunks} chunks of the matrix, so that every "
                "value would be zero. The copy is not complete: copy or download it again."
            )
        parts = {"data": matrix}
        found = tuple(matrix.shape)
    else:
        # files from before AnnData 0.7 use the names after `or`
        kind = str(matrix.attrs.get("encoding-type") or matrix.attrs.get("h5sparse_format"))
        stated = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape"))
        layouts: dict[str, Layout] = {"csr": "csr", "csc": "csc"}
        if kind[:3] not in layouts or stated is None:
            raise DataError(f"{path}: found a matrix of kind {kind!r}, expected CSR, CSC or dense.")
        layout, found = layouts[kind[:3]], (int(stated[0]), int(stated[1]))
        parts = _sparse_parts(path, matrix, found[layout == "csc"])
    if found != shape:
        raise DataError(
            f"{path}: the matrix {layer!r} is {found[0]} × {found[1]}, but obs has {shape[0]} rows "
            f"and var {shape[1]}. The file is inconsistent: write it again."
        )
    return Source(str(path), obs, var, _value_type(path, parts["data"]), layout, root, parts)


def _matrix(path: Path, root: Any, layer: str) -> Any:
    layers = root.get("layers", {})
    known = [*(["X"] if "X" in root else []), *layers]
    if layer not in known:
        raise DataError(
            f"{path}: no matrix {layer!r}. {near_match(layer, known)} "
            "Name one of them as expression.layer in the card; a prediction has its cells in X."
        )
    return root["X"] if layer == "X" else layers[layer]


def _sparse_parts(path: Path, matrix: Any, n_major: int) -> dict[str, Any]:
    indptr = np.asarray(matrix["indptr"][:]).astype("i8")
    entries = {int(matrix[name].shape[0]) for name in ("data", "indices")}  # Zarr has no len
    if len(indptr) != n_major + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise DataError(f"{path}: indptr of the sparse matrix is damaged. Write the file again.")
    if entries != {int(indptr[-1])}:
        raise DataError(
            f"{path}: the sparse matrix promises {indptr[-1]} entries and has "
            f"{listed(sorted(entries))}. The file was cut short: copy or download it again."
        )
    for name in ("data", "indices"):
        array = matrix[name]
        # Zarr reads missing chunks as zeros without a word
        if isinstance(array, zarr.Array) and array.nchunks_initialized < array.nchunks:
            raise DataError(
                f"{path}: {array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks of "
                f"{name!r} are missing. The copy is not complete: copy or download it again."
            )
    return {"data": matrix["data"], "indices": matrix["indices"], "indptr": indptr}


def _value_type(path: Path, data: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(data.dtype)
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: found values of type {dtype}, expected numbers.")
    return dtype


# --- 10x ----------------------------------------------------------------------------------------


def _open_tenx(path: Path, group: Any) -> Source:
    """Read what Cell Ranger (3 and later) writes: genes × cells by columns, thus cells by rows."""
    features = group["features"]
    width, n_cells = (int(length) for length in group["shape"][:])
    names = {"gene_symbols": "name", "feature_types": "feature_type", "genome": "genome"}
    columns = {to: features[of].asstr()[:] for to, of in names.items() if of in features}
    var = pd.DataFrame(columns, index=pd.Index(features["id"].asstr()[:]))
    kept = None
    if "feature_types" in var and (var["feature_types"] != "Gene Expression").any():
        # guides and antibodies are counted in the same matrix; they are no genes
        kept = np.flatnonzero(var["feature_types"] == "Gene Expression")
        var = var.iloc[kept]
    obs = pd.DataFrame(index=pd.Index(group["barcodes"].asstr()[:]))
    parts = _sparse_parts(path, group, n_cells) | {"width": width}
    dtype = _value_type(path, parts["data"])
    return Source(str(path), obs, var, dtype, "csr", group.file, parts, kept)


def _annotated(source: Source, table: Path) -> Source:
    columns = _read_table(table)
    missing = source.obs.index[~source.obs.index.isin(columns.index)]
    if len(missing):
        raise DataError(
            f"{table}: {len(missing)} of {source.n_cells} cells of {source.path} have no row: "
            f"{listed(missing)}. Expected the names of cells in the first column, which begins "
            f"with {listed(columns.index[:2])}. Add a row for each cell."
        )
    twice = [name for name in columns if name in source.obs]
    if twice:
        raise DataError(
            f"{table}: columns {listed(twice)} are in {source.path} too. Remove them from one."
        )
    return replace(source, obs=source.obs.join(columns))


def _read_table(table: Path) -> pd.DataFrame:
    endings = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
    suffixes = [suffix for suffix in table.suffixes if suffix != ".gz"]
    ending = suffixes[-1] if suffixes else ""
    if not table.is_file() or ending not in {*endings, ".parquet"}:
        raise DataError(
            f"{table}: not a table of cells. Expected an existing .csv, .tsv or .parquet."
        )
    if ending == ".parquet":
        columns = pd.read_parquet(table)
        if isinstance(columns.index, pd.RangeIndex):
            columns = columns.set_index(columns.columns[0])
    else:
        columns = pd.read_csv(table, sep=endings[ending], index_col=0)
    columns.index = columns.index.map(str)
    repeated = columns.index[columns.index.duplicated()].unique()
    if len(repeated):
        raise DataError(f"{table}: cells {listed(repeated)} have several rows. Keep one of each.")
    return columns


def read_frame(group: Any) -> pd.DataFrame:
    """Read a data frame as `anndata.io.read_elem` does, which takes seconds to import."""
    if isinstance(group, h5py.Group) and _kind(group) == ("dataframe", "0.2.0"):
        index, order = str(group.attrs["_index"]), list(group.attrs["column-order"])
        names = (index, *map(str, order))
        columns = {name: _column(group[name]) if name in group else None for name in names}
        if not any(column is None for column in columns.values()):
            frame = pd.DataFrame(columns, index=columns.pop(index), columns=order or None)
            frame.index.name = None if index == "_index" else index
            return frame
    from anndata.io import read_elem

    found: pd.DataFrame = read_elem(group)
    return found


def _kind(element: Any) -> tuple[str, str]:
    attributes = element.attrs
    return str(attributes.get("encoding-type")), str(attributes.get("encoding-version"))


def _column(element: Any) -> Any:
    """Read the index or a column; None where its kind is not known here."""
    text, kind = ("string-array", "0.2.0"), _kind(element)
    if kind == text:
        return element.asstr()[:].astype(object)
    if kind == ("categorical", "0.2.0") and _kind(element["categories"]) == text:
        labels, ordered = _column(element["categories"]), bool(element.attrs["ordered"])
        return pd.Categorical.from_codes(element["codes"][:], categories=labels, ordered=ordered)
    if kind == ("array", "0.2.0") and element.dtype.kind in "biuf" and element.ndim == 1:
        return element[:]
    return None
