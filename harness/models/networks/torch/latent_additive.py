"""The network of the model latent-additive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from harness.models.networks.torch.inputs import Inputs, Sizes, embeddings, layers

if TYPE_CHECKING:
    from harness.models.networks.conditional_autoencoder import ConditionalAutoencoder
    from harness.models.networks.latent_additive import LatentAdditive


class LatentAdditiveNetwork(nn.Module):
    """Encodes a control cell, adds perturbation and context to its code, and decodes the sum."""

    def __init__(self, model: LatentAdditive | ConditionalAutoencoder, sizes: Sizes) -> None:
        super().__init__()
        hidden, width = model.hidden, model.latent
        self.encoder = nn.Sequential(
            nn.Linear(sizes.n_genes, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(model.dropout),
            nn.Linear(hidden, width),
        )
        self.perturbation, self.context = embeddings(model, sizes, width)
        self.decoder = layers(width, hidden, sizes.n_genes, model.depth, model.dropout)

    def respond(self, inputs: Inputs) -> Tensor:
        """Predict the change of each control: (n_sets, set_size, n_genes)."""
        told = self.perturbation(inputs.perturbation) + self.context(inputs.context)
        code = self.encoder(inputs.centred(inputs.controls)) + told[:, None]
        deviation: Tensor = self.decoder(code)
        return inputs.start + deviation

    def loss(self, inputs: Inputs) -> Tensor:
        """Return the mean squared error over cells and genes."""
        return nn.functional.mse_loss(self.respond(inputs).float(), inputs.cells)
