"""The network of the model conditional-autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.models.networks.torch.inputs import Inputs, Sizes, Told, layers
from harness.models.networks.torch.latent_additive import encoder

if TYPE_CHECKING:
    from harness.models.networks.conditional_autoencoder import ConditionalAutoencoder


class ConditionalAutoencoderNetwork(nn.Module):
    """Encodes a cell so that its code does not tell the perturbation, and decodes it with it."""

    def __init__(self, model: ConditionalAutoencoder, sizes: Sizes) -> None:
        super().__init__()
        hidden, width = model.hidden, model.latent
        self.adversary = model.adversary
        self.encoder = encoder(sizes.n_genes, hidden, width, model.dropout)
        self.perturbation = Told(
            sizes.n_names, sizes.n_features, width, model.embedding, model.forget
        )
        self.context = Told(sizes.n_contexts, sizes.rank, width, "both", model.forget)
        self.decoder = layers(width, hidden, sizes.n_genes, model.depth, model.dropout)
        self.judge = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, sizes.n_names)
        )

    def respond(self, inputs: Inputs) -> Tensor:
        """Return what each control is decoded to with the perturbation, less without it.

        On top of control pseudobulk and mean effect: (n_sets, set_size, n_genes).
        """
        code = self.encoder(inputs.centred(inputs.controls))
        context = self.context(inputs.context)
        told = self.perturbation(inputs.perturbation) + context
        difference: Tensor = self.decoder(code + told[:, None]) - self.decoder(
            code + context[:, None]
        )
        return inputs.start + difference

    def loss(self, inputs: Inputs) -> Tensor:
        """Return the squared error of both rebuilt sides, and the adversary's loss.

        The adversary guesses the perturbation from the code; its gradient is reversed on its way
        into the encoder, which so learns to leave the perturbation out.
        """
        context = self.context(inputs.context)[:, None]
        told = self.perturbation(inputs.perturbation)[:, None] + context
        seen = self.encoder(inputs.centred(inputs.cells))
        rested = self.encoder(inputs.centred(inputs.controls))
        origin = inputs.origin[:, None]
        perturbed = inputs.start + self.decoder(seen + told)
        control = origin + self.decoder(rested + context)
        error = nn.functional.mse_loss(perturbed.float(), inputs.cells)
        error = error + nn.functional.mse_loss(control.float(), inputs.controls)
        if not self.adversary:
            return error
        names = inputs.perturbation[:, None, : self.perturbation.n_names]
        return error + self._guess(seen, names) + self._guess(rested, torch.zeros_like(names))

    def _guess(self, code: Tensor, names: Tensor) -> Tensor:
        turned: Tensor = _Reversed.apply(code, self.adversary)  # type: ignore[no-untyped-call]
        guessed = self.judge(turned).float()
        return nn.functional.binary_cross_entropy_with_logits(guessed, names.clamp(max=1))


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
