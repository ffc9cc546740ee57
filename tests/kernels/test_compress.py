"""Dense files read sparse: every value as it was, and no more memory than was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.data.predictions import open_predictions
from harness.kernels.columns import compressed
from harness.kernels.threads import Limits

if TYPE_CHECKING:
    from pathlib import Path


@settings(deadline=None)  # the first example compiles
@given(
    hnp.arrays("f4", (7, 5), elements=st.sampled_from([0.0, -0.0, 1.5, np.nan, -1.0, np.inf])),
    st.integers(1, 7),
)
def test_every_value_that_is_not_zero_is_kept(x: np.ndarray, step: int) -> None:
    found = compressed((x[at : at + step] for at in range(0, 7, step)), x.shape, x.dtype, 100)
    assert found is not None
    assert found.has_canonical_format
    np.testing.assert_array_equal(found.toarray(), x)
    assert found.nnz == np.count_nonzero(x)


def test_too_many_entries_are_given_up() -> None:
    x = np.ones((4, 3), np.float32)
    assert compressed(iter([x[:2], x[2:]]), x.shape, x.dtype, 11) is None
    assert compressed(iter([x[:2], x[2:]]), x.shape, x.dtype, 12) is not None


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u2"])
@pytest.mark.parametrize("memory", [1 << 30, 2000], ids=["in-memory", "on-disk"])
@pytest.mark.parametrize("order", ["even", "zeros-first"])
def test_a_dense_file_reads_the_same_in_memory_and_on_disk(
    tmp_path: Path, dtype: str, memory: int, order: str
) -> None:
    x = np.random.default_rng(0).poisson(1.0, (60, 20)).astype(dtype)
    if order == "zeros-first":  # so that the first block promises fewer entries than there are
        x[:30] = 0
    obs = pd.DataFrame({"g": ["a", "c"] * 30}, index=[str(i) for i in range(60)])
    anndata.AnnData(x, obs=obs).write(tmp_path / "x.h5ad")
    found = open_predictions(
        str(tmp_path / "x.h5ad"),
        perturbation_column="g",
        context_column=None,
        control_label="c",
        limits=Limits(memory=memory),
    )
    block = found.gene_block(0, 20)
    dense = block.toarray() if hasattr(block, "toarray") else block
    np.testing.assert_array_equal(dense, x.astype(dense.dtype))
