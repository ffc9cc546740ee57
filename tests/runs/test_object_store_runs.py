"""Runs on an S3-compatible server: the run on disk, and what a machine keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness.analysis.results import Results, read_scores
from harness.cli import run_command as run
from harness.data.simulation.screens import simulate
from harness.data.store import open_store
from harness.errors import StorageError
from harness.runs import trial as trials
from harness.runs.folder import RunFolder
from harness.runs.stages import StageFiles
from harness.scoring.truth_cache import TruthCache
from harness.storage import local_cache as node_copies
from harness.storage import paths
from harness.storage.local_cache import store_here
from tests.s3_server import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.s3_server import ObjectStore

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed, so moto is not either")


JOB = """
dataset: {dataset}
split: unseen-perturbation
seeds: [0]
folds: [0]
models:
  - {{model: control-mean}}
  - {{model: perturbation-mean}}
score: {{suite: vcc2025}}
keep: [scores, profiles, predictions]
"""


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on disk, with the cache in it."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def job(here: Path, remote_screen: str) -> str:
    """A job on a screen that lies on the object store; it keeps predictions there, too."""
    path = here / "job.yaml"
    path.write_text(JOB.format(dataset=remote_screen), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def finished(here: Path, job: str, object_store: ObjectStore) -> tuple[RunFolder, RunFolder]:
    """The job's run on the object store, and on disk."""
    folders = f"s3://{object_store.bucket}/shared/run", str(here / "run")
    for folder in folders:
        assert run(["run", job, "-o", folder, "--on", "inline"]) == 0
    return RunFolder(folders[0]), RunFolder(folders[1])


def _values(folder: RunFolder) -> list[tuple[object, ...]]:
    rows = Results(folder.path).scores.astype({"value": float})
    columns = ["model", "metric", "context", "perturbation", "value"]
    return sorted(rows[columns].itertuples(index=False, name=None))


def test_a_run_on_an_object_store_is_the_run_on_disk(finished: tuple[RunFolder, ...]) -> None:
    remote, local = finished
    assert _values(remote) == _values(local)
    assert read_scores(remote.path).equals(read_scores(local.path))
    for name in ("comparison.csv", "comparison.md"):
        there = paths.read_bytes(f"{remote.tables}/{name}")
        assert there == paths.read_bytes(f"{local.tables}/{name}")
    trial = remote.begun()[0]
    for name in ("predictions.zarr", "profiles.zarr"):
        one, other = (open_store(folder.of_trial(trial, name)) for folder in finished)
        assert one.fingerprint == other.fingerprint
        np.testing.assert_array_equal(one.rows(0, 9), other.rows(0, 9))


def test_a_finished_run_is_not_run_again(
    finished: tuple[RunFolder, ...], job: str, object_store: ObjectStore
) -> None:
    before = len(object_store.server.requests())
    assert run(["run", job, "-o", finished[0].path, "--on", "inline"]) == 0
    asked = object_store.server.requests()[before:]
    assert not any("spec.json" in request for request in asked)
    assert any("manifest.json" in request for request in asked)


def test_commands_read_a_run_where_it_lies(
    finished: tuple[RunFolder, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    remote = finished[0]
    trial = remote.begun()[0]
    assert run(["status", remote.path]) == 0
    assert "2 done" in capsys.readouterr().out
    assert run(["logs", remote.path, trial]) == 0
    assert "fit: begins" in capsys.readouterr().out
    assert run(["table", remote.path, "--to", "csv"]) == 0
    assert "control-mean" in capsys.readouterr().out
    values = _values(remote)
    assert run(["retry", remote.path, "--trial", trial, "--on", "inline"]) == 0
    assert _values(remote) == values


def test_no_file_of_a_run_holds_credentials(
    finished: tuple[RunFolder, ...], object_store: ObjectStore
) -> None:
    prefix = finished[0].path.removeprefix(f"s3://{object_store.bucket}/")
    other = boto3.client("s3")
    pages = other.get_paginator("list_objects_v2").paginate(
        Bucket=object_store.bucket, Prefix=prefix
    )
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    contents = paths.read_each([f"s3://{object_store.bucket}/{key}" for key in keys])
    assert len(contents) > 50
    assert not any(SECRET.encode() in (content or b"") for content in contents)
    other.close()


def test_what_an_upload_left_of_predictions_is_not_scored(
    finished: tuple[RunFolder, ...], job: str
) -> None:
    remote = finished[0]
    trial, values = remote.begun()[0], _values(remote)
    for name in ("manifest.json", "predictions.zarr/zarr.json", "predictions.zarr/X"):
        paths.remove(remote.of_trial(trial, name))
    assert run(["run", job, "-o", remote.path, "--on", "inline"]) == 0
    assert "fit" in (remote.manifest(trial) or {})["seconds"]
    assert _values(remote) == values


def test_only_trials_that_began_cost_requests(bucket: str, object_store: ObjectStore) -> None:
    folder = RunFolder(bucket)
    planned = [f"{number:012x}" for number in range(300)]

    def asked() -> tuple[int, int]:
        before = len(object_store.server.requests())
        found = folder.manifests(planned)
        return len(found), len(object_store.server.requests()) - before

    found, requests = asked()
    assert found == 0
    assert requests <= 2
    for trial in planned[:5]:
        paths.write_atomic(folder.of_trial(trial, "spec.json"), "{}")
        folder.write_manifest(trial, {"trial": trial})
    assert asked() == (5, 6)


def test_a_trial_whose_scores_cannot_be_sent_is_not_done(
    bucket: str, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: str, frame: object) -> None:
        raise StorageError(f"{path}: the object store could not be reached")

    monkeypatch.setattr(trials, "write_scores", cut_off)
    assert run(["run", job, "-o", f"{bucket}/run", "--on", "inline"]) == 1
    folder = RunFolder(f"{bucket}/run")
    assert folder.manifests(folder.begun()) == {}
    states = folder.standings(folder.begun()).values()
    assert [(state, "could not be reached" in said["error"]) for state, said in states] == [
        ("failed", True),
        ("failed", True),
    ]


# --- stages, and what a machine keeps of an object store -----------------------------------------


def test_stages_pass_on_what_they_need_through_an_object_store(
    finished: tuple[RunFolder, ...], job: str, here: Path, bucket: str
) -> None:
    apart = here / "apart.yaml"
    needs = "resources: {fit: {cpus: 2}, predict: {cpus: 1}, score: {cpus: 0.5}}\n"
    apart.write_text((here / "job.yaml").read_text(encoding="utf-8") + needs, encoding="utf-8")
    assert run(["run", str(apart), "-o", f"{bucket}/run", "--on", "inline"]) == 0
    remote = RunFolder(f"{bucket}/run")
    assert _values(remote) == _values(finished[1])
    for trial in remote.begun():
        assert not paths.exists(remote.of_trial(trial, "stages"))
        log = paths.read_text(remote.log(trial))
        assert [log.count(f"{stage}: begins") for stage in ("fit", "predict", "score")] == [1] * 3
        one, other = (
            open_store(folder.of_trial(trial, "predictions.zarr"))
            for folder in (remote, finished[1])
        )
        assert one.fingerprint == other.fingerprint


def test_a_connection_that_is_lost_between_two_stages_costs_the_stage_alone(
    job: str, here: Path, bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = here / "cut.yaml"
    text = (here / "job.yaml").read_text(encoding="utf-8")
    text = text.replace("  - {model: control-mean}\n", "")
    apart.write_text(text + "resources: {score: {cpus: 0.5}}\n", encoding="utf-8")
    leave = StageFiles.leave

    def cut_off(files: StageFiles, local: str, name: str) -> None:
        with object_store.proxy.cut("up", 1000):
            leave(files, local, name)

    monkeypatch.setattr(StageFiles, "leave", cut_off)
    assert run(["run", str(apart), "-o", f"{bucket}/run", "--on", "inline"]) == 1
    folder = RunFolder(f"{bucket}/run")
    [trial] = folder.begun()
    assert folder.stages([trial]) == {}
    monkeypatch.undo()
    monkeypatch.setattr(trials, "write_scores", _cut_off)
    assert run(["run", str(apart), "-o", f"{bucket}/run", "--on", "inline"]) == 1
    assert folder.stages([trial]) == {trial: "predict"}
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(here / "cache"))
    assert run(["run", str(apart), "-o", f"{bucket}/run", "--on", "inline"]) == 0
    log = paths.read_text(folder.log(trial))
    assert [log.count(f"{stage}: begins") for stage in ("fit", "predict", "score")] == [1, 1, 2]


def _cut_off(path: str, frame: object) -> None:
    raise StorageError(f"{path}: the object store could not be reached")


def test_a_machine_reads_a_store_and_its_reference_once(
    finished: tuple[RunFolder, ...], job: str, bucket: str, object_store: ObjectStore
) -> None:
    remote = finished[0]
    before = len(object_store.server.requests())
    trial = remote.begun()[0]
    assert run(["retry", remote.path, "--trial", trial, "--on", "inline"]) == 0
    asked = object_store.server.requests()[before:]
    assert not [request for request in asked if "screen.zarr/X/" in request]
    arrays = [request for request in asked if request.startswith("GET") and ".npy" in request]
    assert not [request for request in arrays if "/pseudobulks/" not in request]


def test_a_store_written_anew_is_copied_anew(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    local = []
    for seed in (1, 2):
        simulate("tiny", tmp_path / "screen.zarr", seed=seed, genes=60)
        paths.publish(str(tmp_path / "screen.zarr"), f"{bucket}/screen.zarr", last="zarr.json")
        local.append(open_store(store_here(f"{bucket}/screen.zarr")))
        paths.remove(f"{bucket}/screen.zarr")
    assert local[0].fingerprint != local[1].fingerprint
    assert all(not paths.is_remote(store.path) for store in local)


def test_a_disk_without_room_reads_over_the_network(
    remote_screen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node_copies, "ROOM", 10**15)
    assert store_here(remote_screen) == remote_screen
    assert "it is read over the network" in caplog.text
    assert store_here("/local/screen.zarr") == "/local/screen.zarr"


def test_a_damaged_copy_of_a_reference_is_made_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"values": np.arange(9.0)}

    for _ in range(3):
        found = TruthCache(f"{bucket}/reference").part("truth", "means", 1, make)
        np.testing.assert_array_equal(found["values"], np.arange(9.0))
    assert len(made) == 1
    [copy] = (tmp_path / "cache" / "copies").glob("truth-means*")
    array = copy / "0.npy"
    array.write_bytes(array.read_bytes()[:-8])
    for _ in range(2):
        TruthCache(f"{bucket}/reference").part("truth", "means", 1, make)
    assert len(made) == 2
