"""How a comparison is shown: Markdown, CSV, LaTeX, HTML and a terminal."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pandas as pd
from rich.console import Console

from harness.analysis.results import Results
from harness.analysis.tables import compare, compare_suites, per_pair, write_tables
from tests.tabled import FEW, HAND, MAE, results_of

if TYPE_CHECKING:
    from pathlib import Path

    from harness.analysis.tables import Table


# --- how it is shown ----------------------------------------------------------------------------

MARKDOWN = """\
### toy, halves

| model | combined ↑ | mean rank ↓ | overlap_at_N ↑ | mae ↓ | discrimination_score_l1 ↑ |
| --- | ---: | ---: | ---: | ---: | ---: |
| linear | **0.292** [0.278, 0.310] | **1.33** | **0.50 #1** [0.40, 0.60] \
| **0.150 #1** [0.100, 0.200] | 0.50 #2 ✗ [0.40, 0.60] |
| mean ‡ | 0.000 [0.000, 0.000] | 1.67 | 0.20 #2 [0.10, 0.30] | 0.300 #2 [0.200, 0.400] \
| **0.60 #1** [0.50, 0.70] |

- toy, halves: 2 pairs in 1 context; seeds 0; folds 0.
"""


def test_markdown_shows_means_intervals_ranks_and_the_best_in_bold() -> None:
    text = compare(results_of(*HAND), baseline="mean", bootstrap=FEW).to_markdown()
    assert text.startswith(MARKDOWN)


def test_csv_gives_the_numbers_unrounded() -> None:
    table = compare(results_of(*HAND), baseline="mean", bootstrap=FEW)
    found = pd.read_csv(StringIO(table.to_csv()), float_precision="round_trip")
    assert found[MAE].tolist() == table.frame[MAE].tolist()
    assert found["combined_high"].tolist() == table.frame["combined_high"].tolist()


def test_latex_has_booktabs_rules_and_escapes_what_latex_reads() -> None:
    text = compare(results_of(*HAND), baseline="mean", bootstrap=FEW).to_latex()
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert r"mean $\ddagger$ & 0.000 & 1.67 &" in text
    assert r"overlap\_\\at\_N $\uparrow$" in text
    assert r"& \textbf{0.150 \#1} &" in text
    assert r"& {\scriptsize [0.100, 0.200]} &" in text
    assert r"95 \% percentile interval" in text
    assert text.isascii()


def test_html_is_one_page_with_headers_for_rows_and_columns() -> None:
    hostile = {**HAND[0], "model": "<script>"}
    text = compare(results_of(hostile, HAND[1]), baseline="linear", bootstrap=FEW).to_html()
    body = text[text.index("<body>") : text.index("</html>")]
    root = ET.fromstring(body)
    rows = [row.text for row in root.iter("th") if row.get("scope") == "row"]
    assert sorted(rows) == ["<script>", "linear ‡"]
    assert len([name for name in root.iter("th") if name.get("scope") == "col"]) == 6
    assert "http" not in text


def printed(table: Table, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), force_terminal=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().split("\n")]


def test_the_terminal_shows_everything_side_by_side_in_100_columns() -> None:
    lines = printed(compare(results_of(*HAND), baseline="mean", bootstrap=FEW), 100)
    assert max(map(len, lines)) <= 100
    linear = next(line for line in lines if line.startswith("linear"))
    assert linear.split() == [
        "linear",
        "0.292",
        "1.33",
        "0.50",
        "#1",
        "0.150",
        "#1",
        "0.50",
        "#2",
        "✗",
    ]


def test_metrics_that_do_not_fit_go_below_with_the_models_again() -> None:
    lines = printed(compare(results_of(*HAND), baseline="mean", bootstrap=FEW), 50)
    assert max(map(len, lines)) <= 50
    assert len([line for line in lines if line.startswith("linear")]) > 1
    assert any("[0.100, 0.200]" in line for line in lines)


def test_names_with_signs_of_markdown_are_escaped() -> None:
    text = compare(results_of({**HAND[0], "model": "a|b*"}), bootstrap=FEW).to_markdown()
    assert "| a\\|b\\* |" in text


def test_per_pair_has_a_row_for_each_setting_and_pair() -> None:
    repeated = [{**trial, "seed": seed} for trial in HAND for seed in (0, 1)]
    frame = per_pair(results_of(*repeated))
    assert frame[["model", "perturbation"]].to_numpy().tolist() == [
        ["linear", "P000"],
        ["linear", "P001"],
        ["mean", "P000"],
        ["mean", "P001"],
    ]
    assert frame[MAE].tolist() == [0.1, 0.2, 0.2, 0.4]


def test_tables_of_all_suites_are_written(tmp_path: Path) -> None:
    results = results_of(*HAND)
    rows = pd.concat(
        [results.rows.astype({"suite": str}).assign(suite=s) for s in ("vcc2025", "other")]
    )
    tables = write_tables(Results.of(rows, results.trials), str(tmp_path), baseline="mean")
    assert [table.suite for table in tables] == ["other", "vcc2025"]
    assert (tmp_path / "comparison.md").read_text(encoding="utf-8").count("## Suite") == 2
    assert (
        pd.read_csv(tmp_path / "comparison.csv")["suite"].tolist()
        == ["other"] * 2 + ["vcc2025"] * 2
    )
    assert len(pd.read_csv(tmp_path / "per_perturbation.csv")) == 8


def test_tables_of_several_suites_say_which_is_which() -> None:
    rows = results_of(*HAND).rows
    both = pd.concat([rows.astype({"suite": str}), rows.assign(suite="calibrated")])
    trials = results_of(*HAND).trials
    tables = compare_suites(Results.of(both, trials), baseline="mean", bootstrap=FEW)
    assert [table.sections[0].title for table in tables] == [
        "toy, halves, calibrated",
        "toy, halves, vcc2025",
    ]
    [alone] = compare_suites(results_of(*HAND), baseline="mean", bootstrap=FEW)
    assert alone.sections[0].title == "toy, halves"
