"""What the held-out truth of a run says of each pair: its cells, its effect, its target.

Read from the run's folder ``reference``, where scoring keeps what it computes of a truth, so that
no screen has to be opened. Halves of a truth, as a ceiling is scored against, are in it too: the
larger part of a pair counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.scoring import DamagedError, read_values
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.analysis.tables.score_array import Block
    from harness.scoring import Values

FACTS = {
    "n_cells": "cells",
    "effect": "effect size",
    "target_expression": "expression of the target",
}
"""The columns of `facts_of`, and what they are called."""

EXPLAINED = (
    "cells: of the pair in the held-out truth. effect size: Euclidean length of the true effect "
    "(pair less control, means of log1p values); it has the noise of few cells in it. expression "
    "of the target: mean log1p value of the target gene in the control cells; undefined where no "
    "gene of the screen has the perturbation's name."
)


def facts_of(block: Block, runs: Sequence[str]) -> pd.DataFrame:
    """Return the facts of a block's pairs, in their order; NaN where no run's reference has them.

    Columns as `FACTS`.
    """
    pairs = [*zip(block.pairs["context"], block.pairs["perturbation"], strict=True)]
    known: dict[tuple[str, str], tuple[float, float, float]] = {}
    for values in truths_of(runs):
        named = zip(values["contexts"], values["perturbations"], strict=True)
        held = {pair for pair in named if pair[1] != values["control_label"]}
        if held and held <= set(pairs):  # a truth of these pairs, as far as names tell
            for pair, found in _facts(values):
                if found[0] > known.get(pair, (0.0,))[0]:
                    known[pair] = found
    rows = [known.get(pair, (np.nan,) * len(FACTS)) for pair in pairs]
    return pd.DataFrame(rows, columns=[*FACTS], dtype=np.float64)


def truths_of(runs: Sequence[str]) -> Iterator[Values]:
    """Yield the statistics of every truth that the runs have kept."""
    for run in runs:
        folder = paths.join(run, "reference")
        for key in paths.list_names(folder):
            for name in paths.list_names(paths.join(folder, key)):
                if name.startswith("statistics-"):
                    try:
                        yield read_values(paths.join(folder, key, name))
                    except (DamagedError, OSError):
                        continue  # scoring makes it again; without it a fact is unknown


def _facts(values: Values) -> Iterator[tuple[tuple[str, str], tuple[float, float, float]]]:
    place = {gene: at for at, gene in enumerate(values["genes"])}
    means, reference = values["means"], values["reference"]
    for row, name in enumerate(values["perturbations"]):
        if name == values["control_label"]:
            continue
        control = means[reference[row]]
        targets = [place[gene] for gene in name.split("+") if gene in place]
        yield (
            (values["contexts"][row], name),
            (
                float(values["sizes"][row]),
                float(np.linalg.norm(means[row] - control)),
                float(control[targets].mean()) if targets else np.nan,
            ),
        )
