"""The training loop that all networks share.

An epoch is every training cell once. After some epochs the trial scores the validation pairs by
the model's metric; the best weights are kept, and training ends when they have not got better for
a while. Weights, optimiser, random numbers and the place in the epoch go into a checkpoint from
which an interrupted training goes on with the same numbers as if nothing had happened.

On a GPU, the forward pass is in bfloat16 (float16 with scaled gradients where there is none) and
the loss in float32. The device is the one that the process was given: Ray shows a task its own.
On a CPU the number of threads is fixed, and two trainings give the same numbers.
"""

from __future__ import annotations

import copy
import io
import math
import time
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from harness.models.base import Supervision
    from harness.models.networks.base import TrainedNetwork
    from harness.models.networks.data_loader import Loader
    from harness.models.networks.torch.inputs import Inputs, Table

    Validate = Callable[[int], float | None]

SAVE_SECONDS = 30.0
"""Least time between two checkpoints."""

SAVE_SHARE = 0.05
"""Largest share of the time that may go into checkpoints."""


def best_device() -> torch.device:
    """Return the GPU that this process was given, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Fix seed and threads in the block, and leave both as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    devices = range(torch.cuda.device_count())
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def half_precision(device: torch.device) -> torch.autocast:
    """Return the context of a forward pass: half precision on a GPU, float32 on a CPU."""
    half = torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        half = torch.float16
    return torch.autocast(device.type, dtype=half, enabled=device.type == "cuda")


class Training:
    """One training: the network, its optimiser, and how far it has got.

    Parameters
    ----------
    network
        On the table's device; ``loss(inputs)`` gives the number to be made small.
    settings
        How it is trained.
    loader, table
        The cells, and what is known of their pairs.
    supervision
        What the trial offers; None for a fit by hand.
    validate
        Scores the network as it is, given the number of epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainedNetwork,
        loader: Loader,
        table: Table,
        supervision: Supervision | None = None,
        validate: Validate | None = None,
    ) -> None:
        self.network, self.settings, self.loader, self.table = network, settings, loader, table
        self.supervision = supervision
        self.validate = validate
        self.device = table.device
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # networks are small here: tensor by tensor it takes a sixth of a step more
        )
        scaled = half_precision(self.device).fast_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.device.type == "cuda" and scaled
        )
        self.epoch = self.position = self.step = self.cells = 0
        self.loss = torch.zeros((), device=self.device)
        self.best: dict[str, Any] | None = None
        self.best_score, self.waited, self.over = math.nan, 0, False
        self.seconds = 0.0
        self.curve: list[dict[str, Any]] = []
        self._clock = self._saved_at = time.monotonic()
        self._save_took = 0.0

    def run(self) -> list[dict[str, Any]]:
        """Train to the end, leave the network with its best weights, and return the curve."""
        self._resume()
        while self.epoch < self.settings.epochs and not self.over:
            self._train_epoch()
            self._end_epoch()
        if self.best is not None:
            self.network.load_state_dict(self.best)
        self.network.eval()
        return self.curve

    def _train_epoch(self) -> None:
        self.network.train()
        part = self.epoch / max(1, self.settings.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * part))
        batches = self.loader.epoch(self.epoch, self.position)
        try:
            for batch in batches:
                self.loss += self._update(self.table.inputs(batch))
                self.position += 1
                self.step += 1
                self.cells += batch.n_cells
                self._save_if_due()
        finally:
            batches.close()

    def _update(self, inputs: Inputs) -> Tensor:
        """Take one step, and return the loss before it."""
        self.optimiser.zero_grad(set_to_none=True)
        with half_precision(self.device):
            loss: Tensor = self.network.loss(inputs)  # type: ignore[operator]
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        value: Tensor = loss.detach()
        return value

    def _end_epoch(self) -> None:
        loss = float(self.loss) / max(1, self.position)
        self.epoch += 1
        last = self.epoch == self.settings.epochs
        score = None
        if last or self.epoch % self.settings.validate_every == 0:
            score = self._look()
        validation = math.nan if score is None else score
        self._count_seconds()
        self.curve.append(
            {
                "epoch": self.epoch,
                "step": self.step,
                "cells": self.cells,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "loss": loss,
                "metric": self.settings.stop_on,
                "validation": validation,
                "best": self.waited == 0 and not math.isnan(validation),
                "seconds": round(self.seconds, 3),
            }
        )
        self.position, self.loss = 0, torch.zeros((), device=self.device)
        if self.supervision is not None:
            self.supervision.record(self.curve)
        self._save_if_due(now=last or self.over)

    def _look(self) -> float | None:
        """Score the validation pairs; remember the weights if they are the best so far."""
        if self.validate is None or self.supervision is None:
            return None
        self.network.eval()
        score = self.validate(self.epoch)
        if score is None:
            return None
        sign = 1 if self.supervision.higher_is_better(self.settings.stop_on) else -1
        if math.isnan(self.best_score) or sign * score > sign * self.best_score:
            self.best_score, self.waited = score, 0
            self.best = copy.deepcopy(self.network.state_dict())
        else:
            self.waited += 1
        self.over = self.waited >= self.settings.patience
        return score

    # --- checkpoints ----------------------------------------------------------------------------

    def _save_if_due(self, *, now: bool = False) -> None:
        if self.supervision is None:
            return
        begun = time.monotonic()
        pause = max(SAVE_SECONDS, self._save_took / SAVE_SHARE)
        if now or begun - self._saved_at >= pause:
            self.supervision.save(self._state())
            self._saved_at = time.monotonic()
            self._save_took = self._saved_at - begun

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._clock
        self._clock = now

    def _state(self) -> bytes:
        self._count_seconds()
        state = {name: getattr(self, name) for name in _PROGRESS}
        state |= {name: getattr(self, name).state_dict() for name in _PARTS}
        state |= {"code": _code(), "random": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def _resume(self) -> None:
        saved = None if self.supervision is None else self.supervision.load()
        if saved is None:
            return
        state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        if state["code"] != _code():
            return
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        for name in _PROGRESS:
            setattr(self, name, state[name])
        torch.set_rng_state(state["random"].cpu())
        if "random_cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu())


def _code() -> str:
    """Return a digest of the networks' code: what other code saved is not gone on with."""
    digest = blake2b(digest_size=16)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


_PARTS = ("network", "optimiser", "scaler")
_PROGRESS = (
    "epoch",
    "position",
    "step",
    "cells",
    "loss",
    "best",
    "best_score",
    "waited",
    "over",
    "seconds",
    "curve",
)
