"""The presets, and a simulated screen before any cell is drawn.

A `Screen` holds what is true (expression, effects, library sizes) and draws any of its cells at any
time. That costs a few seconds and 100 MB for the largest preset, so all of it is made at once; the
counts, 24 GB, are drawn shard by shard by whoever asks.

Counts are not renormalised after an effect: log2 fold changes are those of mean counts at equal
library factor, exactly. The totals of the most strongly perturbed cells differ by some per cent
from the controls', so that scaling to equal totals shifts many genes a little, as in real data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import pandas as pd

from harness.data.simulation.counts import cell_seeds, fill_counts
from harness.data.simulation.effects import (
    EXPRESSED,
    Genome,
    Preset,
    choose_targets,
    draw_effects,
    draw_genome,
    draw_shares,
    generator,
)
from harness.data.store import PairRange
from harness.errors import UnknownNameError

if TYPE_CHECKING:
    from harness.data.simulation.effects import Array, Effects

CONTROL = "non-targeting"
LIBRARY_SD = 0.35
"""Chosen; THP-1 cells of Papalexi et al. 2021 have 0.53, over three replicates."""


class Changes(TypedDict, total=False):
    """What a caller, or the options in ``sim:small?contexts=3``, may change of a preset."""

    contexts: int
    shared: float
    combinations: int
    perturbations: int
    cells: int
    controls: int
    genes: int
    depth: int


_PRESETS = {
    "tiny": Preset(
        title="Simulated: 24 perturbations in two contexts, 200 genes; seconds",
        genes=200,
        perturbations=24,
        cells=40,
        controls=200,
        depth=1_000,
        contexts=2,
        batches=2,
        programs=3,
        affected=0.08,
        effect=1.0,
        spread=0.1,
    ),
    "small": Preset(
        title="Simulated: 60 perturbations in three contexts, 2,000 genes",
        genes=2_000,
        perturbations=60,
        cells=150,
        controls=1_500,
        depth=8_000,
        contexts=3,
        batches=3,
        programs=6,
        affected=0.05,
        effect=0.7,
        spread=0.4,
    ),
    "h1": Preset(
        title="Simulated in the shape of the Virtual Cell Challenge 2025 (H1): 338,000 cells",
        genes=18_080,
        perturbations=300,
        cells=1_000,
        controls=38_000,
        depth=54_000,
        contexts=1,
        batches=4,
        programs=16,
        affected=0.0082,
        effect=0.4,
        spread=0.65,
    ),
}


def presets() -> dict[str, Preset]:
    """Return the presets by name."""
    return dict(_PRESETS)


def preset_with(preset: str, **changes: Unpack[Changes]) -> Preset:
    """Return a preset, some of it changed; depth follows the number of genes unless it is given.

    Raises
    ------
    UnknownNameError
        No such preset.
    ValueError
        A number that no screen can have.
    """
    if preset not in _PRESETS:
        raise UnknownNameError("simulation preset", preset, tuple(_PRESETS))
    chosen = _PRESETS[preset]
    if "genes" in changes and "depth" not in changes:
        changes["depth"] = max(1, round(chosen.depth * changes["genes"] / chosen.genes))
    chosen = replace(chosen, **changes)
    for field in fields(chosen):
        value = getattr(chosen, field.name)
        least = {"shared": 0.0, "combinations": 0, "genes": 20}.get(field.name, 1)
        if field.type == "int" and value < least:
            raise ValueError(f"{field.name} is {value!r}, expected {least} or more.")
    if not 0 <= chosen.shared <= 1:
        raise ValueError(f"shared is {chosen.shared!r}, expected a number from 0 to 1.")
    possible = chosen.perturbations * (chosen.perturbations - 1) // 2
    if chosen.combinations > possible:
        raise ValueError(
            f"{chosen.combinations} combinations asked for, but {chosen.perturbations} "
            f"perturbations can be combined in {possible} ways. Ask for fewer."
        )
    return chosen


# --- the screen, before any cell is drawn -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Screen:
    """All that is true of a simulated screen; cells are drawn from it at any place, any time.

    Attributes
    ----------
    shares
        Expected share of a control cell's counts, by context: (n_batches, n_genes).
    library, batch
        Expected total count of each cell as a control, and the row of `shares`: (n_cells,).
    """

    preset: Preset
    seed: int
    genome: Genome
    batches: tuple[str, ...]
    shares: dict[str, Array]
    effects: Effects
    ranges: tuple[PairRange, ...]
    library_sizes: Array
    batch: Array

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.ranges[-1].stop

    def means(self, found: PairRange) -> Array:
        """Return expected counts over library of the cells of a pair, (n_batches, n_genes)."""
        effect = self.effects.get((found.perturbation, found.context))
        shares = self.shares[found.context]
        return shares if effect is None else shares * np.exp2(effect.astype("f8"))

    def rows(self, start: int, stop: int) -> Array:
        """Draw cells ``start:stop``, (stop - start, n_genes) float32; the same in any block."""
        counts = np.empty((stop - start, self.preset.genes), dtype="f4")
        for found in self.ranges:
            first, last = max(found.start, start), min(found.stop, stop)
            if first < last:
                fill_counts(
                    counts[first - start : last - start],
                    cell_seeds(first, last - first, self.seed),
                    self.library_sizes[first:last],
                    self.batch[first:last],
                    self.means(found),
                    self.genome.dispersion,
                )
        return counts

    def obs(self) -> pd.DataFrame:
        """Return the annotation of cells: target_gene, context and batch."""
        lengths = [found.stop - found.start for found in self.ranges]
        contexts = np.repeat([found.context for found in self.ranges], lengths)
        batches = np.char.add(np.char.add(contexts, "-"), np.array(self.batches)[self.batch])
        perturbations = np.repeat([found.perturbation for found in self.ranges], lengths)
        columns = {"target_gene": perturbations, "context": contexts, "batch": batches}
        index = pd.Index([f"cell{i:07d}" for i in range(self.n_cells)], dtype=object)
        frame = {name: pd.Categorical(labels.astype(object)) for name, labels in columns.items()}
        return pd.DataFrame(frame, index=index)

    def effects_frame(self) -> pd.DataFrame:
        """Return the known effects: context, perturbation, gene, log2_fold_change; no zeros."""
        parts = []
        for (perturbation, context), effect in self.effects.items():
            changed = np.flatnonzero(effect)
            genes = np.array(self.genome.names, dtype=object)[changed]
            part = {"context": context, "perturbation": perturbation, "gene": genes}
            parts.append(pd.DataFrame({**part, "log2_fold_change": effect[changed]}))
        frame = pd.concat(parts, ignore_index=True)
        labels = ["context", "perturbation", "gene"]
        return frame.sort_values(labels, ignore_index=True)


def draw_screen(preset: Preset, seed: int = 0) -> Screen:
    """Draw everything but the counts."""
    genome = draw_genome(preset.genes, preset.programs, seed)
    singles, combined = draw_perturbations(preset, genome, seed)
    contexts = [f"line{i + 1}" for i in range(preset.contexts)]
    batches = tuple(f"batch{i + 1}" for i in range(preset.batches))
    shares = {context: draw_shares(genome, context, batches, seed) for context in contexts}
    expressed = {c: s.mean(axis=0) >= EXPRESSED / preset.genes for c, s in shares.items()}
    effects = draw_effects(genome, [*((t,) for t in singles), *combined], expressed, preset, seed)
    labels = sorted([CONTROL, *singles, *("+".join(pair) for pair in combined)])
    numbers = _numbers_of_cells(preset, [label for label in labels if label != CONTROL], seed)
    ranges: list[PairRange] = []
    library, batch = [], []
    for context in sorted(contexts):
        for label in labels:
            start, n = ranges[-1].stop if ranges else 0, numbers[label]
            ranges.append(PairRange(context, label, start, start + n))
            rng = generator(seed, "cells", context, label)
            library.append(preset.depth * np.exp(rng.normal(0.0, LIBRARY_SD, n)))
            batch.append(rng.integers(preset.batches, size=n))
    return Screen(
        preset,
        seed,
        genome,
        batches,
        shares,
        effects,
        tuple(ranges),
        np.concatenate(library),
        np.concatenate(batch),
    )


def draw_perturbations(
    preset: Preset, genome: Genome, seed: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Choose the targets, sorted, and which of them are silenced together."""
    singles = sorted(choose_targets(genome, preset.perturbations, seed))
    possible = list(combinations(singles, 2))
    chosen = generator(seed, "combinations").permutation(len(possible))[: preset.combinations]
    return singles, sorted(possible[i] for i in chosen)


def _numbers_of_cells(preset: Preset, labels: list[str], seed: int) -> dict[str, int]:
    """Draw the cells of each pair, between a sixth and three times their mean, as in the H1 screen.

    There (50 validation targets) the log-sd is 0.67, least 161 and most 2,925 of a mean of 1,215.
    """
    rng = generator(seed, "numbers")
    drawn = np.exp(preset.spread * rng.standard_normal(len(labels)))
    relative = np.clip(drawn / drawn.mean(), 1 / 6, 3)
    numbers = np.maximum(1, np.round(preset.cells * relative / relative.mean())).astype(int)
    return {**dict(zip(labels, map(int, numbers), strict=True)), CONTROL: preset.controls}
