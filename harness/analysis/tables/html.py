"""Tables as HTML: a fragment to put into a page, and a page of its own that needs no network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.analysis.tables.text import Cell, Section

_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 2rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .5rem; }
th, td { padding: .25rem .75rem; text-align: right; vertical-align: top; }
thead th { border-bottom: 1px solid; }
th.label, td.label { text-align: left; font-weight: 400; }
thead th.label { font-weight: 600; }
small { display: block; opacity: .7; white-space: nowrap; }
.notes { font-size: 13px; opacity: .85; }
"""


def page(title: str, sections: Iterable[Section], notes: Iterable[str]) -> str:
    """Return a whole document with the table."""
    title = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{fragment(sections, notes)}</body>\n</html>\n"
    )


def fragment(sections: Iterable[Section], notes: Iterable[str]) -> str:
    """Return a table for each section, then the notes as a list."""
    lines = [line for section in sections for line in _table(section)]
    lines += ['<ul class="notes">', *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _table(section: Section) -> Iterator[str]:
    yield '<div class="scroll"><table>'
    if section.title:
        yield f"<caption>{escape(section.title)}</caption>"
    names = (
        f'<th scope="col"{_label(place, section)}>{escape(name)}</th>'
        for place, name in enumerate(section.columns)
    )
    yield f"<thead><tr>{''.join(names)}</tr></thead>"
    yield "<tbody>"
    for row in section.rows:
        yield f"<tr>{''.join(_cell(cell, at, section) for at, cell in enumerate(row))}</tr>"
    yield "</tbody></table></div>"


def _cell(cell: Cell, place: int, section: Section) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text)
    detail = f" <small>{escape(cell.detail)}</small>" if cell.detail else ""
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    return f"<{tag}{scope}{_label(place, section)}>{text}{detail}</{tag}>"


def _label(place: int, section: Section) -> str:
    return ' class="label"' if place < section.n_labels else ""
