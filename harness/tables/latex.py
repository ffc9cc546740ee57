r"""Tables for a paper: LaTeX with the rules of booktabs, and nothing else to load.

A section is a float; the footer stands below the last one, since it speaks of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.tables.render import Cell, Section
    from harness.tables.table import Table

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
    "τ": r"$\tau$",
    "χ": r"$\chi$",
    "²": r"$^2$",
    "★": r"$\star$",
}


def latex(table: Table) -> str:
    """Return a float for each section, the notes below the last."""
    sections = table.sections
    lines = ["% Needs \\usepackage{booktabs}."]
    for place, section in enumerate(sections):
        last = place == len(sections) - 1
        lines += _float(section, table.title, table.notes if last else ())
    if not sections:
        lines += [_escaped(note) + r"\par" for note in table.notes]
    return "\n".join(lines) + "\n"


def _float(section: Section, title: str, notes: Sequence[str]) -> list[str]:
    n_numbers = len(section.columns) - section.n_labels
    caption = f"{title}: {section.title}" if section.title else title
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * section.n_labels}{'r' * n_numbers}}}",
        r"\toprule",
        _line([_escaped(name) for name in section.columns]),
        r"\midrule",
        *(_line([_cell(cell) for cell in row]) for row in section.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes:
        lines += [r"\par\smallskip\raggedright\footnotesize"]
        lines += [_escaped(note) + r"\par" for note in notes]
    return [*lines, r"\end{table}"]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    bold = rf"\textbf{{{text}}}" if cell.best else text
    return rf"{bold} {{\scriptsize {_escaped(cell.detail)}}}" if cell.detail else bold


def _escaped(text: str) -> str:
    return "".join(_SIGNS.get(sign, sign) for sign in text)
