"""Tables for a paper: what LaTeX reads, what fits a column of text, and that it compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.analysis.tables.table import Table
from harness.analysis.tables.text import Cell, Section

SIGNS = re.compile(r"[^\x00-\x7f]")
ALL_SIGNS = "\\ & % $ # _ { } ~ ^ < > ↑ ↓ → † ‡ ✗ × ≈ ≤ ≥ ± − — – … ² ★ ∞ ⚠ τ χ β µ Δ"


def table(*sections: Section, notes: tuple[str, ...] = ("A note.",)) -> Table:
    frame = pd.DataFrame({"model": ["any"] * len(sections)})
    return Table("comparison", "vcc2025", (), frame, notes, lambda _: sections)


def section(n_columns: int, n_rows: int, *, detail: str = "[0.001, 0.999]") -> Section:
    columns = {"model": [Cell(f"model-{row}") for row in range(n_rows)]}
    for place in range(n_columns):
        name = f"some_long_metric_{place} ↑"
        columns[name] = [Cell(f"{row}.{place:03}", detail) for row in range(n_rows)]
    return Section.of("screen v1", columns)


def compiled(text: str, folder: Path) -> str:
    """Compile tables with booktabs alone; return what LaTeX said."""
    file = folder / "paper.tex"
    file.write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        + text.replace("\\end{table}", "\\end{table}\\clearpage")
        + "\\end{document}\n",
        encoding="utf-8",
    )
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name]
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    return ran.stdout


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed: nothing is compiled"
)


def test_every_sign_that_tables_use_is_one_that_latex_knows() -> None:
    sources = Path(__file__).parents[2].glob("harness/analysis/tables/*.py")
    used = {sign for source in sources for sign in SIGNS.findall(source.read_text("utf-8"))}
    assert {"∞", "⚠"} <= used
    text = table(Section.of("".join(used), {"a": [Cell("b")]})).to_latex()
    assert text.isascii(), SIGNS.findall(text)


def test_what_is_below_a_number_stands_on_a_line_of_its_own() -> None:
    rows = table(section(1, 2)).to_latex().splitlines()
    at = rows.index(r"model-0 & 0.000 \\")
    assert rows[at + 1] == r" & {\scriptsize [0.001, 0.999]} \\"
    assert rows[at + 2] == r"model-1 & 1.000 \\"


def test_rows_without_anything_below_take_one_line() -> None:
    rows = table(section(1, 2, detail="")).to_latex().splitlines()
    assert rows[rows.index(r"model-0 & 0.000 \\") + 1] == r"model-1 & 1.000 \\"


@pytest.mark.parametrize(("n_columns", "n_rows"), [(1, 3), (12, 3), (3, 90), (14, 70)])
def test_what_does_not_fit_goes_on_below_and_nothing_is_lost(n_columns: int, n_rows: int) -> None:
    text = table(section(n_columns, n_rows)).to_latex()
    numbers = re.findall(r"\b\d+\.\d{3}(?= |\\)", re.sub(r"\[[^\]]*\]", "", text))
    wanted = {f"{row}.{place:03}" for row in range(n_rows) for place in range(n_columns)}
    assert sorted(numbers) == sorted(wanted)
    assert text.count(r"\begin{tabular}{l") == text.count("\\toprule") == text.count("\\bottomrule")
    captions = re.findall(r"\\caption\{(.*)\}", text)
    several = len(captions) > 1
    assert captions[-1].endswith(f"({len(captions)} of {len(captions)})") == several
    assert text.count("A note.") == 1


def test_notes_that_a_float_has_no_room_for_get_one_of_their_own() -> None:
    notes = tuple("long " * 40 for _ in range(15))
    text = table(section(2, 15), notes=notes).to_latex()
    *_, last = text.split(r"\begin{table}")
    assert r"\begin{tabular}" not in last
    assert last.count("long") == 600


def test_a_table_without_sections_still_says_its_notes() -> None:
    assert "A note." in table().to_latex()


@needs_latex
@pytest.mark.parametrize(("n_columns", "n_rows"), [(1, 3), (12, 3), (3, 90), (14, 70)])
def test_it_compiles_and_fits_the_page(n_columns: int, n_rows: int, tmp_path: Path) -> None:
    said = compiled(
        table(section(n_columns, n_rows), notes=("word " * 60,) * 6).to_latex(), tmp_path
    )
    assert "Overfull" not in said
    assert "Float too large" not in said


@needs_latex
def test_every_sign_compiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = [Cell(sign, str(rng.integers(9)), best=True) for sign in ALL_SIGNS.split()]
    compiled(table(Section.of("TGFβ & é", {"sign": cells})).to_latex(), tmp_path)
