"""Screens of a few hundred cells with known effects, in memory, for tests that need true answers.

Deliberately not `harness.simulate`: a few lines of NumPy, so that a fault there does not hide in
every test. Base means are the same for all genes of a kind, and effects are the same factors for
each perturbation, so that a reader can work out an expected value by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from harness.data.store import PairRange, ranges_of
from harness.data.store_writer import StoreWriter

if TYPE_CHECKING:
    from pathlib import Path

    from harness.data.store import Store

CONTROL = "non-targeting"


@dataclass(frozen=True)
class Screen:
    """A screen in memory: cells sorted by (context, perturbation), genes ``G0, G1, …``.

    Attributes
    ----------
    counts
        (n_cells, n_genes) float32, whole numbers.
    obs
        target_gene, context, batch, by cell.
    effects
        True natural-log fold change of each mean, (n_genes,), by (perturbation, context).
    """

    counts: np.ndarray
    obs: pd.DataFrame
    var: pd.DataFrame
    effects: dict[tuple[str, str], np.ndarray]

    @property
    def genes(self) -> tuple[str, ...]:
        return tuple(self.var.index)

    @property
    def ranges(self) -> tuple[PairRange, ...]:
        return ranges_of(self.obs["context"], self.obs["target_gene"])

    def log1p(self) -> np.ndarray:
        """Return log1p of counts scaled to the median total, (n_cells, n_genes) float32."""
        totals = self.counts.sum(axis=1, dtype="f8", keepdims=True)
        scaled = self.counts * (np.median(totals) / np.maximum(totals, 1))
        return np.log1p(scaled).astype("f4")

    def card(self, scale: Literal["counts", "log1p"] = "counts") -> dict[str, Any]:
        """Return a card that fits, with a split of each kind that needs no combinations."""
        return {
            "name": "synthetic",
            "version": 1,
            "title": "A screen for tests",
            "organism": "none",
            "source": {
                "file": "synthetic.zarr",
                "page": "https://example.org",
                "license": "MIT",
                "cite": "none",
            },
            "columns": {"perturbation": "target_gene", "context": "context", "batch": "batch"},
            "control_label": CONTROL,
            "combination_separator": "+",
            "expression": {"layer": "X", "scale": scale},
            "splits": {
                "unseen-perturbation": {"kind": "unseen-perturbation", "folds": 2},
                "few-shot-context": {"kind": "few-shot-context"},
                "zero-shot-context": {"kind": "zero-shot-context"},
            },
        }


def make_screen(
    *,
    n_genes: int = 30,
    n_perturbations: int = 6,
    contexts: tuple[str, ...] = ("c0", "c1"),
    n_cells: int = 20,
    n_controls: int = 40,
    n_combinations: int = 0,
    n_null: int = 1,
    seed: int = 0,
) -> Screen:
    """Draw a screen; perturbation i silences gene ``Gi``.

    Each context has base means of its own. A perturbation lowers its target to a fifth and changes
    three other genes by e or 1/e in every context alike; the last `n_null` of them change nothing
    but the target. A combination joins neighbours, ``G0+G1``, and its effects add.
    """
    rng = np.random.default_rng(seed)
    genes = [f"G{i}" for i in range(n_genes)]
    effects = _effects(rng, genes, n_perturbations, n_null)
    for first, second in list(pairwise(genes))[:n_combinations]:
        effects[f"{first}+{second}"] = effects[first] + effects[second]
    counts, labels = [], []
    for context in sorted(contexts):
        base = rng.gamma(4.0, 2.0, n_genes) + 1.0
        for name in sorted([*effects, CONTROL]):
            n = n_controls if name == CONTROL else n_cells
            means = base * np.exp(effects.get(name, 0.0)) * rng.lognormal(0, 0.2, (n, 1))
            counts.append(rng.poisson(means * rng.gamma(5.0, 0.2, (n, n_genes))))
            labels += [(name, context, f"batch{i % 2}") for i in range(n)]
    obs = pd.DataFrame(labels, columns=["target_gene", "context", "batch"]).astype("category")
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))], dtype=object)
    return Screen(
        np.concatenate(counts).astype("f4"),
        obs,
        pd.DataFrame(index=pd.Index(genes, dtype=object)),
        {(name, c): effect for name, effect in effects.items() for c in sorted(contexts)},
    )


def write_store(
    screen: Screen, path: Path, scale: Literal["counts", "log1p"] = "counts", **card: Any
) -> Store:
    """Write a screen as a store; keywords change its card."""
    with StoreWriter(
        str(path),
        obs=screen.obs,
        var=screen.var,
        ranges=screen.ranges,
        dtype="float32",
        card={**screen.card(scale), **card},
        scale=scale,
        control_label=CONTROL,
    ) as writer:
        writer.append(screen.counts if scale == "counts" else screen.log1p())
        return writer.finish()


def _effects(
    rng: np.random.Generator, genes: list[str], n: int, n_null: int
) -> dict[str, np.ndarray]:
    effects = {}
    for i, name in enumerate(genes[:n]):
        effect = np.zeros(len(genes))
        if i < n - n_null:
            others = rng.choice(np.arange(n, len(genes)), size=3, replace=False)
            effect[others] = rng.choice([-1.0, 1.0], size=3)
        effect[i] = np.log(0.2)
        effects[name] = effect
    return effects
