from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.storage import paths


@pytest.fixture(params=["local", "remote"])
def base(request, tmp_path):
    """A folder on disk, and one in fsspec's in-memory object store."""
    if request.param == "local":
        return str(tmp_path / "run")
    return f"memory://{tmp_path.name}/run"


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        pytest.param("s3://bucket/run", True, id="bucket"),
        pytest.param("file:///tmp/run", False, id="file_url"),
        pytest.param("/tmp/run", False, id="absolute"),
        pytest.param("runs/a", False, id="relative"),
    ],
)
def test_a_path_with_a_protocol_is_remote(path, remote):
    assert paths.is_remote(path) is remote


@pytest.mark.parametrize("path", ["s3://bucket/run", "file:///tmp/run", "/tmp/run"])
def test_a_path_that_means_the_same_anywhere_stays(path):
    assert paths.absolute(path) == path


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.absolute("runs/a") == str(tmp_path / "runs" / "a")


def test_join_puts_one_slash_between_parts():
    assert paths.join("s3://bucket/", "/trials/", "a") == "s3://bucket/trials/a"
    assert paths.join("runs", "trials", "a") == "runs/trials/a"
    assert paths.join("/", "runs") == "/runs"


def test_what_was_written_is_read_back_listed_and_removed(base):
    path = paths.join(base, "results", "a.txt")
    paths.write_atomic(path, "first")
    paths.write_atomic(path, b"second")
    assert paths.exists(path)
    assert paths.read_text(path) == "second"
    assert paths.list_names(paths.join(base, "results")) == ["a.txt"]
    paths.remove(base)
    assert not paths.exists(path)
    assert paths.list_names(paths.join(base, "results")) == []


def test_removing_what_is_not_there_is_no_error(base):
    paths.remove(paths.join(base, "nothing"))


def test_a_failed_write_leaves_the_old_content_and_no_scratch(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    paths.write_atomic(str(path), "old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        paths.write_atomic(str(path), "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_scratch_names_stay_in_the_folder_and_are_not_listed(tmp_path):
    scratch = Path(paths.scratch_name(str(tmp_path / "a.zarr")))
    assert scratch.parent == tmp_path
    scratch.mkdir()
    assert paths.list_names(str(tmp_path)) == []


def _finished_folder(tmp_path):
    scratch = tmp_path / "scratch"
    (scratch / "inner").mkdir(parents=True)
    (scratch / "manifest.json").write_text("{}")
    (scratch / "inner" / "z.bin").write_bytes(b"z")
    return scratch


def test_publishing_moves_a_folder_whole(base, tmp_path):
    scratch = _finished_folder(tmp_path)
    final = paths.join(base, "trials", "a")
    paths.publish(str(scratch), final)
    assert paths.read_bytes(paths.join(final, "inner", "z.bin")) == b"z"
    assert paths.list_names(final) == ["inner", "manifest.json"]
    assert not scratch.exists()


def test_an_object_store_gets_the_manifest_last(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    seen = []
    put = MemoryFileSystem.put_file

    def record(self, source, target, **kwargs):
        seen.append(Path(target).name)
        return put(self, source, target, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "put_file", record)
    scratch = _finished_folder(tmp_path)
    (scratch / "spec.json").write_text("{}")
    paths.publish(str(scratch), f"memory://{tmp_path.name}/a")
    assert seen == ["z.bin", "spec.json", "manifest.json"]


def test_what_is_published_is_never_overwritten(base, tmp_path):
    paths.write_atomic(paths.join(base, "a", "manifest.json"), "{}")
    with pytest.raises(FileExistsError, match="never overwritten"):
        paths.publish(str(_finished_folder(tmp_path)), paths.join(base, "a"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("1GiB", 2**30, id="binary"),
        pytest.param("1.5 kb", 1500, id="decimal"),
        pytest.param("4096", 4096, id="bytes"),
        pytest.param(7, 7, id="int"),
    ],
)
def test_sizes_have_units(text, size):
    assert paths.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "1 GiBB", "-1GiB"])
def test_what_is_no_size_is_refused_with_the_units(text):
    with pytest.raises(ValueError, match=r"is not a size\. Expected a number and a unit"):
        paths.parse_size(text)


def test_data_files_are_looked_for_in_harness_data_before_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    assert paths.find_data_file("a.h5ad") is None
    for folder in ("cache/datasets", "data"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.h5ad").touch()
        assert paths.find_data_file("a.h5ad") == tmp_path / folder / "a.h5ad"


def test_without_a_setting_the_cache_is_the_users(monkeypatch):
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    assert paths.cache_folder().name == "harness"
