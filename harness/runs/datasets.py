"""The screens of a job as stores on this machine: found, converted or simulated once.

A job names datasets; trials need stores. Cards are converted, and simulated screens drawn, into
the cache the first time that they are asked for, under a name that says which card and which
source file they came from: an edited card is another store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data import find_or_make
from harness.jobs import Prepared, Screen, SplitChoice
from harness.storage import canonical
from harness.tasks import n_folds, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable

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
    splits: dict[str, SplitChoice] = {}
    for name, declared in card.get("splits", {}).items():
        spec = parse_split(declared, f"{dataset}: splits.{name}")
        text = canonical(spec.model_dump(mode="json"))
        splits[name] = SplitChoice(text, n_folds(spec, store.pairs))
    screen = Screen(int(card.get("version", 1)), store.fingerprint, splits)
    return Prepared(store.path, screen)
