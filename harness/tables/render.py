"""Show a table: the same cells as Markdown and in a terminal.

What a cell says is decided once (`_sections`), how it looks twice. A cell holds the mean, its
interval, the rank, and a sign where the floor is missed; the digits of a column follow from its
intervals, so that they say what the data can tell and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.tables.footer import BASELINE_SIGN, CEILING_SIGN, FLOOR_SIGN, block_title
from harness.tables.reduction import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from harness.tables.table import Table

UNDEFINED = "—"
_HEADER = 8  # the width at which names of columns break; "mean rank" should
ARROWS = {True: " ↑", False: " ↓", None: ""}
_SIGNS = {"ceiling": CEILING_SIGN, "baseline": BASELINE_SIGN}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell says: a text, what stands beside or below it, and whether it is the best."""

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One dataset and split: a title, the names of the columns, and rows of cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def markdown(table: Table) -> str:
    """Return Markdown: a table for each dataset and split under a heading, then the footer."""
    return sections_as_markdown(_sections(table), table.notes)


def sections_as_markdown(sections: Iterable[Section], notes: Iterable[str]) -> str:
    """Return Markdown: a table for each section under a heading, then the notes."""
    lines: list[str] = []
    for section in sections:
        if section.title:
            lines += [f"### {section.title}", ""]
        lines.append(_line(section.columns))
        lines.append(_line(["---", *["---:"] * (len(section.columns) - 1)]))
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


def terminal(table: Table, width: int) -> RenderableType:
    """Return rich tables that fit `width`; metrics that do not go below, with the models again."""
    return sections_in_terminal(_sections(table), table.notes, width)


def sections_in_terminal(
    sections: Iterable[Section], notes: Iterable[str], width: int
) -> RenderableType:
    """Return rich tables that fit `width`; columns that do not go below, with the first again."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for section in sections:
        for columns in _fitting(section, width):
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
        name = Text(_broken(section.columns[place]))
        shown.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in section.rows:
        shown.add_row(*(_rich_cell(row[place]) for place in columns))
    return shown


def _rich_cell(cell: Cell) -> Any:
    from rich.text import Text

    text = Text(cell.text, style="bold" if cell.best else "")
    return text.append(f"\n{cell.detail}", style="dim not bold") if cell.detail else text


def _fitting(section: Section, width: int) -> Iterator[list[int]]:
    """Yield groups of columns that fit side by side, each led by the model's column."""
    margin = 3  # a space on both sides of a column, and a separator
    wide = [_width(section, place) + margin for place in range(len(section.columns))]
    room = width - min(wide[0], max(width // 3, 20))
    group: list[int] = []
    used = 0
    for place in range(1, len(wide)):
        if group and used + wide[place] > room:
            yield [0, *group]
            group, used = [], 0
        group.append(place)
        used += wide[place]
    yield [0, *group]


def _width(section: Section, place: int) -> int:
    texts = [_broken(section.columns[place])]
    texts += [part for row in section.rows for part in (row[place].text, row[place].detail)]
    return max(len(line) for text in texts for line in text.split("\n"))


def _broken(name: str) -> str:
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


# --- what the cells say -------------------------------------------------------------------------


def _sections(table: Table) -> Iterator[Section]:
    frame = table.frame
    names = [name for name in BLOCK if name in frame]
    if not names:
        return
    for key, part in frame.groupby(names, sort=False):
        version = part["dataset_version"].iloc[0] if "dataset_version" in part else None
        yield _section(table, part, block_title([str(value) for value in key], version))


def _section(table: Table, part: pd.DataFrame, title: str) -> Section:
    most = int(part["n_pairs"].max())
    columns = {"model": [Cell(_model(row, most)) for row in part.to_dict("records")]}
    ranked = part[part["role"] != "ceiling"]
    if part["combined"].notna().any():
        best = max(ranked["combined"].max(), 1e-12)  # nobody is best at not beating the baseline
        columns["combined ↑"] = _estimates(part, "combined", part["combined"] >= best)
    if part["mean_rank"].notna().any():
        columns["mean rank ↓"] = _mean_ranks(part["mean_rank"])
    for scale in table.scales:
        first = (part[f"{scale.name}_rank"] == 1).fillna(value=False)
        name = scale.name + ARROWS[scale.higher_is_better]
        columns[name] = _estimates(part, scale.name, first)
    return Section(title, tuple(columns), tuple(zip(*columns.values(), strict=True)))


def _mean_ranks(ranks: pd.Series[float]) -> list[Cell]:
    texts = (UNDEFINED if math.isnan(rank) else f"{rank:.2f}" for rank in ranks)
    best = ranks.min()
    return [
        Cell(text.removesuffix(".00"), best=rank == best)
        for text, rank in zip(texts, ranks, strict=True)
    ]


def _model(row: Mapping[Any, Any], most_pairs: int) -> str:
    sign = _SIGNS.get(row["role"], "")
    parts = [row["model"], sign, row["setting"]]
    if row["n_pairs"] < most_pairs:
        parts.append(f"({row['n_pairs']} of {most_pairs} pairs)")
    return " ".join(part for part in parts if part)


def _estimates(part: pd.DataFrame, name: str, best: pd.Series[bool]) -> list[Cell]:
    """Return a column's cells: mean, rank and floor in the text, the interval as the detail."""
    low, high = part[f"{name}_low"].to_numpy(), part[f"{name}_high"].to_numpy()
    means = part[name].to_numpy()
    digits = decimals(means, low, high)
    ranks = part.get(f"{name}_rank", pd.Series([pd.NA] * len(part)))
    missed = (name in str(names).split() for names in part["floors_missed"])
    cells = []
    for mean, a, b, rank, miss, first in zip(means, low, high, ranks, missed, best, strict=True):
        if math.isnan(mean):
            cells.append(Cell(UNDEFINED))
            continue
        signs = [f"{mean:.{digits}f}"]
        signs += [] if pd.isna(rank) else [f"#{rank}"]
        signs += [FLOOR_SIGN] if miss else []
        detail = "" if math.isnan(a) else f"[{a:.{digits}f}, {b:.{digits}f}]"
        cells.append(Cell(" ".join(signs), detail, bool(first)))
    return cells


def decimals(means: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
    """Return how many decimals show two digits of a typical interval's half, 2 to 5 of them."""
    halves = (high - low) / 2
    halves = halves[np.isfinite(halves) & (halves > 0)]
    if len(halves) == 0:
        halves = np.abs(means[np.isfinite(means) & (means != 0)]) / 100
    typical = float(np.median(halves)) if len(halves) else 0.01
    return int(np.clip(1 - math.floor(math.log10(typical)), 2, 5))
