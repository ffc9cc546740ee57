"""Scores of every single pair, averaged over seeds and folds: what a table's means are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.tables.reduction import BLOCK, blocks
from harness.tables.scope import scales_of, suite_names

if TYPE_CHECKING:
    from harness.results import Results
    from harness.tables.reduction import Block


def per_pair(results: Results) -> pd.DataFrame:
    """Return one row per suite, dataset, split, model, setting and pair; a column for each metric.

    A pair that no trial of a setting scored has no row; one whose score is undefined has NaN.
    """
    frames: list[pd.DataFrame] = []
    for suite in suite_names(results):
        names = [scale.name for scale in scales_of(results, suite)]
        frames.extend(_rows(block, suite, names) for block in blocks(results, suite, names))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _rows(block: Block, suite: str, metrics: list[str]) -> pd.DataFrame:
    setting, pair = np.nonzero(block.scored)
    columns: dict[str, object] = {"suite": suite}
    columns |= dict(zip((n for n in BLOCK if n in block.trials), block.key, strict=True))
    for name in ("model", "label"):
        texts = np.array([getattr(one, name) for one in block.settings], dtype=object)
        columns["setting" if name == "label" else name] = texts[setting]
    for name in ("context", "perturbation"):
        columns[name] = block.pairs[name].to_numpy()[pair]
    values = block.values[setting, pair]
    columns |= {name: values[:, place] for place, name in enumerate(metrics)}
    return pd.DataFrame(columns)
