"""Show sections of cells: the same ones as Markdown and in a terminal.

What a cell says is decided where a table is laid out (`tables.formatting`), how it looks here,
in `latex` and in `html`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

_HEADER = 8  # the width at which names of columns break; "mean rank" should


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell says: a text, what stands beside or below it, and whether it is the best."""

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a table: a title, the names of the columns, and rows of cells.

    The first `n_labels` columns say what a row is about; the others are numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_labels: int = 1

    @classmethod
    def of(cls, title: str, columns: Mapping[str, Sequence[Cell]], n_labels: int = 1) -> Section:
        """Return a section of columns by name."""
        return cls(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), n_labels)


def markdown(sections: Iterable[Section], notes: Iterable[str]) -> str:
    """Return Markdown: a table for each section under a heading, then the notes."""
    lines: list[str] = []
    for section in sections:
        if section.title:
            lines += [f"### {section.title}", ""]
        lines.append(_line(section.columns))
        n_numbers = len(section.columns) - section.n_labels
        lines.append(_line([*["---"] * section.n_labels, *["---:"] * n_numbers]))
        lines += [_line([_markdown_cell(cell) for cell in row]) for row in section.rows]
        lines.append("")
    lines += [f"- {_escaped(note)}" for note in notes]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return " ".join(part for part in (f"**{text}**" if cell.best else text, cell.detail) if part)


def _escaped(text: str) -> str:
    for sign in "\\|*":
        text = text.replace(sign, "\\" + sign)
    return text


def terminal(sections: Iterable[Section], notes: Iterable[str], width: int) -> RenderableType:
    """Return rich tables that fit `width`; columns that do not go below, with the labels again."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for section in sections:
        for columns in fitting(section, width):
            parts += [_rich_table(section, columns), Text()]
    parts += [Text(note, style="dim") for note in notes]
    return Group(*parts)


def _rich_table(section: Section, columns: list[int]) -> RenderableType:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=section.title or None, title_justify="left", box=box.SIMPLE_HEAD)
    shown.show_edge = shown.pad_edge = False
    for place in columns:
        name = Text(broken(section.columns[place]))
        label = place < section.n_labels
        shown.add_column(name, justify="left" if label else "right", no_wrap=not label)
    for row in section.rows:
        cells = []
        for cell in (row[place] for place in columns):
            text = Text(cell.text, style="bold" if cell.best else "")
            if cell.detail:
                text.append(f"\n{cell.detail}", style="dim not bold")
            cells.append(text)
        shown.add_row(*cells)
    return shown


def fitting(section: Section, width: int) -> Iterator[list[int]]:
    """Yield groups of columns that fit side by side, each led by the labels."""
    margin = 3  # a space on both sides of a column, and a separator
    wide = []
    for place, name in enumerate(section.columns):
        texts = [text for row in section.rows for text in (row[place].text, row[place].detail)]
        lines = [line for text in (broken(name), *texts) for line in text.split("\n")]
        wide.append(max(map(len, lines)) + margin)
    labels = [*range(section.n_labels)]
    room = width - min(sum(wide[place] for place in labels), max(width // 3, 20))
    group: list[int] = []
    used = 0
    for place in range(section.n_labels, len(wide)):
        if group and used + wide[place] > room:
            yield [*labels, *group]
            group, used = [], 0
        group.append(place)
        used += wide[place]
    yield [*labels, *group]


def broken(name: str) -> str:
    """Break a name after underscores and between words, to be no wider than what is below."""
    lines = [""]
    for piece in name.replace("_", "_\0").replace(" ", " \0").split("\0"):
        if (
            lines[-1]
            and len(lines[-1]) + len(piece.strip()) > _HEADER
            and piece.strip() not in "↑↓"
        ):
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)
