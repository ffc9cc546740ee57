"""An autoencoder whose code is kept free of the perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.models.base import Count, NonNegative, Share, register
from harness.models.networks.base import TrainedNetwork, network_module

if TYPE_CHECKING:
    from harness.tasks import TrainView


@register("conditional-autoencoder")
@dataclass(kw_only=True, eq=False)
class ConditionalAutoencoder(TrainedNetwork):
    """Rebuilds cells from a code that does not tell the perturbation, and the perturbation.

    Cells and controls are encoded, perturbation and context are added to the code, and the sum is
    decoded: least squared error. An adversary guesses the perturbation from the code, and what
    helps it, times `adversary`, is what the encoder unlearns. A query is answered by controls,
    decoded with the perturbation less decoded without, on top of control mean and mean effect
    (as perturbation-mean), log1p scale. In the manner of the compositional perturbation autoencoder
    (CPA; Lotfollahi et al., Molecular Systems Biology 2023), by gradient reversal (Ganin et al.,
    JMLR 2016) in place of alternating steps.

    A query whose perturbation was not trained on and that has no features gets a note.
    """

    hidden: Count = 128
    latent: Count = 32
    depth: Count = 1
    dropout: Share = 0.1
    adversary: NonNegative = 0.1

    def fit(self, train: TrainView) -> Self:
        """Train the network."""
        return self.fit_network(
            network_module("conditional_autoencoder").ConditionalAutoencoderNetwork, train
        )
