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
        by_number = {"grid": of_grid, "qmc": of_sequence}
        if self.sampler.kind in by_number:
            named = by_number[self.sampler.kind](self.space, self.sampler.seed, number)
        else:
            named = self._of_study(number)
        self.drawn[number] = named
        return named

    def _of_study(self, number: int) -> dict[str, Any]:
        """Return what Optuna draws, knowing of the settings before what setting `number` may."""
        import optuna  # an extra, which only a search needs

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction=self.direction, sampler=self._sampler(number))
        ranges = {name: _distribution(part) for name, part in self.space.items()}
        for earlier in range(number):
            study.add_trial(self._remembered(earlier, number, ranges))
        drawn = study.ask(ranges).params
        return {name: _named(self.space[name], value) for name, value in drawn.items()}

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
        drawn = self.drawn[earlier]
        return create_trial(
            state=states[found.state] if found else TrialState.RUNNING,
            value=found.value if found and found.state == "done" else None,
            params={name: _internal(self.space[name], value) for name, value in drawn.items()},
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
    place, setting = _order(math.prod(sizes), seed)[number], {}
    for name, size in reversed([*zip(space, sizes, strict=True)]):
        place, at = divmod(place, size)
        dimension = space[name]
        setting[name] = (
            dimension.values[at] if dimension.kind == "choice" else dimension.values[0] + at
        )
    return {name: setting[name] for name in space}


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
    """Return the value below which a `share` of a dimension lies, from 0 to less than 1."""
    if dimension.kind == "choice":
        return dimension.values[int(share * len(dimension.values))]
    low, high = dimension.values
    if dimension.kind == "int":
        return low + int(share * (high - low + 1))
    if dimension.kind == "log":
        return min(high, max(low, math.exp(math.log(low) + share * math.log(high / low))))
    return low + share * (high - low)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension in Optuna's words; choices by their place, since these may be lists."""
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


def _named(dimension: Dimension, value: Any) -> Any:
    return dimension.values[value] if dimension.kind == "choice" else value


def _internal(dimension: Dimension, value: Any) -> Any:
    return dimension.values.index(value) if dimension.kind == "choice" else value
