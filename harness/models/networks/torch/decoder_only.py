"""The network of the model decoder-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.models.networks.torch.inputs import Inputs, Sizes, embeddings, layers

if TYPE_CHECKING:
    from harness.models.networks.decoder_only import DecoderOnly


class DecoderOnlyNetwork(nn.Module):
    """Decodes perturbation and context into a profile; looks at no cell."""

    def __init__(self, model: DecoderOnly, sizes: Sizes) -> None:
        super().__init__()
        width = model.hidden
        self.perturbation, self.context = embeddings(model, sizes, width)
        self.decoder = layers(2 * width, width, sizes.n_genes, model.depth, model.dropout)

    def respond(self, inputs: Inputs) -> Tensor:
        """Return the profile, once for each set: (n_sets, 1, n_genes)."""
        told = [self.perturbation(inputs.perturbation), self.context(inputs.context)]
        deviation: Tensor = self.decoder(torch.cat(told, dim=1))
        return inputs.start + deviation[:, None]

    def loss(self, inputs: Inputs) -> Tensor:
        """Return the mean squared error over cells and genes."""
        return nn.functional.mse_loss(self.respond(inputs).float(), inputs.cells)
