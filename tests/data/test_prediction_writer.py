"""Small predictions stay in memory between predicting and scoring, and score as files do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from harness.analysis.results import Results
from harness.data import prediction_writer as held
from harness.data import predictions, store_writer
from harness.data.prediction_writer import HELD_BYTES, HeldPredictions, fits, held_controls
from harness.data.predictions import PredictionWriter, with_controls
from harness.data.store import open_store, ranges_of
from harness.data.store_writer import StoreWriter
from harness.errors import ModelError
from harness.runs.runner import run_job
from harness.tasks import parse_split
from harness.tasks.task import Prediction, Task
from harness.testing import tiny_screen
from tests.synthetic import make_screen, write_store

if TYPE_CHECKING:
    from pathlib import Path

ASKED = {"genes": tuple(f"G{i}" for i in range(60)), "control_label": "control", "model": "mine"}


def tiny_task() -> Task:
    screen = tiny_screen(n_perturbations=6, n_combinations=0, n_cells=5)
    return Task(screen, parse_split({"kind": "unseen-perturbation", "folds": 3}))


def ran(job: Path, folder: Path) -> pd.DataFrame:
    report = run_job(str(job), str(folder), "inline")
    assert not report.failures, report.failures[0][1].traceback
    rows = Results(str(folder)).rows
    keys = ["trial", "suite", "metric", "context", "perturbation"]
    rows = rows[[*keys, "value"]].astype(dict.fromkeys(keys, str))
    return rows.sort_values(keys, ignore_index=True)


@pytest.mark.parametrize("suites", ["vcc2025", "vcc2026", "vcc2025, vcc2026"])
def test_scores_do_not_depend_on_where_predictions_lay(tmp_path, monkeypatch, suites):
    screen = make_screen(n_genes=60, n_perturbations=8, n_cells=30, n_controls=60)
    store = write_store(screen, tmp_path / "screen.zarr")
    job = tmp_path / "job.yaml"
    job.write_text(
        f"dataset: {store.path}\nsplit: unseen-perturbation\nfolds: [0]\n"
        "models: [{model: perturbation-mean}, {model: control-mean, cells: tile-profile}, "
        "{model: replicate}]\n"
        f"score: {{suite: [{suites}]}}\n",
        encoding="utf-8",
    )
    written = []

    class Watched(PredictionWriter):
        def publish(self) -> None:
            written.append(self.result)
            super().publish()

    monkeypatch.setattr(predictions, "PredictionWriter", Watched)
    in_memory = ran(job, tmp_path / "memory")
    assert written == []
    monkeypatch.setattr(held, "HELD_BYTES", 0)
    on_disk = ran(job, tmp_path / "disk")
    assert len(written) == len({*on_disk["trial"]})
    pd.testing.assert_frame_equal(in_memory, on_disk, check_exact=True)


def test_what_does_not_fit_is_not_held(monkeypatch):
    assert fits(HELD_BYTES // 400, 100)
    assert not fits(HELD_BYTES // 400 + 1, 100)


@pytest.mark.parametrize("value", [np.nan, -1.0, 20.0])
def test_a_broken_answer_is_refused_as_for_a_file(value):
    task = tiny_task()
    queries = task.queries()
    cells = np.full((queries[0].n_cells, 60), value, dtype=np.float32)
    with (
        pytest.raises(ModelError, match="mine, prediction for"),
        HeldPredictions(queries, **ASKED) as out,
    ):
        out.add(Prediction(queries[0], cells=cells))
    with pytest.raises(ModelError, match="unanswered"), HeldPredictions(queries, **ASKED) as out:
        out.publish()


def test_what_a_model_does_with_its_array_afterwards_changes_nothing():
    query = tiny_task().queries()[0]
    cells = np.ones((query.n_cells, 60), dtype=np.float32)
    with HeldPredictions([query], **ASKED) as out:
        out.add(Prediction(query, cells=cells))
        cells[:] = 7
        out.publish()
    np.testing.assert_array_equal(out.cells().gene_block(3, 5), 1)


def test_controls_are_read_once_and_are_the_same(monkeypatch):
    task = tiny_task()
    controls = task.shown_controls()
    found = held_controls(controls)
    np.testing.assert_array_equal(found.gene_block(4, 9), controls.gene_block(4, 9))
    np.testing.assert_array_equal(found.perturbations, controls.perturbations)
    assert held_controls(task.shown_controls()) is found
    assert held_controls(task.shown_controls(), "thinned") is not found
    monkeypatch.setattr(held, "HELD_BYTES", 0)
    assert held_controls(controls) is controls


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_small_matrix_as_one_plain_chunk_reads_the_same(tmp_path, monkeypatch, dtype):
    rng = np.random.default_rng(0)
    cells = rng.random((300, 40)).astype(dtype) * (rng.random((300, 40)) < 0.3)
    obs = pd.DataFrame({"perturbation": ["control"] * 100 + ["A"] * 200, "context": "c"})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"G{i}" for i in range(40)])

    def made(name: str):
        ranges = ranges_of(obs["context"], obs["perturbation"])
        card = {"name": "small"}
        with StoreWriter(
            str(tmp_path / name),
            obs=obs,
            var=var,
            ranges=ranges,
            dtype=dtype,
            card=card,
            scale="log1p",
            control_label="control",
        ) as writer:
            for start in range(0, 300, 70):
                writer.append(cells[start : start + 70])
            writer.finish()
        return open_store(str(tmp_path / name))

    plain = made("plain.zarr")
    monkeypatch.setattr(store_writer, "PLAIN_BYTES", 0)
    compressed = made("compressed.zarr")
    assert plain.fingerprint == compressed.fingerprint
    for store in (plain, compressed):
        np.testing.assert_array_equal(store.rows(0, 300), cells)
        np.testing.assert_array_equal(store.gene_block(3, 9, 50, 120), cells[50:120, 3:9])
        np.testing.assert_array_equal(with_controls(store.path, None).gene_block(0, 40), cells)
