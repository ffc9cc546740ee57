"""The truth's part of every score: computed once, or found where it was kept."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data import is_store, open_store
from harness.errors import DataError
from harness.metrics import Side, registered, suite_named
from harness.scoring.anchors import SUITE, Anchors, anchors
from harness.scoring.cell_distances import energy_distances
from harness.scoring.count_statistics import CountStatistics
from harness.scoring.count_truth import CountTruth
from harness.scoring.group_statistics import Statistics, measure
from harness.scoring.truth_cache import TruthCache
from harness.storage import DIGEST_BYTES, paths, remembered_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.data import Cells
    from harness.metrics import Need
    from harness.scoring.anchors import Ends
    from harness.scoring.options import ScoringOptions
    from harness.scoring.truth_cache import Values

VERSIONS = {"statistics": 2, "energy": 2, "counts": 1, "anchors": 1}
"""Of each part that is kept. Raise one whenever any of its values could change."""


@dataclass
class PreparedTruth:
    """What the truth contributes to every score: read and computed once, for many predictions.

    Each part is computed, or read from where it is kept, when it is first needed.

    Parameters
    ----------
    source
        What the truth was given as. Opened only when something must be computed of its cells.
    options
        How it is read, and with what its part is computed.
    name
        What errors call it.
    reference
        The folder or URL where parts are kept; None: they are not.
    centre
        Gives the profile of a context, (n_genes,), that some metrics centre effects on; None: they
        are undefined.
    """

    source: Any
    options: ScoringOptions
    name: str = "truth"
    reference: str | None = None
    centre: Callable[[str], np.ndarray] | None = None
    _anchors: dict[str, Anchors] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def cells(self) -> Cells:
        """The truth's cells."""
        return self.options.cells(self.source, self.name)

    @cached_property
    def statistics(self) -> Statistics:
        """Means and rank sums of log1p values."""

        def make() -> Values:
            how = self.options
            found = measure(
                self.cells, name=self.name, scale=how.scale, backend=how.device, **how.limits
            )
            return vars(found)

        return Statistics(**self._part("statistics", make))

    @cached_property
    def sides(self) -> dict[str, Side]:
        """The truth's side of each context, for metrics of log1p values."""
        return dict(sides_of(self.statistics))

    @cached_property
    def counted(self) -> CountTruth:
        """The truth as metrics of raw counts need it."""
        no_targets = self.options.no_target_genes
        counted = CountTruth(
            self.cells, self.name, no_target_genes=no_targets, **self.options.limits
        )
        kept = self._part("counts", lambda: vars(counted.statistics))
        counted.statistics = CountStatistics(**kept)
        return counted

    def anchors(self, names: Sequence[str]) -> Anchors:
        """Return both ends of the scale of the 2026 score, with the aggregates of these metrics."""
        said = [f"{name}@{registered()[name].version}" for name in names]
        said.append(f"targets left out: {not self.options.no_target_genes}")
        digest = blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()
        if digest not in self._anchors:
            found = self._part(
                "anchors", lambda: vars(anchors(self.counted, names)), variant=f"-{digest}"
            )
            self._anchors[digest] = Anchors(**found)
        return self._anchors[digest]

    @cached_property
    def ends(self) -> tuple[Ends, str]:
        """Both ends of the 2026 score, or none and why: a truth may be too small for them."""
        try:
            return self.anchors(suite_named(SUITE).metrics).ends, ""
        except DataError as error:
            return {}, str(error)

    def measure(self, needs: frozenset[Need]) -> None:
        """Compute what metrics with these needs use of the truth, unless that was done before."""
        if needs - {"counts"}:
            _ = self.sides
        if "energy" in needs and any(side.energy is None for side in self.sides.values()):
            found = self._part(
                "energy",
                lambda: {
                    "energy": energy_distances(self.cells, name=self.name, **self.options.limits)
                },
            )
            add_energy(self.sides, self.statistics, found["energy"])
        if "counts" in needs:
            _ = self.counted.sides
        # A matrix that was read from a file goes; who needs it after all reads it again.
        if not needs & {"counts", "populations"} and isinstance(self.source, str | os.PathLike):
            vars(self).pop("cells", None)

    @cached_property
    def _key(self) -> str | None:
        if self.reference is None:
            return None
        return truth_key(self.source, self.options, self.reference)

    def _part(self, name: str, make: Callable[[], Values], variant: str = "") -> Values:
        """Return a part from where it is kept, or make it."""
        if self.reference is None or self._key is None:
            return make()
        cache = TruthCache(self.reference)
        return cache.part(self._key, name + variant, VERSIONS[name], make)


def sides_of(statistics: Statistics) -> Iterator[tuple[str, Side]]:
    """Yield each context's side, pseudobulks rounded to the precision of the cells.

    The oracles' pseudobulks are float32 where the cells are. What decides is a prediction without
    effect: unrounded, its pseudobulk and its control's differ by a rounding error, and its cosine
    with every true effect would be that error's.
    """
    means = statistics.means
    if statistics.single:
        means = means.astype(np.float32).astype(np.float64)
    for context in sorted(set(statistics.contexts)):
        rows = statistics.rows_of(context)
        if not len(rows):
            continue
        control = statistics.reference[rows[0]]
        yield (
            context,
            Side(
                pseudobulk=means[rows],
                control=means[control],
                u=statistics.u[rows],
                ties=statistics.ties[rows],
                sizes=statistics.sizes[rows],
                n_controls=int(statistics.sizes[control]),
                exact=statistics.means[rows] if statistics.single else None,
            ),
        )


def add_energy(sides: dict[str, Side], statistics: Statistics, found: np.ndarray) -> None:
    """Give every side the energy distances of its pairs."""
    for context, side in sides.items():
        side.energy = found[statistics.rows_of(context)]


def truth_key(source: Any, options: ScoringOptions, folder: str) -> str | None:
    """Identify a truth by its content and how it is read; None for matrices in memory.

    Parameters
    ----------
    source
        A path, or cells with a `fingerprint`.
    options
        How it is read. How fast, and on what device, makes no difference.
    folder
        Where digests of files are remembered.
    """
    described: dict[str, Any] = {"scale": options.scale}
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source).rstrip("/")
        if not paths.exists(path) or (paths.is_remote(path) and not is_store(path)):
            return None
        if is_store(path):
            described["content"] = open_store(path).fingerprint
        else:
            described["content"] = remembered_digest(Path(path), options.n_threads, folder)
            described["columns"] = [options.perturbation_column, options.context_column]
            described["control"] = options.control
    else:
        described["content"] = getattr(source, "fingerprint", None)
    if described["content"] is None:
        return None
    text = json.dumps(described, sort_keys=True)
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
