"""The files of a store before its first row: remembered, and the same as if they were not."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from harness.data import store_layout
from harness.data.store_layout import Matrix, layout

MATRIX = Matrix((3, 4), np.dtype("f4"), (3, 4), (3, 4), "auto", "log1p")


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Matrix]:
    """Begin without memories, and list what is made rather than remembered."""
    calls: list[Matrix] = []
    make = store_layout._made

    def counted(matrix: Matrix, *frames: Any) -> dict[str, bytes]:
        calls.append(matrix)
        return make(matrix, *frames)

    monkeypatch.setattr(store_layout, "_KNOWN", {})
    monkeypatch.setattr(store_layout, "_made", counted)
    return calls


def frames(*perturbations: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    index = [f"cell{i}" for i in range(len(perturbations))]
    obs = pd.DataFrame({"gene": pd.Categorical(perturbations)}, index=index)
    return obs, pd.DataFrame(index=[f"G{i}" for i in range(4)])


def test_the_same_store_is_made_once(made: list[Matrix]) -> None:
    first = layout(MATRIX, *frames("a", "b", "b"))
    assert layout(MATRIX, *frames("a", "b", "b")) == first
    assert made == [MATRIX]


@pytest.mark.parametrize(
    ("matrix", "labels"),
    [
        pytest.param(MATRIX, ("a", "b", "c"), id="labels"),
        pytest.param(MATRIX._replace(dtype=np.dtype("f8")), ("a", "b", "b"), id="type"),
        pytest.param(MATRIX._replace(compression="none"), ("a", "b", "b"), id="compression"),
    ],
)
def test_another_store_is_not_taken_for_a_known_one(
    made: list[Matrix], matrix: Matrix, labels: tuple[str, ...]
) -> None:
    first = layout(MATRIX, *frames("a", "b", "b"))
    assert layout(matrix, *frames(*labels)) != first
    assert len(made) == 2


def test_the_files_are_what_anndata_reads(tmp_path: Any) -> None:
    for _ in range(2):  # made, then remembered
        for name, content in layout(MATRIX, *frames("a", "b", "b")).items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        found = anndata.read_zarr(tmp_path)
        pd.testing.assert_frame_equal(found.obs, frames("a", "b", "b")[0])
        assert found.var_names.tolist() == ["G0", "G1", "G2", "G3"]
        assert found.shape == (3, 4)


def test_little_is_remembered(made: list[Matrix], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_layout, "REMEMBERED", 2)
    for label in ("a", "b", "c", "a"):
        layout(MATRIX, *frames(label, label, label))
    assert len(store_layout._KNOWN) == 2
    assert len(made) == 4
    monkeypatch.setattr(store_layout, "LARGEST", 2)
    layout(MATRIX, *frames("d", "d", "d"))
    assert len(store_layout._KNOWN) == 2
