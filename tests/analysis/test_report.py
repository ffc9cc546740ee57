"""The report page, live and not, and the files of a paper: their numbers are those of the run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest

from harness.analysis.report import report_html
from harness.analysis.results import Results
from harness.cli import run_command as run
from harness.data.predictions import open_predictions
from harness.errors import DataError
from harness.models.registry import registered
from harness.runs.watch import LivePage, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOB = """
dataset: sim:tiny
split: few-shot-context
seeds: [0, 1]
models:
  - {model: control-mean}
  - {model: linear, rank: [2, 4], ridge: [0.1, 1.0]}
  - {model: replicate}
score: {suite: vcc2025, baseline: control-mean}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run."""
    base = tmp_path_factory.mktemp("report")
    (base / "job.yaml").write_text(JOB, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert run(["run", str(base / "job.yaml"), "-o", str(base / "run"), "--on", "inline"]) == 0
        yield base / "run"


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return report_html(Results(str(folder)), registered())


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    assert found
    return dict(json.loads(found[1]))


def figure(page: str, stem: str) -> dict[str, Any]:
    return next(value for name, value in embedded(page).items() if name.startswith(stem))


# --- numbers ------------------------------------------------------------------------------------


def test_the_forest_shows_the_means_of_the_parquet(page: str, folder: Path) -> None:
    rows = Results(str(folder)).scores
    rows = rows[rows["metric"] == "mae"].astype(
        {"model": str, "param.rank": str, "param.ridge": str}
    )
    keys = ["model", "param.rank", "param.ridge", "context", "perturbation"]
    pairs = rows.groupby(keys, observed=True)["value"].mean().reset_index()
    expected = sorted(pairs.groupby(keys[:3])["value"].mean())
    shown = figure(page, "forest")["mae"]["data"][0]["x"]
    np.testing.assert_allclose(sorted(shown), expected, rtol=1e-12)


def test_every_pair_stands_with_its_own_score(page: str, folder: Path) -> None:
    rows = Results(str(folder)).scores
    chosen = rows[(rows["metric"] == "mae") & (rows["model"].astype(str) == "control-mean")]
    names = chosen["perturbation"].astype(str) + ", " + chosen["context"].astype(str)
    expected = chosen["value"].groupby(names).mean().to_dict()
    traces = figure(page, "effects")["mae"]["data"]
    trace = next(one for one in traces if one["name"] == "control-mean")
    shown = dict(zip(trace["text"], trace["y"], strict=True))
    assert shown.keys() == expected.keys()
    for name, value in shown.items():
        assert value == pytest.approx(expected[name], rel=1e-12)


def test_the_tables_of_the_page_are_those_of_the_run(page: str, folder: Path) -> None:
    frame = pd.read_csv(folder / "tables" / "comparison.csv")
    comparison = page[page.index('id="comparison"') : page.index('id="ranks"')]
    for model in frame["model"]:
        assert model in comparison
    means = figure(page, "forest")["overlap_at_N"]["data"][0]["x"]
    np.testing.assert_allclose(sorted(means), sorted(frame["overlap_at_N"]), rtol=1e-12)


def test_a_prediction_is_drawn_against_the_truth_gene_by_gene(page: str, folder: Path) -> None:
    variants = figure(page, "prediction")
    assert len(variants) == len(figure(page, "volcano")) == 6
    label = next(iter(variants))
    perturbation, _, context = label.partition(" in ")
    by_name = {trace["name"]: trace for trace in variants[label]["data"]}
    drawn = dict(zip(by_name["linear"]["text"], by_name["linear"]["y"], strict=True))
    trials = Results(str(folder)).trials
    for trial in trials.loc[trials["model"] == "linear", "trial"]:
        profiles = open_predictions(str(folder / "trials" / trial / "profiles.zarr"))
        block = profiles.gene_block(0, len(profiles.genes))
        here = profiles.contexts == context
        own = block[here & (profiles.perturbations == perturbation)]
        if len(own):
            effect = own[0] - block[here & (profiles.perturbations == profiles.control_label)][0]
            break
    assert drawn == pytest.approx(dict(zip(profiles.genes, effect.tolist(), strict=True)))


def test_a_swept_model_has_a_heat_map(page: str) -> None:
    grid = figure(page, "heat")["mae: rank × ridge"]["data"][0]
    assert (grid["x"], grid["y"]) == (["2", "4"], ["0.1", "1.0"])
    assert np.shape(grid["z"]) == (2, 2)


def test_results_in_memory_have_a_report_too() -> None:
    scores = pd.DataFrame(
        {
            "trial": np.repeat(["a", "b"], 4),
            "suite": "vcc2025",
            "metric": "mae",
            "version": 1,
            "context": "c",
            "perturbation": [f"p{at}" for at in range(4)] * 2,
            "value": np.arange(8.0),
            "reason": "",
        }
    )
    trials = pd.DataFrame({"trial": ["a", "b"], "model": ["control-mean", "linear"]})
    page = report_html(Results.of(scores, trials), registered())
    assert sorted(figure(page, "forest")["mae"]["data"][0]["x"]) == [1.5, 5.5]


# --- the page -----------------------------------------------------------------------------------


def test_the_page_needs_no_network(page: str) -> None:
    outside = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)[^"]*"', page)
    assert outside == []
    assert len(page.encode()) < 15e6


def test_methods_say_what_ran(page: str) -> None:
    said = page[page.index('id="methods"') :]
    for words in (
        "few-shot-context",
        "cell-eval 0.6.6",
        "seeds 0, 1",
        "Control cells were divided",
    ):
        assert words in said
    assert "Ahlmann-Eltze" in said


def test_what_failed_is_in_the_page(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    broken = next(copy.glob("trials/*/manifest.json")).parent
    (broken / "manifest.json").unlink()
    failure = {"trial": broken.name, "cause": "raised", "error": "ValueError: <b>no</b>"}
    (broken / "failure.json").write_text(json.dumps(failure), encoding="utf-8")
    page = report_html(Results(str(copy)), registered())
    said = page[page.index('id="failures"') :]
    assert broken.name in said
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in said


def test_trust_checks_of_a_run_are_in_its_page_and_mark_its_tables(
    tmp_path: Path, folder: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    assert run(["trust", str(copy)]) == 0
    page = report_html(Results(str(copy)), registered())
    assert 'id="trust"' in page
    assert "⚠ overlap_at_N ↑" in page
    assert "raised by" in page[page.index('id="comparison"') : page.index('id="ranks"')]


def test_a_folder_without_a_run_has_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "this is no run folder" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[str, str]]:
    """Open a page from disk, run a script in it, and return the page then, and what it logged."""
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the report is not opened in a browser")
    base = tmp_path_factory.mktemp("browser")

    def opened(page: str, script: str) -> tuple[str, str]:
        path = base / "page.html"
        path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
        quiet = "--disable-background-networking --disable-component-update"
        found = subprocess.run(
            [
                browser,
                *flags.split(),
                *quiet.split(),
                f"--user-data-dir={base / 'profile'}",
                "--enable-logging=stderr",
                "--window-size=1200,9000",
                "--virtual-time-budget=20000",
                "--dump-dom",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return found.stdout, "\n".join(x for x in found.stderr.splitlines() if "CONSOLE" in x)

    return opened


def said(dom: str) -> Any:
    found = re.search(r'<meta name="said" content="([^"]*)"', dom)
    assert found, "the script did not come to its end"
    return json.loads(found[1].replace("&quot;", '"'))


SAY = """
const say = (value) => {
  const meta = document.createElement("meta");
  meta.name = "said"; meta.content = JSON.stringify(value); document.head.append(meta);
};
const table = document.querySelector("#comparison table");
const rows = [...table.tBodies[0].rows];
const column = (at) =>
  [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[at].textContent));
"""


DRAWN = """
const all = () => [...document.querySelectorAll("figure")].map((figure) =>
  [figure.dataset.figure, figure.querySelectorAll("svg.main-svg").length]);
let tries = 0;
const timer = setInterval(() => {
  if (all().every(([, drawn]) => drawn) || ++tries > 150) { clearInterval(timer); say(all()); }
}, 100);
"""


def test_it_opens_from_disk_without_an_error_and_draws_its_figures(
    page: str, browse: Callable[[str, str], tuple[str, str]]
) -> None:
    script = SAY + DRAWN
    dom, logged = browse(page, script)
    assert logged == ""
    drawn = dict(said(dom))
    assert drawn.keys() == embedded(page).keys()
    assert all(drawn.values()), drawn


SORT_AND_FILTER = """
const headings = [...table.tHead.rows[0].cells];
const at = headings.findIndex((heading) => heading.textContent.startsWith("mae"));
const button = headings[at].querySelector("button");
button.click();
const up = column(at);
button.click();
const down = column(at);
const input = document.querySelector("input[data-filter=comparison]");
input.value = "linear rank=4";
input.dispatchEvent(new Event("input"));
const shown = rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
say({ up, down, sorted: headings[at].getAttribute("aria-sort"), shown });
"""


def test_headings_sort_and_words_filter(
    page: str, browse: Callable[[str, str], tuple[str, str]]
) -> None:
    found = said(browse(page, SAY + SORT_AND_FILTER)[0])
    assert found["up"] == sorted(found["up"])
    assert found["down"] == found["up"][::-1]
    assert found["sorted"] == "descending"
    assert len(found["shown"]) == 2
    assert all("rank=4" in name for name in found["shown"])


# --- live, and for a paper ----------------------------------------------------------------------


def test_the_live_page_is_served_on_loopback_and_asks_again(folder: Path) -> None:
    with serve(LivePage([str(folder)])) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=60) as answer:
                body = answer.read().decode()
        finally:
            server.shutdown()
            thread.join()
    assert '<meta http-equiv="refresh" content="10">' in body
    assert "control-mean" in body


def test_a_run_without_a_score_yet_is_waited_for(tmp_path: Path) -> None:
    assert "Nothing to show yet" in LivePage([str(tmp_path)]).html()


def test_a_paper_gets_tables_figures_methods_and_commands(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "paper"
    assert run(["export", str(folder), "--for", "paper", "-o", str(out)]) == 0
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"methods.md", "citations.md", "reproduce.md"} <= names
    for kind in ("comparison", "ranks", "pairs", "cost", "sweep"):
        assert {f"tables/{kind}-vcc2025.tex", f"tables/{kind}-vcc2025.csv"} <= names
    for stem in ("scores", "ranks", "cost"):
        drawn = [name for name in names if name.startswith(f"figures/{stem}")]
        assert sorted(Path(name).suffix for name in drawn) == [".pdf", ".svg"]
    pdf = next(out.glob("figures/scores*.pdf")).read_bytes()
    assert pdf.startswith(b"%PDF")
    again = (out / "reproduce.md").read_text(encoding="utf-8")
    assert "ridge: [0.1, 1.0]" in again
    assert "harness run run.yaml" in again


def test_a_folder_without_a_run_is_not_exported(tmp_path: Path) -> None:
    from harness.analysis.report.paper import export_paper

    with pytest.raises(DataError, match="this is no run folder"):
        export_paper([str(tmp_path)], str(tmp_path / "paper"), registered())
