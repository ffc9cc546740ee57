"""Sets of control cells turned into sets of perturbed ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from harness.models.base import Count, Share, register
from harness.models.networks.base import TrainedNetwork, network_module
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("set-transformer", cells="own")
@dataclass(kw_only=True, eq=False)
class SetTransformer(TrainedNetwork):
    """A transformer over sets of control cells, trained by a distance between sets of cells.

    Each control becomes ``x + b_c + f(x; set, p, c)``, log1p scale: the cells of a set attend to
    each other, f is zero at first, b is the mean effect (as perturbation-mean), p and c embed
    perturbation and context. What is made small is the distance between the predicted set and a
    set of cells of the pair, so that spread and shape are learned and not the mean alone: with
    `loss` ``energy`` the energy distance, with ``mmd`` the squared maximum mean discrepancy of
    Gaussian kernels. In the manner of STATE's transition model (Adduri et al., 2025); written from
    the idea, and much smaller.

    `set_size` is how many cells attend to each other. `source` says what enters: ``cells``, or
    ``mean``, the control pseudobulk in each place, which leaves nothing but the mean to learn from.
    `batch_size` counts sets. The cells are the model's own; ``cells: shift-controls`` or
    ``tile-profile`` gives it others by its profile.

    A query whose perturbation was not trained on and that has no features gets a note.
    """

    batch_size: Count = 8
    loss: Literal["energy", "mmd"] = "energy"
    set_size: Count = 32
    source: Literal["cells", "mean"] = "cells"
    hidden: Count = 128
    heads: Count = 4
    depth: Count = 2
    dropout: Share = 0.1

    def fit(self, train: TrainView) -> Self:
        """Train the network."""
        network = network_module("set_transformer").SetTransformerNetwork
        return self.fit_network(network, train, self.set_size)

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield cells, none of them negative, and a profile.

        The profile is their mean before that, freed of which controls were drawn: these' mean is
        replaced by the mean of all.
        """
        self.notes_ = self.fitted_.untold(queries)
        for query in queries:
            controls, cells = self.fitted_.cells(query, self.set_size)
            profile = cells.mean(axis=0, dtype=np.float64)
            if self.source == "cells":
                drawn = controls.mean(axis=0, dtype=np.float64)
                profile += self.fitted_.train.control_pseudobulk(query.context) - drawn
            yield Prediction(query, cells=np.maximum(cells, 0), profile=profile)
