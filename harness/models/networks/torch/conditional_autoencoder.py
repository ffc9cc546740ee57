"""The network of the model conditional-autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.models.networks.torch.latent_additive import LatentAdditiveNetwork

if TYPE_CHECKING:
    from harness.models.networks.conditional_autoencoder import ConditionalAutoencoder
    from harness.models.networks.torch.inputs import Inputs, Sizes


class ConditionalAutoencoderNetwork(LatentAdditiveNetwork):
    """Encodes a cell so that its code does not tell the perturbation, and decodes it with it."""

    def __init__(self, model: ConditionalAutoencoder, sizes: Sizes) -> None:
        super().__init__(model, sizes)
        self.adversary = model.adversary
        self.judge = nn.Sequential(
            nn.Linear(model.latent, model.hidden),
            nn.GELU(),
            nn.Linear(model.hidden, sizes.n_names),
        )

    def respond(self, inputs: Inputs) -> Tensor:
        """Decode each control with the perturbation, and take off what it is decoded to without.

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
