"""What a trial publishes is on disk before it has its name; what it deletes is not waited for."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import DataError
from harness.runs.plan import plan_job
from harness.runs.trial import run_trial

if TYPE_CHECKING:
    from harness.runs.request import TrialRequest

JOB = """
dataset: sim:tiny?contexts=1&genes=60&seed={seed}
split: unseen-perturbation
folds: [0]
models:
  - {{model: control-mean}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def request(folder: Path, seed: int = 0) -> TrialRequest:
    job = folder / "job.yaml"
    job.write_text(JOB.format(seed=seed), encoding="utf-8")
    plan = plan_job(str(job), str(folder / "run"))
    return plan.request(plan.trials[0])


def test_all_that_is_published_is_flushed_and_nothing_that_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = request(tmp_path)
    flushed: list[int] = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            flushed.append(found.st_ino)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    run_trial(mine)
    folder, scores = Path(mine.run, "trials", mine.spec.id), Path(mine.run, "results")
    profiles = [file for file in (folder / "profiles.zarr").rglob("*") if file.is_file()]
    named = [folder / "spec.json", *profiles, *scores.iterdir(), folder / "manifest.json"]
    places = {file.stat().st_ino: place for place, file in enumerate(named)}
    once = [number for number in flushed if number in places]
    assert sorted(once) == sorted(places)  # each of them, and once
    order = [file.name for number in once if (file := named[places[number]]) not in profiles]
    assert order == ["spec.json", f"{mine.spec.id}.parquet", "manifest.json"]
    left = {file.stat().st_ino for file in Path(mine.run).rglob("*")}
    assert set(flushed) <= left


def test_a_screen_made_anew_under_its_name_is_seen_by_the_same_process(tmp_path: Path) -> None:
    first, other = request(tmp_path), request(tmp_path, seed=1)
    copy = tmp_path / "screen.zarr"
    shutil.copytree(first.store, copy)
    run_trial(replace(first, store=str(copy)))
    shutil.rmtree(copy)
    shutil.copytree(other.store, copy)
    with pytest.raises(DataError, match="other content than when the job was planned"):
        run_trial(replace(first, store=str(copy)))
