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

from harness.cli import run_command as run
from harness.data.simulation.screens import known_effects, simulate
from harness.data.store import Store, open_store
from harness.errors import DataError, StorageError
from harness.storage import object_store as clients
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.s3_server import ObjectStore

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed, so moto is not either")


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
        "from harness.cli import run_command; sys.exit(run_command(['status', 's3://b/r']))"
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


def test_a_store_on_an_object_store_reads_as_one_on_disk(
    remote_screen: str, tmp_path: Path
) -> None:
    local, remote = simulate("tiny", tmp_path / "tiny.zarr"), open_store(remote_screen)
    assert remote.fingerprint == local.fingerprint
    assert remote.genes == local.genes
    np.testing.assert_array_equal(remote.rows(100, 400), local.rows(100, 400))
    np.testing.assert_array_equal(remote.gene_block(3, 9), local.gene_block(3, 9))
    np.testing.assert_array_equal(remote.library_sizes(), local.library_sizes())
    assert remote.obs().equals(local.obs())
    assert known_effects(remote_screen).equals(known_effects(local.path))
    assert pickle.loads(pickle.dumps(remote)).fingerprint == local.fingerprint
    assert run(["check", remote_screen]) == 0
    assert run(["simulate", "tiny", "-o", remote_screen]) == 2  # exists already


def _read_in_child(store: Store, url: str, answer: Callable[[bytes], None]) -> None:
    answer(open_store(store.path).rows(0, 9).tobytes() + paths.read_bytes(url))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_opens_clients_of_its_own(
    remote_screen: str, bucket: str, method: str
) -> None:
    store = open_store(remote_screen)
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
    remote_screen: str, object_store: ObjectStore
) -> None:
    store = open_store(remote_screen)
    expected = store.rows(0, 2000)
    with object_store.proxy.cut("down", 20_000, times=1):
        np.testing.assert_array_equal(store.rows(0, 2000), expected)
    # not within the headers: there, s3fs tries 25 times
    with (
        object_store.proxy.cut("down", 900),
        pytest.raises(StorageError, match=f"{remote_screen}: "),
    ):
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
