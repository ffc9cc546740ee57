"""Runs, stores and predictions on an S3-compatible server, and connections to it that are cut."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from harness import node_copies, paths
from harness import object_store as clients
from harness import trial as trials
from harness.cli import run
from harness.errors import DataError, StorageError
from harness.node_copies import store_here
from harness.reference_store import ReferenceStore
from harness.results import Results, read_scores
from harness.runs import RunFolder
from harness.simulate import known_effects, simulate
from harness.stages import StageFiles
from harness.store import Store, open_store
from tests.s3_server import SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


# --- files --------------------------------------------------------------------------------------


def test_what_was_written_is_read_back_listed_found_and_removed(bucket: str) -> None:
    for name in ("a", "b"):
        paths.write_atomic(f"{bucket}/trials/{name}/spec.json", name)
    paths.write_atomic(f"{bucket}/trials/b/manifest.json", b"{}")
    files = [f"{bucket}/trials/{name}/spec.json" for name in ("a", "none", "b")]
    assert paths.read_each(files) == [b"a", None, b"b"]
    assert paths.list_names(f"{bucket}/trials") == ["a", "b"]
    assert paths.find(f"{bucket}/trials", "manifest.json") == ["b"]
    paths.remove(f"{bucket}/trials/b/manifest.json")
    assert paths.list_names(f"{bucket}/trials/b") == ["spec.json"]
    paths.remove(f"{bucket}/trials")
    assert not paths.exists(f"{bucket}/trials")
    assert paths.list_names(f"{bucket}/trials") == []
    with pytest.raises(FileNotFoundError):
        paths.read_bytes(files[0])


def test_what_another_process_does_is_seen_at_once(bucket: str, object_store: ObjectStore) -> None:
    folder = f"{bucket}/trials"
    paths.write_atomic(f"{folder}/a/manifest.json", "{}")
    assert paths.list_names(folder) == ["a"]
    other = boto3.client("s3")
    key = f"{folder.removeprefix(f's3://{object_store.bucket}/')}/b/manifest.json"
    other.put_object(Bucket=object_store.bucket, Key=key, Body=b"{}")
    assert paths.exists(f"{folder}/b/manifest.json")
    assert paths.list_names(folder) == ["a", "b"]
    other.delete_object(Bucket=object_store.bucket, Key=key)
    assert not paths.exists(f"{folder}/b/manifest.json")
    assert paths.list_names(folder) == ["a"]
    other.close()


def test_a_missing_bucket_is_named_when_writing(object_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"s3://no-bucket/a: .*no such bucket.*Create it"):
        paths.write_atomic("s3://no-bucket/a", "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(StorageError, match=r"s3://no-bucket/out: .*no such bucket"):
        paths.publish(str(tmp_path / "out"), "s3://no-bucket/out")


def test_an_endpoint_that_nobody_serves_is_an_error_with_the_url(
    monkeypatch: pytest.MonkeyPatch, object_store: ObjectStore
) -> None:
    nowhere = {**clients.client_options("s3://b"), "endpoint_url": "http://127.0.0.1:9"}
    monkeypatch.setattr(clients, "client_options", lambda url: nowhere)
    with pytest.raises(StorageError, match=r"s3://b/run.json: .*could not be reached.*AWS_ENDPOI"):
        paths.read_bytes("s3://b/run.json")
    error = pickle.loads(pickle.dumps(StorageError("s3://b/run.json: gone")))
    assert str(error) == "s3://b/run.json: gone"


def test_without_s3fs_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from harness.cli import run; sys.exit(run(['status', 's3://b/r']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install 'virtual-cell-harness[s3]'" in " ".join(ended.stderr.split())


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(StorageError, match=r"nope://b/r: .*Expected s3://BUCKET/PREFIX"):
        paths.exists("nope://b/r")


# --- connections that are cut -------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 100, 50_000], ids=["at_once", "in_headers", "in_body"])
def test_a_write_that_is_cut_once_is_made_again(
    bucket: str, object_store: ObjectStore, after: int
) -> None:
    content = os.urandom(200_000)
    with object_store.proxy.cut("up", after, times=1):
        paths.write_atomic(f"{bucket}/a", content)
    assert paths.read_bytes(f"{bucket}/a") == content


def test_a_write_that_is_always_cut_leaves_the_old_content(
    bucket: str, object_store: ObjectStore
) -> None:
    paths.write_atomic(f"{bucket}/a", "old")
    failed = pytest.raises(StorageError, match=rf"{bucket}/a: .*could not be reached")
    with object_store.proxy.cut("up", 50_000), failed:
        paths.write_atomic(f"{bucket}/a", os.urandom(200_000))
    assert paths.read_text(f"{bucket}/a") == "old"


def test_a_read_that_is_cut_is_whole_or_an_error(bucket: str, object_store: ObjectStore) -> None:
    content = os.urandom(200_000)
    paths.write_atomic(f"{bucket}/a", content)
    with object_store.proxy.cut("down", 50_000, times=1):
        assert paths.read_bytes(f"{bucket}/a") == content
    failed = pytest.raises(StorageError, match=rf"{bucket}/a: .*could not be reached")
    with object_store.proxy.cut("down", 50_000), failed:
        paths.read_bytes(f"{bucket}/a")


def test_an_upload_that_is_cut_off_is_nothing_and_can_be_made_again(
    bucket: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    final, scratch = f"{bucket}/tiny.zarr", tmp_path / "tiny.zarr"
    local = simulate("tiny", scratch)
    rows = local.rows(0, 50)
    failed = pytest.raises(StorageError, match=rf"{final}: .*could not be reached")
    with object_store.proxy.cut("up", 20_000), failed:
        paths.publish(str(scratch), final, last="zarr.json")
    assert not paths.is_published(final, "zarr.json")
    with pytest.raises(DataError, match="no store here"):
        open_store(final)
    paths.publish(str(scratch), final, last="zarr.json")
    np.testing.assert_array_equal(open_store(final).rows(0, 50), rows)
    assert not scratch.exists()


# --- stores -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def screen(object_store: ObjectStore) -> str:
    path = f"s3://{object_store.bucket}/shared/tiny.zarr"
    assert run(["simulate", "tiny", "-o", path]) == 0
    return path


def test_a_store_on_an_object_store_reads_as_one_on_disk(screen: str, tmp_path: Path) -> None:
    local, remote = simulate("tiny", tmp_path / "tiny.zarr"), open_store(screen)
    assert remote.fingerprint == local.fingerprint
    assert remote.genes == local.genes
    np.testing.assert_array_equal(remote.rows(100, 400), local.rows(100, 400))
    np.testing.assert_array_equal(remote.gene_block(3, 9), local.gene_block(3, 9))
    np.testing.assert_array_equal(remote.library_sizes(), local.library_sizes())
    assert remote.obs().equals(local.obs())
    assert known_effects(screen).equals(known_effects(local.path))
    assert pickle.loads(pickle.dumps(remote)).fingerprint == local.fingerprint
    assert run(["check", screen]) == 0
    assert run(["simulate", "tiny", "-o", screen]) == 2  # exists already


def _read_in_child(store: Store, url: str, answer: Callable[[bytes], None]) -> None:
    answer(open_store(store.path).rows(0, 9).tobytes() + paths.read_bytes(url))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_opens_clients_of_its_own(screen: str, bucket: str, method: str) -> None:
    store = open_store(screen)
    expected = store.rows(0, 9).tobytes() + b"x"
    paths.write_atomic(f"{bucket}/a", "x")
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_read_in_child, args=(store, f"{bucket}/a", sender.send_bytes))
    child.start()
    assert receiver.poll(30)
    assert receiver.recv_bytes() == expected
    child.join()


def test_a_connection_cut_while_a_store_is_read_is_an_error_with_its_url(
    screen: str, object_store: ObjectStore
) -> None:
    store = open_store(screen)
    expected = store.rows(0, 2000)
    with object_store.proxy.cut("down", 20_000, times=1):
        np.testing.assert_array_equal(store.rows(0, 2000), expected)
    # not within the headers: there, s3fs tries 25 times
    with object_store.proxy.cut("down", 900), pytest.raises(StorageError, match=f"{screen}: "):
        store.rows(0, 10)


def test_a_conversion_whose_upload_failed_is_sent_again(
    bucket: str,
    object_store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = simulate("tiny", tmp_path / "source.zarr").path
    command = ["convert", source, "-o", f"{bucket}/x.zarr", "--scale", "counts"]
    command += ["--context-column", "context"]
    with object_store.proxy.cut("up", 20_000):
        assert run(command) == 1
    (scratch,) = tmp_path.glob("harness-*")
    assert list((scratch / "rows").glob("*.npz"))
    assert run(command) == 0
    assert not scratch.exists()
    np.testing.assert_array_equal(
        open_store(f"{bucket}/x.zarr").rows(0, 20), open_store(source).rows(0, 20)
    )


def test_a_file_of_cells_given_by_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "s3://b/screen.h5ad", "-o", "x.zarr"]) == 2
    assert (
        "s3://b/screen.h5ad: files of cells are read from this machine" in capsys.readouterr().err
    )


# --- runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on disk, with the cache in it."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def job(here: Path, screen: str) -> str:
    """A job on a screen that lies on the object store; it keeps predictions there, too."""
    path = here / "job.yaml"
    path.write_text(JOB.format(dataset=screen), encoding="utf-8")
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
    assert not [
        request for request in asked if request.startswith("GET") and ".reference" in request
    ]


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
    screen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node_copies, "ROOM", 10**15)
    assert store_here(screen) == screen
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
        found = ReferenceStore(f"{bucket}/reference").part("truth", "means", 1, make)
        np.testing.assert_array_equal(found["values"], np.arange(9.0))
    assert len(made) == 1
    [copy] = (tmp_path / "cache" / "copies").glob("truth-means*")
    copy.write_bytes(copy.read_bytes()[:-8])
    for _ in range(2):
        ReferenceStore(f"{bucket}/reference").part("truth", "means", 1, make)
    assert len(made) == 2
