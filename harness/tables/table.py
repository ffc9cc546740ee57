"""A comparative table as a value: numbers unrounded, and what must be said beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType

    from harness.tables.estimates import Scale


@dataclass(frozen=True, slots=True)
class Table:
    """One row per dataset, split, model and setting.

    Attributes
    ----------
    suite
        By which the scores were made.
    scales
        The metrics, in the order of their columns.
    frame
        Columns ``dataset``, ``dataset_version``, ``split``, ``controls``; ``model``, ``setting``
        (the factors that vary), ``role`` (``ceiling``, ``baseline`` or empty), the other factors;
        ``n_trials``, ``n_pairs``; ``combined``, ``combined_low``, ``combined_high``,
        ``floors_missed`` (names), ``mean_rank``; for each metric its mean under its own name and
        ``_low``, ``_high``, ``_rank``, ``_pairs`` (with a defined score). Rows of one dataset and
        split stand together, in the order of the table.
    notes
        The footer, a sentence or more each.
    level
        The share that an interval holds.
    """

    suite: str
    scales: tuple[Scale, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...]
    level: float = 0.95

    def to_markdown(self) -> str:
        """Return GitHub-flavoured Markdown, one table per dataset and split, with the footer."""
        from harness.tables.render import markdown

        return markdown(self)

    def to_csv(self) -> str:
        """Return all columns of `frame`, unrounded."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def to_rich(self, width: int = 110) -> RenderableType:
        """Return what a terminal of `width` columns can show."""
        from harness.tables.render import terminal

        return terminal(self, width)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Render at the console's width, so that a table can be printed as it is."""
        yield self.to_rich(options.max_width)
