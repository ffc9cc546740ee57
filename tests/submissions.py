"""Submissions of forty genes, and how they are written, read back and refused."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from harness.challenge.submission import Rules, prepare
from harness.data.vcc_archive import unpacked
from harness.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


N_GENES = 40
GENES = tuple(f"G{i}" for i in range(N_GENES))
RULES = Rules(GENES, ("A", "B"))
LABELS = ["non-targeting"] * 20 + ["A"] * 12 + ["B"] * 8


def screen(seed: int = 0) -> ad.AnnData:
    """Forty cells of counts, every one with at least ten genes expressed."""
    counts = np.random.default_rng(seed).poisson(2, (len(LABELS), N_GENES)).astype("f4")
    obs = pd.DataFrame({"target_gene": LABELS, "donor": 1}, index=[f"c{i}" for i in range(40)])
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=list(GENES)))


def log1p_of(data: ad.AnnData) -> ad.AnnData:
    """Normalise as scanpy does: to the median total, in float32, then log(1 + x)."""
    counts = data.X.toarray()
    totals = counts.sum(axis=1)
    factors = (totals / np.median(totals)).astype("f4")
    changed = data.copy()
    changed.X = sparse.csr_matrix(np.log1p(counts / factors[:, None]))
    return changed


def saved(data: ad.AnnData, path: Path) -> str:
    if path.suffix == ".zarr":
        chosen = ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False)
        with warnings.catch_warnings(action="ignore"), chosen:  # AnnData's own, of formats to come
            data.write_zarr(path)
    else:
        data.write_h5ad(path)
    return str(path)


def read_back(path: str) -> ad.AnnData:
    with unpacked(path) as file:
        return ad.read_h5ad(file)


def refused(data: ad.AnnData, tmp_path: Path, rules: Rules = RULES, **options: object) -> str:
    """Return what the preparation of a prediction is refused with, having left nothing."""
    source = saved(data, tmp_path / "p.h5ad")
    with pytest.raises(DataError) as caught:
        prepare(source, str(tmp_path / "p.vcc"), rules, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5ad"]
    assert source in str(caught.value)
    return str(caught.value)
