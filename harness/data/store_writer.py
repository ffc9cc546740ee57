"""Write a store: rows in order or shards in any order, published by one rename.

All is written into a scratch folder beside the final name, each shard flushed to disk. What is
known of its cells, their library sizes and hashes, is kept so that neither takes a second pass over
the matrix: in a small file, if a writer that was killed is to be continued. The manifest comes
last. What the process that writes it will delete again is flushed nowhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
import zarr
from scipy import sparse

from harness.data.spill import from_dense
from harness.data.store import CHUNK_GENES, CHUNK_ROWS, FORMAT, open_store, shard_rows
from harness.data.store_layout import Matrix, layout, write_elements
from harness.errors import DataError
from harness.kernels import median_library_size
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from harness.data.cells import Scale
    from harness.data.store import Array, PairRange, Store
    from harness.data.store_layout import Compression

Rows: TypeAlias = sparse.csr_matrix

DIGEST_BYTES = 16

PLAIN_BYTES = 1024 * 1024
"""The largest matrix that is written as one chunk as it is, such as the profiles of a trial:
compressing it takes longer than what that saves."""


@dataclass
class StoreWriter:
    """Writes a store beside its final name and publishes it by one rename in `finish`.

    Rows come in store order through `append`, or whole shards in any order and from any thread
    through `write_shard`. Leaving a ``with`` block without `finish` removes the scratch folder,
    unless a caller who names `scratch` wants to continue later: then nothing but `discard` does.

    Parameters
    ----------
    path
        The store's final name; must not exist. An object-store URL is written locally, then sent.
    obs, var
        Annotation of cells in store order, and of genes. Every row that `obs` names must come.
    ranges
        The rows of each pair, as `ranges_of` returns them.
    card
        JSON-able; of it, the store reads gene_column, target_column and combination_separator.
    compression
        ``"auto"`` chooses by scale what was measured to be best for it: LZ4 of shuffled bits for
        counts, Zstandard for log1p values. ``"none"`` is for what is read once and deleted.
    scratch
        A folder to continue in if an earlier writer of the same store left it.
    temporary
        Whether this process deletes the store: it is not flushed to disk, and has no annotation of
        cells.
    """

    path: str
    _: KW_ONLY
    obs: pd.DataFrame
    var: pd.DataFrame
    ranges: Sequence[PairRange]
    dtype: np.dtype[Any] | str
    card: Mapping[str, Any]
    scale: Scale
    control_label: str
    compression: Compression = "auto"
    scratch: str | None = None
    temporary: bool = False
    _pending: list[Array] = field(default_factory=list, init=False, repr=False)
    _buffers: list[Array] = field(default_factory=list, init=False, repr=False)
    _flushes: list[Future[None]] = field(default_factory=list, init=False, repr=False)
    _records: dict[int, Mapping[str, Array]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if paths.is_published(self.path, "zarr.json"):
            raise DataError(f"{self.path} exists already. Remove it, or choose another name.")
        self.dtype = np.dtype(self.dtype)
        self.shape = (len(self.obs), len(self.var))
        self.shard_rows = shard_rows(self.shape[1], self.dtype.itemsize)
        self.n_shards = -(-self.shape[0] // self.shard_rows)
        stops = [0, *(found.stop for found in self.ranges)]
        if stops[-1] != self.shape[0] or any(
            found.start != stop for found, stop in zip(self.ranges, stops, strict=False)
        ):
            raise ValueError("Ranges must cover all cells of obs, in order and without gaps.")
        self._shard_shape = (min(self.shard_rows, self.shape[0]), self.shape[1])
        if self.scratch is not None:
            self._folder = Path(self.scratch)
        elif paths.is_remote(self.path):
            self._folder = Path(tempfile.mkdtemp())
        else:
            self._folder = Path(paths.scratch_name(self.path))
        self._next = 0
        self._flusher = ThreadPoolExecutor(1)
        content = self.shape[0] * self.shape[1] * self.dtype.itemsize
        self._plain = self.n_shards == 1 and 0 < content <= PLAIN_BYTES and self.scratch is None
        self._matrix = self._prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.scratch is None:
            self.discard()

    def discard(self) -> None:
        """Remove what was written and not published."""
        self._flusher.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self) -> zarr.Array[Any] | None:
        """Create the empty store, or reopen one that an earlier writer left whole.

        Nothing needs to be opened where the matrix is one chunk as it is.
        """
        store, ready = self._folder / "store", self._folder / "rows"
        if self.scratch is not None and ready.is_dir():
            for torn in store.rglob("*.partial"):  # a killed writer's; Zarr never reads them
                torn.unlink()
        else:
            shutil.rmtree(store, ignore_errors=True)
            files = self._layout()
            for folder in {name.rpartition("/")[0] for name in files}:
                (store / folder).mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (store / name).write_bytes(content)
            if self.scratch is not None:
                ready.mkdir()
        if self._plain:
            return None
        # looking for tiles that are all zero takes longer than compressing them
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(store / "X", mode="r+", zarr_format=3)

    def _layout(self) -> dict[str, bytes]:
        """Return the store's files before its first row."""
        tile = (min(CHUNK_ROWS, max(1, self.shape[0])), min(CHUNK_GENES, max(1, self.shape[1])))
        rows = min(self.shard_rows, -(-self.shape[0] // tile[0]) * tile[0]) or 1
        matrix = Matrix(
            shape=self.shape,
            dtype=np.dtype(self.dtype),
            tile=self.shape if self._plain else tile,
            shard=None if self._plain else (rows, -(-self.shape[1] // tile[1]) * tile[1] or 1),
            compression="none" if self._plain else self.compression,
            scale=self.scale,
        )
        return layout(matrix, None if self.temporary else self.obs, self.var)

    @property
    def written(self) -> frozenset[int]:
        """The shards that are on disk."""
        if self.scratch is None:
            return frozenset(self._records)
        return frozenset(int(file.stem) for file in (self._folder / "rows").glob("*.npz"))

    def shard_slice(self, shard: int) -> slice:
        """Return the rows that a shard holds."""
        start = shard * self.shard_rows
        return slice(start, min(start + self.shard_rows, self.shape[0]))

    def append(self, rows: Array | Rows) -> None:
        """Write the next rows in store order; held back until a shard is full."""
        dense = np.asarray(rows.toarray() if sparse.issparse(rows) else rows)
        dense = dense.astype(self.dtype, copy=False)
        while len(dense):
            if self._next == self.n_shards:
                raise ValueError(f"More rows than the {self.shape[0]} that obs names.")
            wanted = self.shard_slice(self._next)
            missing = wanted.stop - wanted.start - sum(map(len, self._pending))
            # copied: the caller may fill its array anew before the shard is full
            self._pending.append(np.array(dense[:missing]))
            dense = dense[missing:]
            if len(self._pending[-1]) == missing:
                block = self._pending[0] if len(self._pending) == 1 else np.vstack(self._pending)
                self._pending.clear()
                self.write_shard(self._next, block)
                self._next += 1

    def write_shard(self, shard: int, rows: Array | Rows | Iterable[Rows]) -> None:
        """Write one whole shard, given at once or in blocks; `finish` waits for the disk."""
        where = self.shard_slice(shard)
        # a buffer that was used before: mapping 64 MB of fresh memory takes as long as filling it
        buffer = self._buffers.pop() if self._buffers else np.empty(self._shard_shape, self.dtype)
        dense, filled = buffer[: where.stop - where.start], 0
        sizes, digests = [np.zeros(0)], []
        for strip in _strips(rows):
            if filled + strip.shape[0] > len(dense) or strip.shape[1] != self.shape[1]:
                raise ValueError(f"{strip.shape} rows do not fit into shard {shard}: {where}.")
            if filled % CHUNK_ROWS:
                raise ValueError(f"Blocks of rows must be multiples of {CHUNK_ROWS}, but the last.")
            part = dense[filled : filled + strip.shape[0]]
            if isinstance(strip, np.ndarray):
                part[:] = strip
                entries = from_dense(part)
            else:
                entries = cast("Rows", strip.astype(self.dtype, copy=False))
                entries.toarray(out=part)
            if self.scale == "counts":
                sizes.append(np.asarray(entries.sum(axis=1, dtype="f8")).ravel())
            digests.append(_digest(entries))
            filled += strip.shape[0]
        if filled < len(dense):
            raise ValueError(f"Shard {shard} holds {len(dense)} rows, but got {filled}.")
        if self._matrix is None:  # as Zarr's codec ``bytes`` writes a chunk
            chunk = self._folder / "store" / "X" / "c" / "0" / "0"
            chunk.parent.mkdir(parents=True)
            chunk.write_bytes(dense.astype(dense.dtype.newbyteorder("<"), copy=False).tobytes())
        else:
            self._matrix[where] = dense
        self._buffers.append(buffer)
        kept = {"sizes": np.concatenate(sizes), "digests": np.concatenate(digests)}
        if self._plain and not self.temporary:
            self._record(shard, kept)
        elif not self.temporary or self.scratch is not None:
            # the disk works while the next shard is computed
            self._flushes.append(self._flusher.submit(self._record, shard, kept))
        else:
            self._records[shard] = kept

    def _record(self, shard: int, kept: dict[str, Any]) -> None:
        """Note that a shard is safely on disk, with what is known of its rows."""
        paths.flush(self._folder / "store" / "X" / "c" / str(shard) / "0")
        if self.scratch is None:  # nobody will continue it
            self._records[shard] = kept
            return
        scratch = self._folder / "rows" / f"{shard}.partial"
        with scratch.open("wb") as record:
            np.savez(record, **kept)
            record.flush()
            os.fsync(record.fileno())
        scratch.rename(scratch.with_suffix(".npz"))

    def finish(self) -> Store:
        """Publish the store under its name and open it."""
        self.publish()
        return open_store(self.path)

    def publish(self) -> None:
        """Write the manifest, and give the store its name."""
        for flush in self._flushes:
            flush.result()
        missing = sorted(set(range(self.n_shards)) - self.written)
        if missing:
            rows = sum(self.shard_slice(s).stop - self.shard_slice(s).start for s in missing)
            raise ValueError(f"{rows} of {self.shape[0]} rows were not written (shards {missing}).")
        for shard in range(self.n_shards if self.scratch is not None else 0):
            with np.load(self._folder / "rows" / f"{shard}.npz") as found:
                self._records[shard] = dict(found)
        records = [self._records[shard] for shard in range(self.n_shards)]
        sizes = np.concatenate([np.zeros(0), *(record["sizes"] for record in records)])
        digests = b"".join(record["digests"].tobytes() for record in records)
        store = self._folder / "store"
        if self.scale == "counts":
            group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
            write_elements(group, {"uns": {"harness": {"library_sizes": sizes}}})
        root = json.loads((store / "zarr.json").read_bytes())
        root["attributes"]["harness"] = self._manifest(sizes, digests)
        (store / "zarr.json").write_text(json.dumps(root, indent=2), encoding="utf-8")
        for folder, _, names in () if self.temporary else os.walk(store):
            if not folder.startswith(f"{store}/X/c"):  # shards were flushed when they were written
                for name in names:
                    paths.flush(f"{folder}/{name}")
        paths.publish(str(store), self.path, last="zarr.json", durable=not self.temporary)
        self.discard()

    def _manifest(self, sizes: Array, digests: bytes) -> dict[str, Any]:
        column = self.card.get("gene_column")
        genes = self.var.index if column is None else self.var[column]
        labels = [list(found) for found in self.ranges]
        described = [list(map(str, genes)), labels, self.scale, self.control_label]
        content = hashlib.blake2b(digests, digest_size=DIGEST_BYTES)
        content.update(json.dumps(described, ensure_ascii=True).encode())
        return {
            "format": FORMAT,
            "card": dict(self.card),
            "scale": self.scale,
            "control_label": self.control_label,
            "fingerprint": content.hexdigest(),
            "library_size": median_library_size(sizes) if len(sizes) else None,
            "ranges": labels,
        }


def _strips(rows: Array | Rows | Iterable[Rows]) -> Iterator[Array | Rows]:
    """Cut rows into strips: the sparse or dense copy of one is small, and strips are hashed."""
    for block in [rows] if isinstance(rows, np.ndarray | sparse.spmatrix) else rows:
        for at in range(0, block.shape[0], CHUNK_ROWS):
            yield block[at : at + CHUNK_ROWS]


def _digest(strip: Rows) -> Array:
    """Hash 256 cells: for each the number of non-zero genes, then these genes, then their values.

    Strips are counted from the first cell of the store, so the fingerprint made of their hashes
    depends on no shard's size, on no order of writing and on no codec.
    """
    digest = hashlib.blake2b(np.diff(strip.indptr).astype("<u4").data, digest_size=DIGEST_BYTES)
    columns = strip.indices.astype("<u2" if strip.shape[1] <= 2**16 else "<u4")
    digest.update(columns.data)
    digest.update(strip.data.astype(strip.dtype.newbyteorder("<"), copy=False).data)
    return np.frombuffer(digest.digest(), dtype="u1")
