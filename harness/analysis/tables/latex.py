r"""Tables for a paper: LaTeX with the rules of booktabs, and nothing else to load.

A section is a float, or several where it is wider than the text or longer than a page; the footer
stands below the last one, since it speaks of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.analysis.tables.text import broken, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.analysis.tables.text import Cell, Section

_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "✗": r"$\times$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "−": "$-$",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "²": r"$^2$",
    "★": r"$\star$",
    "∞": r"$\infty$",
    "⚠": r"$\triangle$",
}
_LETTERS = {
    "αβγδεζηθικλµμνξπρστυφχψω": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda "
    "mu mu nu xi pi rho sigma tau upsilon phi chi psi omega",
    "ΓΔΘΛΞΠΣΦΨΩ": "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega",
}
"""Perturbations have Greek names, such as TGFβ."""

_SIGNS |= {
    sign: rf"$\{name}$"
    for signs, names in _LETTERS.items()
    for sign, name in zip(signs, names.split(), strict=True)
}

_BEGIN, _END = r"\begin{table}[htbp]", r"\end{table}"

WIDTH = 88
"""How many signs of small print fit side by side in a column of text, 345 pt in ``article``."""

MOST_LINES = 42
"""How many lines a float has at most, to fit a page of ``article`` with its caption."""

NOTE_WIDTH = 110
"""How many signs of a note fit a line."""


def latex(title: str, sections: Iterable[Section], notes: Sequence[str]) -> str:
    """Return a float for each section, or several; the notes below the last."""
    floats = [one for section in sections for one in _floats(section, title)]
    lines = ["% Needs \\usepackage{booktabs}."]
    for place, (caption, parts) in enumerate(floats):
        n_lines = sum(1 + len(note) // NOTE_WIDTH for note in notes)
        room = sum(part.n_lines for part in parts) + n_lines <= MOST_LINES
        last = place == len(floats) - 1 and room
        lines += [*_float(caption, parts), *(_notes(notes) if last else ()), _END]
    if not floats:
        lines += _notes(notes)
    elif not last:
        lines += [_BEGIN, *_notes(notes), _END]
    return "\n".join(lines) + "\n"


def _notes(notes: Sequence[str]) -> list[str]:
    lines = [_escaped(note) + r"\par" for note in notes]
    return [r"\par\smallskip\raggedright\footnotesize", *lines]


@dataclass(frozen=True, slots=True)
class _Part:
    """As much of a section as one tabular shows."""

    columns: Sequence[str]
    n_labels: int
    rows: Sequence[Sequence[Cell]]

    @property
    def n_lines(self) -> int:
        """How many lines it takes, rules and space counted in."""
        heads = 2 + max(broken(name).count("\n") + 1 for name in self.columns)
        return heads + sum(1 + any(cell.detail for cell in row) for row in self.rows)


def _floats(section: Section, title: str) -> Iterator[tuple[str, list[_Part]]]:
    """Yield captions and what stands one below the other in a float, as much as a page holds."""
    caption = f"{title}: {section.title}" if section.title else title
    floats: list[list[_Part]] = [[]]
    for part in _parts(section):
        used = sum(one.n_lines for one in floats[-1])
        if floats[-1] and used + part.n_lines > MOST_LINES:
            floats.append([])
        floats[-1].append(part)
    for number, parts in enumerate(floats, 1):
        yield caption + (f" ({number} of {len(floats)})" if len(floats) > 1 else ""), parts


def _parts(section: Section) -> Iterator[_Part]:
    """Yield columns side by side that fit the text, of as many rows as fit a page."""
    for places in fitting(section, WIDTH):
        columns = [section.columns[place] for place in places]
        rows = [[row[place] for place in places] for row in section.rows]
        step = (MOST_LINES - 6) // (2 if any(cell.detail for row in rows for cell in row) else 1)
        for start in range(0, max(len(rows), 1), step):
            yield _Part(columns, section.n_labels, rows[start : start + step])


def _float(caption: str, parts: Sequence[_Part]) -> list[str]:
    """Return a float, but for its end."""
    lines = [_BEGIN, r"\centering\small", rf"\caption{{{_escaped(caption)}}}"]
    for place, part in enumerate(parts):
        lines += [r"\par\medskip"] if place else []
        lines += _tabular(part)
    return lines


def _tabular(part: _Part) -> list[str]:
    n_numbers = len(part.columns) - part.n_labels
    sides = "l" * part.n_labels + "r" * n_numbers
    return [
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        _line([_head(name, side) for name, side in zip(part.columns, sides, strict=True)]),
        r"\midrule",
        *(line for row in part.rows for line in _row(row)),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _head(name: str, side: str) -> str:
    """Return a column's name, broken into lines as in a terminal."""
    lines = [_escaped(line) for line in broken(name).split("\n")]
    if len(lines) == 1:
        return lines[0]
    broken_lines = r"\\".join(lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{broken_lines}\end{{tabular}}"


def _row(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield a row's line, and one in small print below where cells have details."""
    texts = [_escaped(cell.text) for cell in cells]
    bold = [rf"\textbf{{{t}}}" if cell.best else t for t, cell in zip(texts, cells, strict=True)]
    yield _line(bold)
    if any(cell.detail for cell in cells):
        yield _line(
            [rf"{{\scriptsize {_escaped(cell.detail)}}}" if cell.detail else "" for cell in cells]
        )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_SIGNS.get(sign, sign) for sign in text)
