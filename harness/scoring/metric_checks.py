"""Whether a metric can be trusted on a screen: controls, floors and tricks, scored as predictions.

Every pair's cells are divided: one half is the truth, the other what a perfect experiment would
predict. `control_predictions` makes predictions that know everything or nothing of the pair, and
some that cheat; all are scored as any prediction is. `tables.metric_checks` says what follows.

Screens are sampled: so many pairs of each context, so many cells of each, all in memory. What is
asked is a property of metric and screen, which a hundred pairs show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.data import ArrayCells, Reader, StoreCells, halved
from harness.errors import DataError, listed
from harness.metrics import registered
from harness.scoring.control_predictions import KINDS, Halves, missing
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import Scorer, chosen_suites, score
from harness.scoring.to_counts import CountedCells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.data import Half, Scale, Screen
    from harness.scoring.truth import PreparedTruth

COLUMNS = ("prediction", "suite", "metric", "version", "context", "perturbation", "value", "reason")
"""Of the rows that `check_trust` returns; `prediction` is a kind of `control_predictions.KINDS`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much of a screen is looked at.

    Attributes
    ----------
    pairs
        At most so many pairs of each context, drawn by hash.
    cells, controls
        At most so many cells of each half of a pair, and of each half of a context's controls.
    seed
        Of what is drawn.
    """

    pairs: int = 100
    cells: int = 200
    controls: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Trust:
    """What was scored, and what could not be.

    Attributes
    ----------
    scores
        One row for each prediction, suite, metric and pair; see `COLUMNS`.
    left_out
        Kinds of predictions that the screen does not allow, with the reason.
    n_pairs, n_contexts
        How many pairs were looked at, in how many contexts.
    """

    scores: pd.DataFrame
    left_out: Mapping[str, str]
    n_pairs: int
    n_contexts: int


_ALL = Sampling()


def check_trust(
    store: Screen,
    suites: Sequence[str],
    *,
    sampling: Sampling = _ALL,
    options: ScoringOptions | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Trust:
    """Score every control, floor and trick on a screen.

    Parameters
    ----------
    store
        The screen.
    suites
        By which suites. Those of raw counts need a screen of counts.
    sampling
        How much of it is looked at.
    options
        Threads and memory of scoring.
    report
        Called with predictions scored and in all.

    Raises
    ------
    DataError
        No context has two pairs of two cells and two controls; or a suite needs counts.
    """
    chosen_suites(suites)  # an unknown name is an error before anything is read
    sample = _Sample(store, sampling)
    options = options or ScoringOptions()
    targets = any(store.targets(p) for pairs in sample.pairs.values() for p in pairs)
    without_targets = replace(options, no_target_genes=not targets)
    scorer = Scorer(sample.truth, suites, options, counts_options=without_targets)
    # Predictions that cheat need to know which genes are called, so ranks are computed in any case.
    plain = Scorer(sample.truth, ["cell-eval:de"], options).truth("log1p")
    if "log1p" in scorer.scales:
        scorer.truths["log1p"] = plain
    contexts = {context: sample.halves(context, plain) for context in sample.pairs}
    reasons = {kind: missing(kind, list(contexts.values())) for kind in KINDS}
    made = [kind for kind, reason in reasons.items() if not reason]
    left_out = {kind: reason for kind, reason in reasons.items() if reason}
    parts = []
    for done, kind in enumerate(made):
        report(done, len(made))
        cells = sample.predicted(kind, contexts)
        for scale, names in scorer.scales.items():
            prediction = CountedCells(cells, sampling.seed) if scale == "counts" else cells
            try:
                scores = score(scorer.truth(scale), prediction, suite=names).frame
            except DataError as error:
                if KINDS[kind].role != "trick":
                    raise
                left_out[f"{kind} under {', '.join(names)}"] = f"refused: {error}"
            else:
                parts.append(scores.assign(prediction=kind))
    report(len(made), len(made))
    scores = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    # Halves have no training side, so what is centred on its mean is not looked at.
    centred = [name for name, metric in registered().items() if "centre" in metric.needs]
    scores = scores[~scores["metric"].isin(centred)].reset_index(drop=True)
    n_pairs = sum(len(pairs) for pairs in sample.pairs.values())
    return Trust(scores, left_out, n_pairs, len(sample.pairs))


class _Sample:
    """Which cells of a screen are looked at, by context."""

    def __init__(self, store: Screen, sampling: Sampling) -> None:
        self.store, self.sampling = store, sampling
        self._reader = Reader(store)
        ranges = {(r.context, r.perturbation): np.arange(r.start, r.stop) for r in store.ranges}
        label = store.control_label
        self.pairs: dict[str, dict[str, np.ndarray]] = {}
        self.controls: dict[str, np.ndarray] = {}
        for context in sorted({context for context, _ in ranges}):
            pairs = {p: rows for (c, p), rows in ranges.items() if c == context and p != label}
            pairs = {p: rows for p, rows in pairs.items() if len(rows) > 1}
            controls = ranges.get((context, label), np.empty(0, np.int64))
            if len(pairs) > 1 and len(controls) > 1:
                drawn = sorted(pairs, key=lambda p: _number(f"{sampling.seed}\0{context}\0{p}"))
                names = sorted(drawn[: max(2, sampling.pairs)])
                self.pairs[context] = {name: pairs[name] for name in names}
                self.controls[context] = controls
        if not self.pairs:
            raise DataError(
                f"Screen {store.card.get('name')!r}: nothing can be divided in halves. Expected a "
                "context with two perturbations and controls of two cells each; found "
                f"{listed(sorted({context for context, _ in ranges}))}. Use a larger screen."
            )

    def truth(self, scale: Scale) -> StoreCells:
        """Return the held halves of controls and pairs."""
        halves = {
            (context, name): self._half(rows, "held", context, name)
            for context, pairs in self.pairs.items()
            for name, rows in {self.store.control_label: self.controls[context], **pairs}.items()
        }
        return StoreCells(self._reader, *_joined(halves), scale)

    def halves(self, context: str, truth: PreparedTruth) -> Halves:
        """Return a context in halves, on the log1p scale; `truth` has its rank tests."""
        pairs, label = self.pairs[context], self.store.control_label
        order = [truth.statistics.perturbations[r] for r in truth.statistics.rows_of(context)]
        column = {gene: at for at, gene in enumerate(self.store.genes)}
        shown = self._half(self.controls[context], "shown", context, label)
        depth = None
        if self.store.scale == "counts" and self.store.library_size:
            depth = self._reader.sizes_of(shown) / self.store.library_size
        conventions = chosen_suites("cell-eval:de")[0][0].conventions
        return Halves(
            perturbations=tuple(order),
            truth=tuple(self._cells(self._half(pairs[p], "held", context, p)) for p in order),
            duplicate=tuple(self._cells(self._half(pairs[p], "shown", context, p)) for p in order),
            controls=self._cells(shown),
            called=truth.sides[context].de(conventions).adjusted,
            targets=tuple(tuple(column[g] for g in self.store.targets(p)) for p in order),
            depth=depth,
        )

    def predicted(self, kind: str, contexts: Mapping[str, Halves]) -> ArrayCells:
        """Return a kind of prediction for all contexts."""
        label, parts = self.store.control_label, {}
        for context, halves in contexts.items():
            rng = np.random.default_rng([self.sampling.seed, _number(context)])
            found = KINDS[kind].make(halves, rng)
            parts[context, label] = found.controls
            for name, cells in zip(halves.perturbations, found.pairs, strict=True):
                parts[context, name] = cells
        return ArrayCells(*_joined(parts), genes=self.store.genes, control_label=label)

    def _half(self, rows: np.ndarray, half: Half, context: str, name: str) -> np.ndarray:
        found = halved(rows, half, self.store.fingerprint, context, name)
        controls = name == self.store.control_label
        size = self.sampling.controls if controls else self.sampling.cells
        if len(found) <= size:
            return found
        rng = np.random.default_rng([self.sampling.seed, _number(f"{half}\0{context}\0{name}")])
        return np.sort(rng.choice(found, size=size, replace=False))

    def _cells(self, rows: np.ndarray) -> np.ndarray:
        labels = np.full(len(rows), "")
        return StoreCells(self._reader, rows, labels, labels).dense()


def _joined(
    parts: Mapping[tuple[str, str], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join what (context, perturbation) pairs have of cells; beside it the labels of each cell."""
    sizes = [len(part) for part in parts.values()]
    contexts, names = (np.repeat([pair[at] for pair in parts], sizes) for at in (0, 1))
    return np.concatenate(list(parts.values())), names, contexts


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
