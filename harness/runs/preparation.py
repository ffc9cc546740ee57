"""The screens of a job as stores on this machine: found, converted or simulated once.

A job names datasets; trials need stores. Cards are converted, and simulated screens drawn, into
the cache the first time that they are asked for, under a name that says which card and which
source file they came from: an edited card is another store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.data.cards import read_card, source_file
from harness.data.dataset_names import is_store_path, parse_simulated
from harness.data.simulation.screens import (
    presets,
    simulated_card,
    simulated_store,
    simulation_options,
)
from harness.data.store import Store, open_store
from harness.jobs.checks import Known
from harness.jobs.expansion import Screen, SplitChoice
from harness.jobs.specs import canonical
from harness.metrics.suites import suites
from harness.models.known_models import broken, parameters_of, registered
from harness.storage import paths
from harness.tasks.splits import n_folds, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.data.cards import Card

    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that trials can be made of: where its store is, and what identifies it."""

    store: str
    screen: Screen


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
    store, card = _find_or_make(dataset, progress)
    splits = {
        name: _choice(store, declared, f"{dataset}: splits.{name}")
        for name, declared in card.get("splits", {}).items()
    }
    screen = Screen(int(card.get("version", 1)), store.fingerprint, splits)
    return Prepared(store.path, screen)


def _choice(store: Store, declared: Mapping[str, Any], where: str) -> SplitChoice:
    spec = parse_split(declared, where)
    return SplitChoice(canonical(spec.model_dump(mode="json")), n_folds(spec, store.pairs))


def _find_or_make(dataset: str, progress: Progress | None) -> tuple[Store, Mapping[str, Any]]:
    """Return the store and the card whose splits count.

    For a dataset with a card that is the card as it is now, not as it was at conversion.
    """
    report = None if progress is None else partial(progress, dataset)
    folder = paths.cache_folder() / "stores"
    if is_store_path(dataset):
        store = open_store(dataset)
        return store, store.card
    if parse_simulated(dataset) is not None:
        store = simulated_store(dataset, folder, progress=report)
        return store, store.card
    card = read_card(dataset)
    target = folder / f"{card.name}-{card.version}-{_card_key(card)}.zarr"
    if not target.exists():
        from harness.data.conversion import (
            convert,  # loads Dask and AnnData; a warm start needs neither
        )

        folder.mkdir(parents=True, exist_ok=True)
        convert(source_file(card), target, card, progress=_of_stage(dataset, progress))
    return open_store(target), card.model_dump(mode="json")


def _of_stage(dataset: str, progress: Progress | None) -> Callable[[str, int, int], None] | None:
    """Return a report of conversion, whose stages come one after the other."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{dataset}, {stage}", done, total)


def _card_key(card: Card) -> str:
    """Return what tells this card and its source from an edited one: eight hexadecimal digits.

    Splits are left out: they are read from the card, and another split is no other store.
    """
    content = card.model_dump(mode="json", exclude={"splits", "title"})
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:8]


def known_names() -> Known:
    """Return what a job may name."""
    models = registered()
    return Known(
        models=tuple(models),
        suites=tuple(suites()),
        datasets=(*paths.declarations("datasets"), *(f"sim:{name}" for name in presets())),
        splits_of=_splits_of,
        parameters_of=parameters_of,
        broken={name: str(problems[0]) for name, problems in broken().items()},
        simulation_options=simulation_options(),
        metrics={
            name: {metric.name: metric.higher_is_better for metric in suite.members()}
            for name, suite in suites().items()
        },
    )


def _splits_of(dataset: str) -> tuple[str, ...]:
    if is_store_path(dataset):
        return tuple(open_store(dataset).card.get("splits", {}))
    if parse_simulated(dataset) is not None:
        return tuple(simulated_card(dataset)["splits"])
    return tuple(read_card(dataset).splits)
