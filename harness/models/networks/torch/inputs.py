"""What a network is given: a batch on its device, with what is known of each set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.models.networks.base import TrainedNetwork
    from harness.models.networks.data_loader import Batch
    from harness.models.networks.encoding import Encoding
    from harness.tasks import TrainView


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Sets of cells, log1p, and what each set is of.

    Attributes
    ----------
    controls
        (n_sets, set_size, n_genes) control cells of the set's context.
    perturbation
        (n_sets, n_names + n_features), as `Encoding.perturbation` gives it.
    context
        (n_sets, n_contexts + rank), likewise.
    origin
        (n_sets, n_genes) control pseudobulk of the context.
    mean_effect
        (n_sets, n_genes) mean effect in the context: where training starts from.
    cells
        (n_sets, set_size, n_genes) what is to be learned; in training only.
    weights
        (n_sets, set_size) of `cells`: each set's sum to 1, zero where a set is not full.
    """

    controls: Tensor
    perturbation: Tensor
    context: Tensor
    origin: Tensor
    mean_effect: Tensor
    cells: Tensor
    weights: Tensor

    @property
    def start(self) -> Tensor:
        """What the mean over perturbations predicts: (n_sets, 1, n_genes)."""
        return (self.origin + self.mean_effect)[:, None]

    def centred(self, cells: Tensor) -> Tensor:
        """Return cells less the control pseudobulk of their context."""
        return cells - self.origin[:, None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The widths that a network is built for; `rank` is that of the features of contexts."""

    n_genes: int
    n_names: int
    n_features: int
    n_contexts: int
    rank: int


class Table:
    """What is known of training pairs, on the device once: batches carry cells alone."""

    def __init__(self, encoding: Encoding, train: TrainView, device: torch.device) -> None:
        contexts = {pair.context: None for pair in train.pairs}
        rows = {context: row for row, context in enumerate(contexts)}
        self.device = device
        self._context_of = on([rows[pair.context] for pair in train.pairs], device)
        told = [encoding.perturbation(p, train.targets(p)) for p, _ in train.pairs]
        self._perturbations = on(np.array(told), device)
        self._contexts = on(np.array([encoding.context(c) for c in contexts]), device)
        self._origins = on(np.array([encoding.origin(c) for c in contexts]), device)
        self._effects = on(np.array([encoding.mean_effect(c) for c in contexts]), device)

    def inputs(self, batch: Batch) -> Inputs:
        """Return a batch on the device."""
        pairs = on(batch.pairs.astype(np.int64), self.device)
        context = self._context_of[pairs]
        places = np.arange(batch.cells.shape[1]) < batch.sizes[:, None]
        weights = (places / batch.sizes[:, None]).astype(np.float32)
        return Inputs(
            controls=on(batch.controls, self.device),
            perturbation=self._perturbations[pairs],
            context=self._contexts[context],
            origin=self._origins[context],
            mean_effect=self._effects[context],
            cells=on(batch.cells, self.device),
            weights=on(weights, self.device),
        )


def on(values: np.ndarray | Sequence[int], device: torch.device) -> Tensor:
    """Return an array on a device; through pinned memory to a GPU, without waiting for it."""
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Told(nn.Module):
    """Embeds a perturbation or a context: names and features, each through a linear map.

    In training the names of a share `forget` of the sets are withheld. What is told by nothing
    (no known name, no feature) is the zero vector.
    """

    def __init__(self, n_names: int, rank: int, width: int, told_by: str, forget: float) -> None:
        super().__init__()
        self.n_names = n_names
        self.told_by = told_by
        self.forget = forget if told_by == "both" else 0.0
        self.names = nn.Linear(n_names, width, bias=False)
        self.features = nn.Linear(rank, width, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return (n, width)."""
        told: Tensor
        names, features = values[:, : self.n_names], values[:, self.n_names :]
        if self.told_by == "targets":
            told = self.features(features)
            return told
        if self.training and self.forget:
            kept = torch.rand(len(names), 1, device=names.device) >= self.forget
            names = names * kept
        told = self.names(names)
        if self.told_by == "both":
            told = told + self.features(features)
        return told


def embeddings(model: TrainedNetwork, sizes: Sizes, width: int) -> tuple[Told, Told]:
    """Make the embeddings of perturbations and of contexts; a context is told by both always."""
    perturbation = Told(sizes.n_names, sizes.n_features, width, model.embedding, model.forget)
    return perturbation, Told(sizes.n_contexts, sizes.rank, width, "both", model.forget)


def layers(n_in: int, hidden: int, n_out: int, depth: int, dropout: float) -> nn.Sequential:
    """Return a perceptron of `depth` hidden layers, whose output is zero at first."""
    parts: list[nn.Module] = []
    width = n_in
    for _ in range(depth):
        parts += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout)]
        width = hidden
    return nn.Sequential(*parts, zero(nn.Linear(width, n_out)))


def zero(last: nn.Linear) -> nn.Linear:
    """Return a last layer that gives zero until it is trained."""
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last
