"""`harness fetch`: a dataset's file into the cache."""

from __future__ import annotations

from harness.cli.console import Bars, out
from harness.data import Progress, fetch, read_card


def fetch_(card: str) -> int:
    """Download a dataset's file into the cache; an interrupted download goes on where it stopped.

    Parameters
    ----------
    card
        The dataset's name, or its card's file.
    """
    described = read_card(card)
    with Bars() as bars:

        def report(progress: Progress) -> None:
            bars.update(
                f"{progress.stage} {described.source.file}",
                progress.done,
                progress.total or described.source.size or progress.done,
                "bytes",
            )

        path = fetch(described, report)
    out().print(str(path), markup=False)
    return 0
