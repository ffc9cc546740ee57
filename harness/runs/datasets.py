"""The screens of a job as stores on this machine: found, converted or simulated once.

A job names datasets; trials need stores. Cards are converted, and simulated screens drawn, into
the cache the first time that they are asked for, under a name that says which card and which
source file they came from: an edited card is another store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.data import find_or_make
from harness.jobs import Prepared, Screen, SplitChoice
from harness.storage import canonical
from harness.tasks import n_folds, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.data import Store

    Progress = Callable[[str, int, int], None]


def prepare(dataset: str, progress: Progress | None = None) -> Prepared:
    """Return a dataset as a store, making it first where it is not there yet.

    Parameters
    ----------
    dataset
        A card's name, ``sim:PRESET?seed=1``, or the path of a store.
    progress
        Called with the dataset, cells done and cells in all while a store is made.

    Raises
    ------
    CardError
        The card's file is nowhere to be found; says where to get it.
    DataError
        The file does not fit its card.
    """
    store, card = find_or_make(dataset, progress)
    splits = {
        name: _choice(store, declared, f"{dataset}: splits.{name}")
        for name, declared in card.get("splits", {}).items()
    }
    screen = Screen(int(card.get("version", 1)), store.fingerprint, splits)
    return Prepared(store.path, screen)


def _choice(store: Store, declared: Mapping[str, Any], where: str) -> SplitChoice:
    spec = parse_split(declared, where)
    return SplitChoice(canonical(spec.model_dump(mode="json")), n_folds(spec, store.pairs))
