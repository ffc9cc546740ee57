"""A table as a value: numbers unrounded, their layout, and what must be said beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderableType

    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.text import Section

Format = Literal["text", "markdown", "latex", "csv", "html"]


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of table by one suite.

    Attributes
    ----------
    kind
        What the table is of, as ``harness table --kind`` calls it.
    suite
        By which the scores were made; several joined by commas where the table compares suites.
    scales
        The metrics, in the order of their columns.
    frame
        All numbers, unrounded; the function that makes a kind says which columns.
    notes
        The footer, a sentence or more each.
    layout
        Gives the sections that `frame` is shown as.
    level
        The share that an interval holds.
    named
        Whether the titles of sections say the suite: it stands beside tables of others.
    """

    kind: str
    suite: str
    scales: tuple[Scale, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...]
    layout: Callable[[Table], Iterable[Section]]
    level: float = 0.95
    named: bool = False

    @property
    def sections(self) -> tuple[Section, ...]:
        """What is shown: cells under names of columns, usually one section a dataset and split."""
        found = tuple(self.layout(self)) if len(self.frame) else ()
        if not self.named:
            return found
        titles = (", ".join(filter(None, (one.title, self.suite))) for one in found)
        return tuple(replace(one, title=t) for one, t in zip(found, titles, strict=True))

    @property
    def title(self) -> str:
        """What a heading says: the kind and the suite."""
        return f"{self.kind.capitalize()}, suite {self.suite}"

    def to_markdown(self) -> str:
        """Return GitHub-flavoured Markdown, a table for each section, then the footer."""
        from harness.analysis.tables.text import markdown

        return markdown(self.sections, self.notes)

    def to_latex(self) -> str:
        """Return LaTeX with the rules of booktabs, a float for each section, then the footer."""
        from harness.analysis.tables.latex import latex

        return latex(self.title, self.sections, self.notes)

    def to_html(self) -> str:
        """Return a page of its own; `harness.analysis.tables.html.fragment` gives what is in it."""
        from harness.analysis.tables.html import page

        return page(self.title, self.sections, self.notes)

    def to_csv(self) -> str:
        """Return all columns of `frame`, unrounded."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def to_rich(self, width: int = 110) -> RenderableType:
        """Return what a terminal of `width` columns can show."""
        from harness.analysis.tables.text import terminal

        return terminal(self.sections, self.notes, width)

    def to(self, form: Format) -> str:
        """Return the table as text in one of the written forms."""
        written = {
            "markdown": self.to_markdown,
            "latex": self.to_latex,
            "csv": self.to_csv,
            "html": self.to_html,
        }
        return written[form]()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Render at the console's width, so that a table can be printed as it is."""
        yield self.to_rich(options.max_width)


def side_by_side(tables: Iterable[Table]) -> tuple[Table, ...]:
    """Return tables as they are; each says its suite where there are several suites."""
    found = tuple(tables)
    several = len({table.suite for table in found}) > 1
    return tuple(replace(table, named=several) for table in found)
