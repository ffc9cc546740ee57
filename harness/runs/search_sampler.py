"""Which settings a search tries, and the same ones however long each takes.

Samplers that learn, and ``random``, are Optuna's; a grid and a Sobol sequence know setting n
without those before it, which Optuna's, counting in a study, do not.

Setting n is drawn from its own seed and from what the settings 0 … n − k scored, where k is how
many are tried at a time; the k − 1 before it count as running. Whichever of those happen to have
ended makes no difference, so that the same search on another machine, inline, or killed and begun
again proposes the same settings. The price: a setting waits where one k places before it is slow.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from harness.jobs import Dimension, Sampler, Scheduler

End = Literal["done", "stopped", "failed"]

NEEDED: dict[str, dict[str, str]] = {
    "tpe": {"optuna": "search"},
    "random": {"optuna": "search"},
    "gp": {"optuna": "search", "torch": "torch"},
    "asha": {"optuna": "search"},
}
"""By sampler or scheduler, the packages that it needs, and the extra of each."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting that was tried, and what came of it.

    Attributes
    ----------
    value
        Its score on the validation pairs: of a stopped one the last that it reported, of a failed
        one none.
    steps
        What it reported in the middle of its fit, by step.
    trials
        The ids of its trials, one for each seed.
    """

    number: int
    drawn: dict[str, Any]
    state: End
    value: float | None = None
    steps: dict[int, float] = field(default_factory=dict)
    trials: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0


class Proposals:
    """The settings of one search, asked for by number, in order.

    Parameters
    ----------
    space
        What may be drawn for each parameter.
    sampler
        How, and from which seed.
    concurrent
        How many are tried at a time.
    higher_is_better
        Of the scores.
    tried
        What is known already.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        sampler: Sampler,
        *,
        concurrent: int,
        higher_is_better: bool,
        tried: Sequence[Tried] = (),
    ) -> None:
        self.space, self.sampler, self.concurrent = space, sampler, concurrent
        self.direction: Literal["maximize", "minimize"] = (
            "maximize" if higher_is_better else "minimize"
        )
        self.tried = {one.number: one for one in tried}
        self.drawn = {one.number: one.drawn for one in tried}

    def ready(self, number: int) -> bool:
        """Whether all is known that setting `number` is drawn from."""
        return all(n in self.tried for n in range(number - self.concurrent + 1))

    def ask(self, number: int) -> dict[str, Any]:
        """Return setting `number`; it must be `ready`, and those before it asked for."""
        assert self.ready(number)
        if self.sampler.kind == "grid":
            drawn = of_grid(self.space, self.sampler.seed, number)
        elif self.sampler.kind == "qmc":
            drawn = of_sequence(self.space, self.sampler.seed, number)
        else:
            drawn = self._of_study(number)
        self.drawn[number] = drawn
        return drawn

    def _of_study(self, number: int) -> dict[str, Any]:
        """Let Optuna draw, knowing of the settings before what setting `number` may."""
        import optuna  # an extra, which only a search needs

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction=self.direction, sampler=self._sampler(number))
        ranges = {name: _distribution(part) for name, part in self.space.items()}
        for earlier in range(number):
            study.add_trial(self._remembered(earlier, number, ranges))
        drawn = dict(study.ask(ranges).params)
        for name, dimension in self.space.items():
            if dimension.kind == "choice":  # Optuna has the place of the choice
                drawn[name] = dimension.values[drawn[name]]
        return drawn

    def tell(self, tried: Tried) -> None:
        """Learn what came of a setting."""
        self.tried[tried.number] = tried
        self.drawn[tried.number] = tried.drawn

    def _sampler(self, number: int) -> BaseSampler:
        import optuna

        digest = hashlib.sha256(f"{self.sampler.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4]) >> 1
        if self.sampler.kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self.sampler.kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)
        return optuna.samplers.TPESampler(seed=seed)

    def _remembered(
        self, earlier: int, number: int, ranges: Mapping[str, BaseDistribution]
    ) -> FrozenTrial:
        """Return an earlier setting as the sampler may know of it when drawing `number`."""
        from optuna.trial import TrialState, create_trial

        found = self.tried.get(earlier) if earlier <= number - self.concurrent else None
        states = {
            "done": TrialState.COMPLETE,
            "stopped": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        drawn = dict(self.drawn[earlier])
        for name, dimension in self.space.items():
            if dimension.kind == "choice":
                drawn[name] = dimension.values.index(drawn[name])
        return create_trial(
            state=states[found.state] if found else TrialState.RUNNING,
            value=found.value if found and found.state == "done" else None,
            params=drawn,
            distributions=dict(ranges),
            intermediate_values=dict(found.steps) if found else {},
        )


def should_prune(
    scheduler: Scheduler,
    steps: Mapping[int, float],
    others: Iterable[Mapping[int, float]],
    *,
    higher_is_better: bool,
) -> bool:
    """Return True if successive halving stops a setting after its last step.

    The reports are replayed to Optuna's pruner (ASHA, Li et al. 2020): of the settings that reached
    a rung (`grace`, `grace` × `factor`, ...), the best of every `factor` go on.

    Parameters
    ----------
    steps
        What the setting reported, by step.
    others
        What each other setting reported, also those that ended.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if higher_is_better else "minimize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=scheduler.grace, reduction_factor=scheduler.factor
        ),
    )
    prune = False
    for reports in (*others, steps):
        trial = study.ask()
        for step in sorted(reports):
            trial.report(reports[step], step)
            prune = trial.should_prune()
    return prune


def of_grid(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Any]:
    """Return setting `number` of all that a space has, in an order drawn from the seed.

    In the order in which they are listed, a budget that is less than the grid would see one corner.
    """
    sizes = tuple(dimension.size or 0 for dimension in space.values())
    places = np.unravel_index(_order(math.prod(sizes), seed)[number], sizes)
    return {
        name: dimension.values[place] if dimension.kind == "choice" else dimension.values[0] + place
        for (name, dimension), place in zip(space.items(), map(int, places), strict=True)
    }


@lru_cache(maxsize=4)
def _order(size: int, seed: int) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    return order


def of_sequence(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Any]:
    """Return setting `number` of a scrambled Sobol sequence (Owen 1998; SciPy's)."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(space), scramble=True, rng=seed)
    if number:
        sequence.fast_forward(number)
    point = sequence.random(1)[0].tolist()
    return {
        name: _at(dimension, share)
        for (name, dimension), share in zip(space.items(), point, strict=True)
    }


def _at(dimension: Dimension, share: float) -> Any:
    """Find the value below which a `share` of a dimension lies, from 0 to less than 1."""
    if dimension.kind == "choice":
        return dimension.values[int(share * len(dimension.values))]
    low, high = dimension.values
    if dimension.kind == "int":
        return low + int(share * (high - low + 1))
    if dimension.kind == "log":
        return min(high, max(low, math.exp(math.log(low) + share * math.log(high / low))))
    return low + share * (high - low)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Describe a dimension to Optuna; choices by their place, since these may be lists."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if dimension.kind == "choice":
        return CategoricalDistribution(range(len(dimension.values)))
    low, high = dimension.values
    if dimension.kind == "int":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=dimension.kind == "log")
