"""Fitting any network to a view, and asking it once it is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from harness.models.base import query_rng
from harness.models.networks.data_loader import Loader, Loading
from harness.models.networks.encoding import Encoding
from harness.models.networks.torch.inputs import Inputs, Sizes, Table, on
from harness.models.networks.torch.training import (
    Training,
    best_device,
    half_precision,
    reproducible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from harness.models.base import Model
    from harness.models.networks.base import TrainedNetwork
    from harness.tasks import Query, TrainView

PROFILE_CELLS = 256
"""Control cells whose responses a profile is the mean of."""

SETS = 8
"""Sets of controls that go through the network at once."""

POOL_BYTES = 256 * 1024 * 1024
"""Memory for the controls of a context that are drawn from."""


class FittedNetwork:
    """A network with what it needs to answer queries; pickles, and then lies on the CPU.

    Attributes
    ----------
    curve
        One row for each epoch of its training: see `harness.models.networks.torch.training`.
    """

    def __init__(
        self,
        model: TrainedNetwork,
        train: TrainView,
        network: Callable[[TrainedNetwork, Sizes], nn.Module],
    ) -> None:
        self.seed, self.threads = model.seed, model.threads
        self.encoding = Encoding(train, model.rank, model.features, model.missing, model.embedding)
        self.sizes = Sizes(
            len(train.genes),
            len(self.encoding.names),
            self.encoding.n_features,
            len(self.encoding.contexts),
            self.encoding.rank,
        )
        self.train = train
        self.curve: list[dict[str, Any]] = []
        with reproducible(self.seed, self.threads):
            self.network = network(model, self.sizes)
        self.device: torch.device | None = None
        self._pool: tuple[str, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        self.network.to("cpu")
        return {**self.__dict__, "device": None, "_pool": None}

    def fit(self, model: TrainedNetwork, set_size: int, device: torch.device | None = None) -> None:
        """Train the network; `model.fitted_` must be this, for validation asks the model."""
        supervision = model.take_supervision()
        device = self.device = device or best_device()
        loading = Loading(batch_size=model.batch_size, set_size=set_size, seed=self.seed)

        def validate(epoch: int) -> float | None:
            assert supervision is not None
            return supervision.validate(cast("Model", model), epoch, model.stop_on)

        if supervision is not None:
            supervision.higher_is_better(model.stop_on)  # an unknown metric ends it here
        with reproducible(self.seed, self.threads):
            training = Training(
                self.network.to(device),
                model,
                Loader(self.train, loading),
                Table(self.encoding, self.train, device),
                supervision,
                validate,
            )
            self.curve = training.run()
        self.network.eval()

    def profile(self, query: Query) -> np.ndarray:
        """Compute the mean response of the context's controls: (n_genes,) float64."""
        if self._gives_up(query):
            control = self.train.control_pseudobulk(query.context)
            mean: np.ndarray = control + self.encoding.mean_effect(query.context)
            return mean
        pool = self._controls(query.context)
        rng = np.random.default_rng(self.seed)
        n = min(PROFILE_CELLS, len(pool))
        chosen = pool[np.sort(rng.choice(len(pool), n, replace=False))]
        response = self._respond(query, chosen[None])
        profile: np.ndarray = response.mean(axis=(0, 1), dtype=np.float64)
        return profile

    def cells(self, query: Query, set_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw as many controls as the query asks for, and compute their responses.

        Controls are drawn by seed and query, without replacement where there are enough. They go
        through the network in whole sets, as in training; what is over is left out. Both are
        (n_cells, n_genes) float32.
        """
        pool = self._controls(query.context)
        rng = query_rng(self.seed, query, "control-sets")
        n_sets = -(-query.n_cells // set_size)
        wanted = n_sets * set_size
        drawn = rng.choice(len(pool), wanted, replace=wanted > len(pool))
        if self._gives_up(query):
            controls = pool[drawn[: query.n_cells]]
            return controls, controls + self.encoding.mean_effect(query.context)
        sets = drawn.reshape(n_sets, set_size)
        parts = [self._respond(query, pool[sets[i : i + SETS]]) for i in range(0, n_sets, SETS)]
        responses = np.concatenate(parts).reshape(wanted, -1)
        return pool[drawn[: query.n_cells]], responses[: query.n_cells]

    def untold(self, queries: Sequence[Query]) -> list[str]:
        """Write a note for each query whose perturbation the network cannot tell from others.

        Raises
        ------
        ModelError
            A table of features has no row for a perturbation, and that is not allowed.
        """
        encoding = self.encoding
        encoding.refuse_missing(query.perturbation for query in queries)
        reason = {
            "names": "it was not trained on",
            "targets": "it has no features",
            "both": "it was not trained on and has no features",
        }[encoding.embedding]
        return [
            f"{query.perturbation} in {query.context}: {reason}, "
            + (
                "the mean effect is used"
                if self._gives_up(query)
                else "the network cannot tell it from others"
            )
            for query in queries
            if not encoding.knows(query.perturbation, query.targets)
        ]

    def _gives_up(self, query: Query) -> bool:
        return self.encoding.gives_up(query.perturbation, query.targets)

    def _controls(self, context: str) -> np.ndarray:
        if self._pool is None or self._pool[0] != context:
            most = max(1, POOL_BYTES // (4 * self.sizes.n_genes))
            self._pool = context, self.train.controls(context, most)
            self.network.to(self.device or best_device())  # what was pickled lies on the CPU
        return self._pool[1]

    def _respond(self, query: Query, controls: np.ndarray) -> np.ndarray:
        """Compute the network's response to sets of controls: (n_sets, n, n_genes)."""
        device = next(self.network.parameters()).device
        encoding = self.encoding
        n = len(controls)

        def each(known: np.ndarray) -> torch.Tensor:
            return on(np.repeat(known[None], n, axis=0), device)

        given = on(controls, device)
        inputs = Inputs(
            controls=given,
            perturbation=each(encoding.perturbation(query.perturbation, query.targets)),
            context=each(encoding.context(query.context)),
            origin=each(encoding.origin(query.context)),
            mean_effect=each(encoding.mean_effect(query.context)),
            cells=given[:, :0],
            weights=given[:, :0, 0],
        )
        self.network.eval()
        with (
            reproducible(self.seed, self.threads),
            torch.inference_mode(),
            half_precision(device),
        ):
            response: torch.Tensor = self.network.respond(inputs)  # type: ignore[operator]
            found: np.ndarray = response.float().cpu().numpy()
        return found
