"""Tests of reading and writing stores."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from zarr.storage import LocalStore, WrapperStore

from harness.data.store import CHUNK_ROWS, Store, open_store, ranges_of, shard_rows
from harness.data.store_writer import StoreWriter
from harness.errors import DataError
from harness.kernels.normalise import median_library_size

GENES = 2300  # three tiles wide, the last one narrow
CONTEXTS = np.repeat(["K562", "RPE1"], [500, 420])
PERTURBATIONS = np.repeat(["G1", "G2+G7", "ctrl", "G1", "ctrl"], [200, 50, 250, 300, 120])


@cache
def drawn(n_genes: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(0.3, (len(CONTEXTS), n_genes)).astype("f4")


def counts(n_genes: int = GENES) -> np.ndarray:
    return drawn(n_genes).copy()


def described(n_genes: int = GENES, **changes: Any) -> dict[str, Any]:
    obs = pd.DataFrame(
        {
            "line": pd.Categorical(CONTEXTS),
            "gene": PERTURBATIONS,
            "depth": np.arange(len(CONTEXTS)) / 7,
            "target": pd.Categorical(["G5", *["none"] * (len(CONTEXTS) - 1)]),
        },
        index=[f"cell{i}" for i in range(len(CONTEXTS))],
    )
    var = pd.DataFrame(
        {"symbol": [f"S{i}" for i in range(n_genes)]}, index=[f"G{i}" for i in range(n_genes)]
    )
    given = {
        "obs": obs,
        "var": var,
        "ranges": ranges_of(CONTEXTS, PERTURBATIONS),
        "dtype": "f4",
        "card": {"combination_separator": "+"},
        "scale": "counts",
        "control_label": "ctrl",
    }
    return given | changes


def write(path: Path, matrix: np.ndarray, blocks: int = 137, **changes: Any) -> Store:
    with StoreWriter(str(path), **described(matrix.shape[1], **changes)) as writer:
        for start in range(0, len(matrix), blocks):
            writer.append(matrix[start : start + blocks])
        return writer.finish()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write(tmp_path_factory.mktemp("store") / "a.zarr", counts())


def test_anndata_reads_back_the_same_matrix_obs_and_var(store: Store) -> None:
    screen = anndata.read_zarr(store.path)
    np.testing.assert_array_equal(screen.X, counts())
    assert screen.X.dtype == np.float32
    pd.testing.assert_frame_equal(screen.obs, described()["obs"])
    pd.testing.assert_frame_equal(screen.var, described()["var"])


def test_a_store_describes_itself(store: Store) -> None:
    assert (store.n_cells, store.n_genes, store.scale) == (920, GENES, "counts")
    assert store.contexts == ("K562", "RPE1")
    assert store.perturbations == ("G1", "G2+G7")
    assert store.pairs == (("G1", "K562"), ("G2+G7", "K562"), ("G1", "RPE1"))
    assert store.genes[:2] == ("G0", "G1")
    assert store.library_size == np.median(counts().sum(axis=1))
    np.testing.assert_array_equal(store.library_sizes(), counts().sum(axis=1, dtype="f8"))
    pd.testing.assert_frame_equal(store.obs(), described()["obs"])
    pd.testing.assert_frame_equal(store.var(), described()["var"])


def test_cells_and_controls_are_the_rows_with_these_labels(store: Store) -> None:
    wanted = (CONTEXTS == "RPE1") & (PERTURBATIONS == "G1")
    np.testing.assert_array_equal(store.cells("G1", "RPE1"), counts()[wanted])
    wanted = (CONTEXTS == "K562") & (PERTURBATIONS == "ctrl")
    np.testing.assert_array_equal(store.controls("K562"), counts()[wanted])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_rows_and_gene_blocks_are_slices_of_the_matrix(store: Store, data: Any) -> None:
    rows = sorted(data.draw(st.lists(st.integers(0, 920), min_size=2, max_size=2)))
    genes = sorted(data.draw(st.lists(st.integers(0, GENES), min_size=2, max_size=2)))
    np.testing.assert_array_equal(store.rows(*rows), drawn(GENES)[slice(*rows)])
    np.testing.assert_array_equal(store.gene_block(*genes), drawn(GENES)[:, slice(*genes)])


class CountingStore(WrapperStore[LocalStore]):
    """Counts the bytes that are read of each key."""

    read: Counter[str]

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        found = await super().get(key, *args, **kwargs)
        self.read[key] += 0 if found is None else len(found)
        return found


@pytest.mark.parametrize(
    ("read", "share"),
    [
        pytest.param(lambda store: store.rows(0, CHUNK_ROWS), 256 / 920, id="pair"),
        pytest.param(lambda store: store.gene_block(0, 1024), 1024 / GENES, id="genes"),
    ],
)
def test_only_the_chunks_needed_are_read(store: Store, read: Any, share: float) -> None:
    counting = CountingStore(LocalStore(store.path, read_only=True))
    counting.read = Counter()
    watched = open_store(store.path)
    watched._matrix = zarr.open_array(counting, path="X", mode="r", zarr_format=3)
    read(watched)
    (shard,) = [key for key in counting.read if key.startswith("X/c/")]
    size = (Path(store.path) / shard).stat().st_size
    assert 0.8 * share < counting.read[shard] / size < 1.2 * share + 0.02  # index of chunks


def test_several_shards_are_read_as_one_matrix(tmp_path: Path) -> None:
    wide = counts(n_genes=35_000)
    assert shard_rows(35_000, 8) == CHUNK_ROWS
    store = write(tmp_path / "wide.zarr", wide.astype("f8"), dtype="f8")
    assert len(list((tmp_path / "wide.zarr" / "X" / "c").iterdir())) == 4
    np.testing.assert_array_equal(store.rows(200, 600), wide[200:600])
    np.testing.assert_array_equal(store.gene_block(34_900, 35_000), wide[:, 34_900:])


@pytest.mark.parametrize("dtype", ["f4", "f8", "u2", "i8"])
def test_the_stored_type_is_the_sources(tmp_path: Path, dtype: str) -> None:
    store = write(tmp_path / "a.zarr", counts(n_genes=9).astype(dtype), dtype=dtype)
    assert store.dtype == np.dtype(dtype)
    assert store.rows(0, 3).dtype == np.dtype(dtype)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_every_compression_gives_back_the_same(tmp_path: Path, compression: str) -> None:
    matrix = np.log1p(counts(n_genes=30))
    store = write(tmp_path / "a.zarr", matrix, compression=compression, scale="log1p")
    np.testing.assert_array_equal(store.rows(0, 920), matrix)
    assert store.library_size is None


def test_a_screen_of_zeros_is_written(tmp_path: Path) -> None:
    store = write(tmp_path / "zero.zarr", np.zeros((920, 5), "f4"))
    assert not store.rows(0, 920).any()
    assert store.library_size == 0


def test_cells_without_counts_have_no_say_in_the_library_size(tmp_path: Path) -> None:
    matrix = counts(n_genes=30)
    matrix[:600] = 0
    store = write(tmp_path / "a.zarr", matrix)
    assert store.library_size == median_library_size(matrix.sum(axis=1)) > 0


def test_a_store_survives_pickling(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again.fingerprint == store.fingerprint
    assert again.ranges == store.ranges


def test_the_fingerprint_ignores_path_blocks_order_and_compression(
    store: Store, tmp_path: Path
) -> None:
    assert write(tmp_path / "b.zarr", counts(), blocks=920).fingerprint == store.fingerprint
    with StoreWriter(str(tmp_path / "c.zarr"), **described(compression="none")) as writer:
        writer.write_shard(0, sparse.csr_matrix(counts()))
        assert writer.finish().fingerprint == store.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"scale": "log1p"}, id="scale"),
        pytest.param({"control_label": "G1"}, id="control"),
        pytest.param(
            {"ranges": ranges_of(np.repeat("K562", 920), np.repeat(["G1", "ctrl"], [200, 720]))},
            id="labels",
        ),
        pytest.param({"card": {"gene_column": "symbol"}}, id="genes"),
    ],
)
def test_the_fingerprint_changes_with(store: Store, tmp_path: Path, change: Any) -> None:
    assert write(tmp_path / "b.zarr", counts(), **change).fingerprint != store.fingerprint


def test_the_fingerprint_changes_with_one_value(store: Store, tmp_path: Path) -> None:
    changed = counts()
    changed[919, 7] += 1
    assert write(tmp_path / "b.zarr", changed).fingerprint != store.fingerprint


@pytest.mark.parametrize(
    ("perturbation", "targets"),
    [
        pytest.param("G1", ("G1",), id="single"),
        pytest.param("G2+G7", ("G2", "G7"), id="combination"),
        pytest.param("G2+drug", ("G2",), id="one_is_no_gene"),
        pytest.param("ctrl", (), id="control"),
    ],
)
def test_targets_are_the_named_genes(store: Store, perturbation: str, targets: Any) -> None:
    assert store.targets(perturbation) == targets


def test_targets_come_from_the_target_column_where_there_is_one(tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", counts(n_genes=9), card={"target_column": "target"})
    assert store.targets("G1") == ("G5",)
    assert store.targets("G2+G7") == ()


def test_genes_come_from_the_gene_column_where_there_is_one(tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", counts(n_genes=9), card={"gene_column": "symbol"})
    assert store.genes[:2] == ("S0", "S1")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        pytest.param(("G2", "K562"), r"'G2' in context 'K562'.*Known: 'G1'", id="gene"),
        pytest.param(("G1", "K652"), r"No such context. Did you mean 'K562'", id="context"),
        pytest.param(("G2+G7", "RPE1"), r"measured in 'K562'", id="elsewhere"),
    ],
)
def test_an_unknown_pair_is_refused_with_what_there_is(
    store: Store, pair: tuple[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        store.cells(*pair)


def test_rows_beyond_the_store_are_a_misuse(store: Store) -> None:
    with pytest.raises(ValueError, match="cells 0:921 asked for, but there are 0:920"):
        store.rows(0, 921)


def test_log1p_stores_have_no_library_sizes(tmp_path: Path) -> None:
    store = write(tmp_path / "a.zarr", counts(n_genes=5), scale="log1p")
    with pytest.raises(DataError, match="kept for counts only"):
        store.library_sizes()


def test_a_path_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no store here"):
        open_store(tmp_path / "none.zarr")


def test_a_zarr_of_somebody_else_is_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(DataError, match=r"without this project's manifest.*harness convert"):
        open_store(tmp_path / "other.zarr")


def test_a_store_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", counts(n_genes=5))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    group.attrs["harness"] = dict(group.attrs["harness"]) | {"format": 99}
    with pytest.raises(DataError, match=r"format 99.*Update the harness"):
        open_store(tmp_path / "a.zarr")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with StoreWriter(str(tmp_path / "a.zarr"), **described()) as writer:
            writer.append(counts()[:600])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_store_with_missing_rows_is_not_published(tmp_path: Path) -> None:
    with StoreWriter(str(tmp_path / "a.zarr"), **described()) as writer:
        writer.append(counts()[:919])
        with pytest.raises(ValueError, match="920 of 920 rows were not written"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_more_rows_than_cells_are_refused(tmp_path: Path) -> None:
    with StoreWriter(str(tmp_path / "a.zarr"), **described(9)) as writer:
        writer.append(counts(n_genes=9))
        with pytest.raises(ValueError, match="More rows than the 920"):
            writer.append(counts(n_genes=9)[:1])


@pytest.mark.parametrize("rows", [919, 921])
def test_a_shard_of_another_length_is_refused(tmp_path: Path, rows: int) -> None:
    writer = StoreWriter(str(tmp_path / "a.zarr"), **described(9))
    with pytest.raises(ValueError, match=r"[Ss]hard 0"):
        writer.write_shard(0, np.zeros((rows, 9), "f4"))


def test_an_existing_store_is_never_overwritten(store: Store) -> None:
    with pytest.raises(DataError, match="exists already"):
        StoreWriter(store.path, **described())


def test_ranges_need_sorted_cells() -> None:
    with pytest.raises(ValueError, match="must follow one another"):
        ranges_of(["a", "a", "a"], ["x", "y", "x"])


def test_ranges_that_leave_a_gap_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without gaps"):
        StoreWriter(str(tmp_path / "a.zarr"), **described(ranges=described()["ranges"][1:]))
    assert list(tmp_path.iterdir()) == []


def test_a_caller_may_reuse_its_array(tmp_path: Path) -> None:
    matrix, block = counts(n_genes=9), np.empty((100, 9), "f4")
    with StoreWriter(str(tmp_path / "a.zarr"), **described(9)) as writer:
        for start in range(0, 920, 100):
            length = min(100, 920 - start)
            block[:length] = matrix[start : start + length]
            writer.append(block[:length])
        store = writer.finish()
    np.testing.assert_array_equal(store.rows(0, 920), matrix)


def test_a_store_is_published_to_and_read_from_an_object_store() -> None:
    matrix = counts(n_genes=9)
    with StoreWriter("memory://bucket/a.zarr", **described(9)) as writer:
        writer.append(matrix)
        store = writer.finish()
    np.testing.assert_array_equal(store.cells("G1", "K562"), matrix[:200])
