"""What is true of a simulated screen: base expression, targets, and the effect of each pair.

Effects have low rank below their sparsity. Every gene has loadings on a few programmes; a
perturbation moves the programmes that a fixed random map, the wiring, gives for the loadings of its
target. So what a gene does when it is silenced can be learnt from how it behaves when others are:
a model that learns it should beat the mean, and one that does not should not. On top come a
response that all perturbations of a context have in common (what makes the perturbation mean so
strong a baseline), and a part that nothing predicts. Of the resulting scores only the largest are
kept, less a threshold, so that effects are sparse, with many small and few large.

Numbers fitted by hand to public screens:

- Genes called per knockdown in K562 (Replogle et al. 2022, 9,867 perturbations): none in 27 %, at
  most two in 55 %; among those with more than five, log-normal with median 68 and log-sd 1.65; at
  most 3,716, 45 % of 8,248 genes. Here 27 % are null; the others follow that log-normal, its median
  scaled to the screen. A screen whose targets were chosen for their effects, as most are, has fewer
  nulls than a genome-wide one. The numbers are of genes truly affected: at the depth of h1 a
  rank test finds nine in ten of them. The presets tiny and small affect a larger share of their
  genes, which stand for the responsive ones.
- Share of a cell's RNA per gene: log-normal with log-sd 1.3 in common and 0.5 of each context; a
  quarter of the genes, hardly expressed, lie another 5 lower. With 54,000 UMI this gives the 48 %
  of non-zero entries of the H1 screen of 2025.
- Dispersion per gene: log-normal, median 0.3 and log-sd 0.6, as among the controls of Papalexi et
  al. 2021 (THP-1; quartiles 0.17 to 0.5 for genes above one count per cell).
- CRISPRi leaves 10 to 30 % of a target's expression.

Chosen, not fitted: sizes of effects, the shares of variance, and the spread of baselines.

What it gave up: cells that escape their guide, cell cycle and other structure within a pair, and
perturbations whose strength (as opposed to content) differs between contexts.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Effects: TypeAlias = dict[tuple[str, str], Array]
"""log2 fold change of every gene, (n_genes,) float32, by (perturbation, context)."""

EXPRESSION_SD, SILENT_SHARE, SILENT_DROP = 1.3, 0.25, 5.0
CONTEXT_SD, BATCH_SD = 0.5, 0.08
DISPERSION_MEDIAN, DISPERSION_SD = 0.3, 0.6
EXPRESSED = 0.03
"""Genes with at least this share of the mean expression can be affected."""
TARGETED = 0.3
"""… and those with at least this share can be targets: nobody silences what is not there."""
RESIDUAL = (0.1, 0.3)
NULL_SHARE = 0.27
AFFECTED_LOG_SD, AFFECTED_MOST = 1.65, 0.45
COMMON, PREDICTABLE, UNPREDICTABLE = 0.3, 0.6, 0.1
"""Shares of the variance of programme activity; see the module's docstring."""
PRIVATE = 0.2
"""Standard deviation of what a perturbation does outside of the programmes, relative to them."""
INTERACTION = 0.2
"""Genes with an interaction in a combination, relative to the mean of its singles' genes."""
LARGEST = 4.0

_CONSONANTS = "BCDFGHKLMNPRSTVZ"


@dataclass(frozen=True, slots=True)
class Preset:
    """The make-up of a screen.

    Attributes
    ----------
    cells, spread
        Mean number of cells of a pair, and the log-sd of these numbers.
    controls
        Control cells of each context.
    depth
        Median UMI of a cell.
    shared
        The part of a pair's affected genes whose change is the same in all contexts, 0 to 1; it is
        the correlation of a perturbation's effects between two contexts.
    combinations
        How many pairs of perturbations are also given together, as ``A+B``.
    batches
        Of each context; each has cells of every pair.
    programs
        Rank of the effects before they are made sparse.
    affected, effect
        Median share of genes that a perturbation changes, where it is not null, and their mean
        absolute log2 fold change.
    """

    title: str
    genes: int
    perturbations: int
    cells: int
    controls: int
    depth: int
    contexts: int
    batches: int
    programs: int
    affected: float
    effect: float
    spread: float
    shared: float = 0.5
    combinations: int = 0


def generator(seed: int, *purpose: str) -> np.random.Generator:
    """Return a generator for one purpose, so that drawing more of one thing moves no other."""
    digest = blake2b("/".join(purpose).encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])


def gene_names(n: int) -> list[str]:
    """Return `n` different names that look like gene symbols, such as ``KRT7``; always the same.

    Families of nine share three letters, as paralogues do. Vowels are left out, for they make
    words.
    """
    n_stems = len(_CONSONANTS) ** 3
    names = []
    for i in range(n):
        family, member = divmod(i, 9)
        lap, family = divmod(family, n_stems)
        code = family * 2731 % n_stems  # odd, hence coprime to a power of two: each stem once
        stem = "".join(_CONSONANTS[code >> shift & 15] for shift in (8, 4, 0))
        names.append(f"{stem}{member + 1}" + ("" if lap == 0 else f"L{lap}"))
    return names


@dataclass(frozen=True, slots=True)
class Genome:
    """Properties of genes that all contexts have in common.

    Attributes
    ----------
    names
        (n_genes,)
    log_expression
        Natural logarithm, up to a constant: (n_genes,).
    dispersion
        The variance of counts of mean m is m + dispersion · m²: (n_genes,).
    loadings
        How much each programme moves each gene: (n_genes, n_programmes).
    """

    names: tuple[str, ...]
    log_expression: Array
    dispersion: Array
    loadings: Array


def draw_genome(n_genes: int, n_programs: int, seed: int) -> Genome:
    """Draw the genes of a screen."""
    rng = generator(seed, "genes")
    expression = rng.normal(0.0, EXPRESSION_SD, n_genes)
    expression -= SILENT_DROP * (rng.random(n_genes) < SILENT_SHARE)
    dispersion = DISPERSION_MEDIAN * np.exp(rng.normal(0.0, DISPERSION_SD, n_genes))
    # cubed normals: a few genes carry a programme, most hardly take part
    loadings = rng.standard_normal((n_genes, n_programs)) ** 3 / np.sqrt(15)
    return Genome(tuple(gene_names(n_genes)), expression, dispersion, loadings)


def draw_shares(genome: Genome, context: str, batches: Sequence[str], seed: int) -> Array:
    """Return each gene's expected share of a control cell's counts, (n_batches, n_genes)."""
    rng = generator(seed, "context", context)
    log_shares = genome.log_expression + rng.normal(0.0, CONTEXT_SD, len(genome.names))
    rows = [
        log_shares + generator(seed, "batch", context, batch).normal(0, BATCH_SD, log_shares.size)
        for batch in batches
    ]
    shares = np.exp(np.stack(rows))
    normalised: Array = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def choose_targets(genome: Genome, n: int, seed: int) -> list[str]:
    """Choose `n` expressed genes to silence, those that take much part in programmes more often."""
    weight = np.square(genome.loadings).sum(axis=1)
    expression = np.exp(genome.log_expression)
    allowed = expression >= TARGETED * expression.mean()
    if n > allowed.sum():
        raise ValueError(
            f"{n} perturbations asked for, but only {allowed.sum()} of {len(genome.names)} genes "
            "are expressed well enough to be targets. Ask for fewer, or for more genes."
        )
    # Gumbel keys: a sample without replacement that only grows with n
    keys = 2 * np.log(weight) + generator(seed, "targets").gumbel(size=weight.size)
    keys[~allowed] = -np.inf
    return [genome.names[i] for i in np.argsort(-keys, kind="stable")[:n]]


def draw_numbers(n: int, median: float, most: float, seed: int) -> Array:
    """Draw how many genes each of `n` perturbations affects beside its target, (n,) int.

    Evenly spaced quantiles in random order: a screen of twenty has its share of null and of strong
    perturbations, whatever the seed.
    """
    quantile = (generator(seed, "strength").permutation(n) + 0.5) / n
    among_positive = np.clip((quantile - NULL_SHARE) / (1 - NULL_SHARE), 1e-9, 1)
    numbers = median * np.exp(AFFECTED_LOG_SD * ndtri(among_positive))
    kept: Array = np.where(quantile < NULL_SHARE, 0, np.clip(np.round(numbers), 1, most))
    return kept.astype(int)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the programmes do in response to a perturbation: in all contexts, or in one alone.

    Attributes
    ----------
    loadings
        As a genome's: (n_genes, n_programs).
    response
        Activity that all perturbations have in common: (n_programs,).
    from_loadings
        Maps the loadings of a target to activity: (n_programs, n_programs).
    """

    name: str
    loadings: Array
    response: Array
    from_loadings: Array

    @classmethod
    def draw(cls, name: str, loadings: Array, seed: int) -> Wiring:
        """Draw a wiring; that of one context has programmes of other genes, but the same hubs.

        With the same programmes, the few dimensions of their activity would correlate effects that
        are meant to be independent.
        """
        rng = generator(seed, "wiring", name)
        n_genes, n_programs = loadings.shape
        response = _unit(rng.standard_normal(n_programs))
        from_loadings = rng.standard_normal((n_programs, n_programs))
        if name:
            order = np.argsort(np.square(loadings).sum(axis=1), kind="stable")
            n_hubs = max(1, n_genes // 10)  # the genes from which targets are mostly chosen
            moved = np.concatenate(
                [rng.permutation(order[:-n_hubs]), rng.permutation(order[-n_hubs:])]
            )
            own = np.empty_like(loadings)
            own[order] = loadings[moved]
            loadings = own
        return cls(name, loadings, response, from_loadings)


def draw_effects(
    genome: Genome,
    perturbations: Sequence[tuple[str, ...]],
    expressed: dict[str, Array],
    preset: Preset,
    seed: int,
) -> Effects:
    """Draw the effect of every perturbation in every context.

    Parameters
    ----------
    perturbations
        The targets of each; a combination's effect is the sum of its singles', which must come
        earlier, and an interaction.
    expressed
        Which genes can be affected, (n_genes,) bool, by context.
    preset
        How many genes are affected, how much, and how much of it alike in all contexts.
    """
    position = {gene: i for i, gene in enumerate(genome.names)}
    common = Wiring.draw("", genome.loadings, seed)
    own = {context: Wiring.draw(context, genome.loadings, seed) for context in expressed}
    expression = np.exp(genome.log_expression)
    everywhere = expression >= EXPRESSED * expression.mean()
    numbers = _numbers(perturbations, everywhere, preset, seed)
    effects: Effects = {}
    for targets in perturbations:
        rows = [position[target] for target in targets]
        n_common = round(preset.shared * numbers[targets])
        n_own = numbers[targets] - n_common
        same = _downstream(genome, rows, common, n_common, everywhere, seed)
        # the mean size of a perturbation's changes: larger where more genes change
        relative = max(numbers[targets], 1) / (preset.affected * preset.genes)
        noise = generator(seed, "strength", *targets).normal(0.0, 0.2)
        strength = float(preset.effect * np.clip(relative**0.1, 0.6, 1.6) * np.exp(noise))
        for context, can_change in expressed.items():
            different = _downstream(genome, rows, own[context], n_own, can_change, seed)
            singles = sum((effects[target, context] for target in targets[:-1]), 0.0)
            last = effects[targets[-1], context] if len(targets) > 1 else 0.0
            effect = singles + last + strength * (same + different)
            effect = np.clip(effect, -LARGEST, LARGEST).astype("f4")
            # what CRISPRi leaves of a target is the guides' property, in any context
            left = [generator(seed, "knockdown", target).uniform(*RESIDUAL) for target in targets]
            effect[rows] = np.log2(left)
            effects["+".join(targets), context] = effect
    return effects


def _numbers(
    perturbations: Sequence[tuple[str, ...]], expressed: Array, preset: Preset, seed: int
) -> dict[tuple[str, ...], int]:
    """Draw the number of genes that each perturbation affects; a combination, by interaction."""
    singles = [targets for targets in perturbations if len(targets) == 1]
    median, most = preset.affected * preset.genes, AFFECTED_MOST * expressed.sum()
    drawn = draw_numbers(len(singles), median, most, seed)
    numbers: dict[tuple[str, ...], int] = dict(zip(singles, map(int, drawn), strict=True))
    for targets in perturbations:
        if len(targets) > 1:
            mean = np.mean([numbers[(target,)] for target in targets])
            numbers[targets] = round(INTERACTION * float(mean))
    return numbers


def _downstream(
    genome: Genome, rows: list[int], wiring: Wiring, n: int, can_change: Array, seed: int
) -> Array:
    """Return changes of mean size one in `n` genes and none in the others, (n_genes,)."""
    effect = np.zeros(len(genome.names))
    if n == 0:
        return effect
    name = "+".join(genome.names[row] for row in rows)
    rng = generator(seed, "effect", wiring.name, name)
    activity = (
        np.sqrt(COMMON) * wiring.response
        + np.sqrt(PREDICTABLE) * _unit(wiring.from_loadings @ genome.loadings[rows].sum(axis=0))
        + np.sqrt(UNPREDICTABLE) * _unit(rng.standard_normal(wiring.response.size))
    )
    private = PRIVATE * rng.standard_normal(effect.size) ** 3 / np.sqrt(15)
    score = np.where(can_change, wiring.loadings @ activity + private, 0.0)
    score[rows] = 0.0
    size = np.abs(score)
    threshold = np.partition(size, -n - 1)[-n - 1]
    # the root keeps the few genes that carry a programme from being all of the effect
    effect = np.sign(score) * np.sqrt(np.maximum(size - threshold, 0.0))
    scaled: Array = effect * n / np.abs(effect).sum()
    return scaled


def _unit(vector: Array) -> Array:
    unit: Array = vector / np.linalg.norm(vector)
    return unit
