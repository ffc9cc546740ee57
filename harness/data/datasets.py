"""The store of a dataset: found, converted or simulated once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from harness.data.cards import read_card, source_file
from harness.data.dataset_names import is_store_path, parse_simulated
from harness.data.simulation.screens import simulated_store
from harness.data.store import Store, open_store
from harness.storage import canonical, paths, text_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Progress = Callable[[str, int, int], None]


def find_or_make(dataset: str, progress: Progress | None) -> tuple[Store, Mapping[str, Any]]:
    """Return the store and the card whose splits count.

    For a dataset with a card that is the card as it is now, not as it was at conversion.
    """
    report: Progress = progress or (lambda *_: None)
    folder = paths.cache_folder() / "stores"
    if is_store_path(dataset):
        store = open_store(dataset)
        return store, store.card
    if parse_simulated(dataset) is not None:
        store = simulated_store(dataset, folder, progress=partial(report, dataset))
        return store, store.card
    card = read_card(dataset)
    # Without splits: they are read from the card, and another split is no other store.
    content = card.model_dump(mode="json", exclude={"splits", "title"})
    key = text_digest(canonical(content), 8)
    target = folder / f"{card.name}-{card.version}-{key}.zarr"
    if not target.exists():
        # loads Dask and AnnData; a warm start needs neither
        from harness.data.conversion import convert

        def of_stage(stage: str, done: int, total: int) -> None:
            report(f"{dataset}, {stage}", done, total)

        folder.mkdir(parents=True, exist_ok=True)
        convert(source_file(card), target, card, progress=of_stage)
    return open_store(target), card.model_dump(mode="json")
