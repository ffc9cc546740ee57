"""The truth's part of scores on disk: kept, found, refused, made again."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from harness.errors import DataError
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare, score
from harness.scoring.truth import VERSIONS, PreparedTruth
from harness.scoring.truth_cache import DamagedError, TruthCache, read_values, write_values
from harness.storage.hashing import digest, remembered_digest
from tests.golden import cases, compare

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = {
    "means": np.linspace(0, 1, 12).reshape(3, 4),
    "empty": np.zeros((0, 5)),
    "sizes": np.array([3, 1, 2]),
    "genes": ("G1", "é"),
    "single": True,
    "missing": None,
    "frame": pd.DataFrame({"context": ["a", "b"], "value": [0.1, np.nan]}),
}


def never() -> Any:
    pytest.fail("made again although it was kept")


def test_what_is_kept_comes_back_equal(tmp_path: Path) -> None:
    store = TruthCache(str(tmp_path / "reference"))
    store.part("key", "part", 1, lambda: VALUES)
    found = store.part("key", "part", 1, never)
    assert list(found) == list(VALUES)
    for name in ("means", "empty", "sizes"):
        assert found[name].dtype == VALUES[name].dtype
        np.testing.assert_array_equal(found[name], VALUES[name])
    assert {n: found[n] for n in ("genes", "single", "missing")} == {
        n: VALUES[n] for n in ("genes", "single", "missing")
    }
    pd.testing.assert_frame_equal(found["frame"], VALUES["frame"])


def test_writing_to_what_was_read_does_not_reach_the_file(tmp_path: Path) -> None:
    store = TruthCache(str(tmp_path))
    store.part("key", "part", 1, lambda: VALUES)
    store.part("key", "part", 1, never)["means"][:] = -1
    np.testing.assert_array_equal(store.part("key", "part", 1, never)["means"], VALUES["means"])


def test_another_version_key_or_name_is_another_part(tmp_path: Path) -> None:
    store = TruthCache(str(tmp_path))
    store.part("key", "part", 1, lambda: {"x": 1})
    assert store.part("key", "part", 2, lambda: {"x": 2}) == {"x": 2}
    assert store.part("other", "part", 1, lambda: {"x": 3}) == {"x": 3}
    assert store.part("key", "other", 1, lambda: {"x": 4}) == {"x": 4}
    assert store.part("key", "part", 1, never) == {"x": 1}


@pytest.mark.parametrize("file", ["manifest.json", "0.npy", "6.parquet"])
@pytest.mark.parametrize("size", [0, 5, 40, -1])
def test_a_part_that_was_cut_short_is_made_again_and_says_so(
    tmp_path: Path, file: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = TruthCache(str(tmp_path))
    store.part("key", "part", 1, lambda: VALUES)
    path = Path(store.path("key", "part", 1), file)
    path.write_bytes(path.read_bytes()[:size])
    store.part("key", "part", 1, lambda: VALUES)
    assert len(caplog.messages) == 1
    assert "this reference is damaged" in caplog.text
    store.part("key", "part", 1, never)


def test_any_changed_byte_of_a_value_is_noticed(tmp_path: Path) -> None:
    part = tmp_path / "part"
    write_values({"x": np.arange(16.0), "n": 5}, str(part))
    for name in ("0.npy", "manifest.json"):
        content = (part / name).read_bytes()
        for at in (2, len(content) // 2, len(content) - 20, len(content) - 1):
            changed = bytearray(content)
            changed[at] ^= 1
            (part / name).write_bytes(changed)
            with pytest.raises(DamagedError):
                read_values(str(part))
        (part / name).write_bytes(content)
    (part / "0.npy").unlink()
    with pytest.raises(DamagedError, match=r"0\.npy"):
        read_values(str(part))


def test_a_folder_that_cannot_be_written_costs_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file")
    store = TruthCache(str(tmp_path / "taken"))
    assert store.part("key", "part", 1, lambda: {"x": 1}) == {"x": 1}
    assert "cannot be kept" in caplog.text


def keep(folder: str) -> float:
    values = TruthCache(folder).part("key", "part", 1, lambda: {"x": np.arange(2e5)})
    return float(values["x"].sum())


def test_processes_may_share_a_folder(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = set(pool.map(keep, [str(tmp_path)] * 12))
    assert found == {np.arange(2e5).sum()}
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["part-2.1"]


# --- truths -------------------------------------------------------------------------------------


def written(path: Path, side: str = "truth", **changes: Any) -> str:
    compare.annotated(replace(getattr(cases.SIMULATED["plain"](), side), **changes)).write(path)
    return str(path)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    return written(tmp_path / "truth.h5ad")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        monkeypatch.setattr(PreparedTruth, "cells", property(lambda self: never()))

    return forbid


@pytest.mark.parametrize("suite", ["vcc2025", "cell-eval"])
def test_scores_by_a_kept_reference_are_equal_and_the_truth_is_not_read(
    tmp_path: Path, truth: str, unread: Callable[[], None], suite: str
) -> None:
    prediction = written(tmp_path / "p.h5ad", "prediction")
    expected = score(truth, prediction, suite=suite).frame
    reference = str(tmp_path / "reference")
    prepare(truth, suite=suite, reference=reference)
    unread()
    found = score(prepare(truth, suite=suite, reference=reference), prediction, suite=suite).frame
    pd.testing.assert_frame_equal(found, expected)


def test_a_truth_is_found_by_content_not_by_name(
    tmp_path: Path, truth: str, unread: Callable[[], None]
) -> None:
    reference = str(tmp_path / "reference")
    prepare(truth, reference=reference)
    moved = Path(truth).rename(tmp_path / "moved.h5ad")
    unread()
    prepare(moved, ScoringOptions(threads=1, memory="16KiB"), reference=reference)


def test_other_content_or_another_way_to_read_it_is_another_truth(
    tmp_path: Path, truth: str
) -> None:
    reference = str(tmp_path / "reference")
    first = prepare(truth, reference=reference).statistics
    side = cases.SIMULATED["plain"]().truth
    written(Path(truth), X=side.X * 0.5)
    assert not np.array_equal(prepare(truth, reference=reference).statistics.means, first.means)
    with pytest.raises(DataError, match="counts were declared, but values have"):
        prepare(truth, ScoringOptions(scale="counts"), reference=reference)
    with pytest.raises(DataError, match="there are no control cells"):
        prepare(truth, ScoringOptions(control="G1-"), reference=reference)


def test_matrices_in_memory_are_not_kept(tmp_path: Path) -> None:
    truth = compare.annotated(cases.SIMULATED["plain"]().truth)
    prepare(truth, reference=str(tmp_path / "reference"))
    assert not (tmp_path / "reference").exists()


def test_a_digest_is_remembered_until_the_file_may_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "file", str(tmp_path / "reference")
    file.write_bytes(b"one")
    monkeypatch.setattr("harness.storage.hashing.RACY_SECONDS", -1.0)
    first = remembered_digest(file, 1, folder)
    monkeypatch.setattr("harness.storage.hashing.digest", lambda path, threads: "hashed")
    assert remembered_digest(file, 1, folder) == first
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    assert remembered_digest(file, 1, folder) == "hashed"


def test_a_digest_is_of_names_and_bytes_whatever_the_threads(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / "x").write_bytes(bytes(1000))
    found = digest(folder)
    assert digest(folder, 4) == found
    (folder / "x").rename(folder / "y")
    assert digest(folder) != found


SUMS = (317.8852724220119, 897535.0, 133607022.0, 9.01122675884184)
"""Of means, U, ties and energy distances under the versions that `harness.scoring.truth` states."""


def test_statistics_that_change_have_another_version() -> None:
    case = cases.SIMULATED["plain"]()
    found = prepare(compare.annotated(case.truth), suite="cell-eval")
    statistics = found.statistics
    energy = next(iter(found.sides.values())).energy
    assert energy is not None
    sums = [statistics.means.sum(), np.nansum(statistics.u), statistics.ties.sum(), energy.sum()]
    message = f"{VERSIONS}: raise the version of what changed, then write down its sums here"
    np.testing.assert_allclose(sums, SUMS, rtol=1e-6, err_msg=message)
