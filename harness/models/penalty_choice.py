"""A penalty that is chosen while a model is fitted, by what it says of perturbations left out.

The genes that are perturbed in training are dealt to five folds, fewer where there are fewer genes,
in an order that depends on their names alone. For each fold a model sees no perturbation that has a
gene of the fold, in any context, and predicts those that have no other gene. So nothing of what is
predicted is left in, and of a combination across folds nothing is said. The penalty of a grid with
the least squared error of profiles, summed over all predicted pairs, is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from harness.models.base import NonNegative
from harness.models.effects import parts_of
from harness.tasks import ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.tasks import Pair, TrainView

    Errors = Callable[[TrainView, Sequence[Pair]], np.ndarray]
    """Returns the squared error at each penalty of a model that is fitted to a view, summed over
    the pairs, which the view lacks; up to a constant."""

Penalty = NonNegative | Literal["validation"]
"""A number, or the word for one that is chosen by leaving training perturbations out."""

FOLDS = 5


class Choice(NamedTuple):
    """A penalty, and the sentence that says where it is from; no sentence for a declared one."""

    penalty: float
    note: str

    @property
    def notes(self) -> list[str]:
        """What the predictions of a model begin to be noted with."""
        return [self.note] if self.note else []


def chosen(
    name: str, grid: np.ndarray, train: TrainView, errors: Errors, default: Callable[[], float]
) -> Choice:
    """Return the penalty of a grid that predicts left-out perturbations best.

    Parameters
    ----------
    name
        What the parameter is called in the note.
    grid
        (n_penalties,) to choose from; the first of equal ones is taken.
    train
        What may be learned from.
    errors
        Returns (n_penalties,) for a view and the pairs that it lacks.
    default
        Returns the penalty that is used where no prediction depends on it: fewer than two
        perturbations, or none that anything is known of once it is left out.
    """
    total = np.zeros(len(grid))
    for view, pairs in left_out(train):
        total += errors(view, pairs)
    best = int(np.argmin(total))
    if total.max() > total[best]:
        penalty = float(grid[best])
        how = "was chosen by leaving training perturbations out"
        end = ", the largest that was tried" if best == len(grid) - 1 else ""
        return Choice(penalty, f"{name} {penalty:.4g} {how}{end}")
    penalty = default()
    why = "no training perturbation can be left out and predicted from the others"
    return Choice(penalty, f"{name} {penalty:.4g} is used, the default: {why}")


def left_out(train: TrainView) -> Iterator[tuple[TrainView, tuple[Pair, ...]]]:
    """Yield for each fold a view without its perturbations, and the pairs to predict from it."""
    genes_of = {name: frozenset(parts_of(name, train)) for name in train.perturbations}
    genes = ordered(frozenset().union(*genes_of.values()), 0, "penalty")
    n_folds = min(FOLDS, len(genes))
    for fold in range(n_folds):
        held = frozenset(genes[fold::n_folds])
        hidden = [name for name, parts in genes_of.items() if parts & held]
        pairs = tuple(pair for pair in train.pairs if genes_of[pair.perturbation] <= held)
        if pairs and len(hidden) < len(genes_of):
            yield train.without(hidden), pairs
