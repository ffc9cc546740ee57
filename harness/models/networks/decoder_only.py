"""A profile from the names of perturbation and context alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.models.base import Count, Share, register
from harness.models.networks.base import TrainedNetwork, network_module

if TYPE_CHECKING:
    from harness.tasks import TrainView


@register("decoder-only")
@dataclass(kw_only=True, eq=False)
class DecoderOnly(TrainedNetwork):
    """A perceptron from perturbation and context to the profile, without looking at any cell.

    ``profile = x̄_c + b_c + f(p, c)``, log1p scale: f has `depth` hidden layers of `hidden` units
    and is zero at first, b is the mean effect (as perturbation-mean), p and c embed perturbation
    and context. Trained to the least squared error of cells. In the manner of the decoder-only
    baseline of PerturBench (Wu et al., 2024), which has no start and no features of targets.

    A query whose perturbation was not trained on and that has no features gets a note.
    """

    hidden: Count = 128
    depth: Count = 2
    dropout: Share = 0.1

    def fit(self, train: TrainView) -> Self:
        """Train the network."""
        return self.fit_network(network_module("decoder_only").DecoderOnlyNetwork, train)
