"""A perturbation as a step in the code of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.models.base import Count, Share, register
from harness.models.networks.base import TrainedNetwork, network_module

if TYPE_CHECKING:
    from harness.tasks import TrainView


@register("latent-additive")
@dataclass(kw_only=True, eq=False)
class LatentAdditive(TrainedNetwork):
    """Encodes control cells, adds perturbation and context to their codes, and decodes the mean.

    ``profile = x̄_c + b_c + mean over controls x of f(g(x − x̄_c) + p + c)``, log1p scale: g and f
    are perceptrons, f is zero at first, b is the mean effect (as perturbation-mean), p and c embed
    perturbation and context. Trained to the least squared error between a decoded control and a
    cell of the pair. In the manner of the latent additive model of PerturBench (Wu et al., 2024),
    which has no start and no features of targets.

    A query whose perturbation was not trained on and that has no features gets a note.
    """

    hidden: Count = 128
    latent: Count = 64
    depth: Count = 1
    dropout: Share = 0.1

    def fit(self, train: TrainView) -> Self:
        """Train the network."""
        return self.fit_network(network_module("latent_additive").LatentAdditiveNetwork, train)
