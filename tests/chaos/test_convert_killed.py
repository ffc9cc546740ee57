"""A conversion that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import harness
from harness.data.store import open_store

# Small shards and blocks, so that a small screen has many; stops for ever at the place asked for,
# which is where it is killed.
PROGRAM = """
import sys, time
import harness.data.store
from harness.data.cards import Card
from harness.data.conversion import convert

harness.data.store.SHARD_BYTES = 0
source, out, stage, number = sys.argv[1:]

def progress(now, done, total):
    here = (now, done) == (stage, int(number))
    time.sleep(here)  # until what was computed has reached the disk
    print(now, done, total, flush=True)
    while here:
        time.sleep(1)

card = Card(
    name="made", version=1, title="Made up", organism="human", control_label="ctrl",
    source={"file": "a", "page": "https://a.b", "license": "MIT", "cite": "nobody"},
    columns={"perturbation": "gene"}, context_label="K562", expression={"scale": "counts"},
)
convert(source, out, card, memory="2MiB", threads=2, progress=progress)
"""


def start(source: Path, out: Path, stage: str = "never", number: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(source), str(out), stage, str(number)]
    folder = Path(harness.__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)


def kill_at(source: Path, out: Path, stage: str, number: int) -> None:
    """Start a conversion, and kill -9 it once so many blocks of a stage are done."""
    with start(source, out, stage, number) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[:2] == [stage, str(number)]:
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def finish(source: Path, out: Path) -> list[tuple[str, int]]:
    """Start a conversion, wait for its end, and return the stages it reported."""
    with start(source, out) as process:
        found = stages(process)
    assert process.returncode == 0
    return found


def stages(process: subprocess.Popen[str]) -> list[tuple[str, int]]:
    lines = process.communicate()[0].splitlines()
    return [(stage, int(done)) for stage, done, _ in map(str.split, lines)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"gene": rng.choice(["ctrl", "A", "B", "C"], 2000)}, index=[f"cell{i}" for i in range(2000)]
    )
    screen = anndata.AnnData(sparse.csr_matrix(rng.poisson(0.3, (2000, 500)).astype("f4")), obs)
    path = tmp_path_factory.mktemp("source") / "a.h5ad"
    screen.write_h5ad(path, compression="gzip")
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    out = source.parent / "undisturbed.zarr"
    finish(source, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (entry for entry in folder.rglob("*") if entry.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize(("stage", "number"), [("read", 4), ("write", 5)])
def test_a_killed_conversion_is_finished_without_redoing_what_is_done(
    source: Path, undisturbed: Path, tmp_path: Path, stage: str, number: int
) -> None:
    out = tmp_path / "a.zarr"
    kill_at(source, out, stage, number)
    assert not out.exists()
    found_done = dict(reversed(finish(source, out)))  # the first report of each stage
    assert found_done[stage] >= number - 1  # the last may still be on its way to the disk
    assert contents(out) == contents(undisturbed)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert open_store(out).fingerprint == open_store(undisturbed).fingerprint


def test_a_source_that_changed_meanwhile_is_begun_anew(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, copy = tmp_path / "a.zarr", tmp_path / "a.h5ad"
    screen = anndata.read_h5ad(source)
    screen.X = screen.X * 2
    screen.write_h5ad(copy)
    kill_at(copy, out, "read", 3)
    copy.write_bytes(source.read_bytes())
    assert finish(copy, out)[0] == ("read", 0)
    assert open_store(out).fingerprint == open_store(undisturbed).fingerprint


def test_scratch_files_of_a_torn_write_are_not_published(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    kill_at(source, out, "write", 2)
    scratch = tmp_path / ".a.zarr.partial"
    (scratch / "store" / "X" / "c" / "7").mkdir(exist_ok=True)
    (scratch / "store" / "X" / "c" / "7" / "0.123.partial").write_bytes(b"torn")
    (scratch / "rows" / "7.partial").write_bytes(b"torn")
    (scratch / "runs" / "99.partial").mkdir()
    finish(source, out)
    assert contents(out) == contents(undisturbed)
