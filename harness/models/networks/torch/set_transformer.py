"""The network of the model set-transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.models.networks.torch.inputs import Inputs, Sizes, embeddings, zero
from harness.models.networks.torch.losses import LOSSES

if TYPE_CHECKING:
    from harness.models.networks.set_transformer import SetTransformer


class SetTransformerNetwork(nn.Module):
    """Turns a set of control cells into a set of perturbed ones; their order means nothing."""

    def __init__(self, model: SetTransformer, sizes: Sizes) -> None:
        super().__init__()
        width = model.hidden
        self.source, self.distance = model.source, LOSSES[model.loss]
        self.cell = nn.Linear(sizes.n_genes, width)
        self.perturbation, self.context = embeddings(model, sizes, width)
        block = nn.TransformerEncoderLayer(
            width, model.heads, 2 * width, model.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(block, model.depth, enable_nested_tensor=False)
        self.change = nn.Sequential(nn.LayerNorm(width), zero(nn.Linear(width, sizes.n_genes)))

    def respond(self, inputs: Inputs) -> Tensor:
        """Return each control, changed: (n_sets, set_size, n_genes)."""
        controls = inputs.controls
        if self.source == "mean":
            controls = inputs.origin[:, None].expand_as(controls)
        told = self.perturbation(inputs.perturbation) + self.context(inputs.context)
        tokens = self.cell(inputs.centred(controls)) + told[:, None]
        change: Tensor = self.change(self.body(tokens))
        return controls + inputs.mean_effect[:, None] + change

    def loss(self, inputs: Inputs) -> Tensor:
        """Return the mean distance between predicted and observed sets, in float32."""
        predicted = self.respond(inputs).float()
        with torch.autocast(predicted.device.type, enabled=False):
            distance: Tensor = self.distance(predicted, inputs.cells, inputs.weights)
            return distance.mean()
