"""A search with ASHA on Ray stops bad settings early, and survives kill -9 of its driver.

The search that is killed is blind: until it has chosen, whatever reads the screen, in the driver or
in a worker of Ray, finds NaN in place of every cell of a test pair. It comes to the same end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from harness.runs.status import read_ledger

if TYPE_CHECKING:
    from pathlib import Path

# Reports in the middle of its fit, as networks do, and takes no time. It is offered as another
# package would, so that Ray's workers know it too.
MODEL = """
import os
from pathlib import Path

import numpy as np

from harness.models.base import register
from harness.data.store import Store
from harness.tasks import Prediction

HELD, CHOSEN = os.environ.get("HELD", "").split(","), os.environ.get("CHOSEN", "")

def hidden(store, block, first):
    if not CHOSEN or Path(CHOSEN).exists():
        return block
    block = block.astype(np.float32)
    for pair in store.ranges:
        part = block[max(0, pair.start - first) : max(0, pair.stop - first)]
        if pair.perturbation in HELD and len(part):
            part[:] = np.nan
            Path(CHOSEN).parents[1].joinpath("hidden").touch()
    return block

rows, gene_block = Store.rows, Store.gene_block
Store.rows = lambda s, a, b: hidden(s, rows(s, a, b), a)
Store.gene_block = lambda s, a, b, c=0, d=None: hidden(s, gene_block(s, a, b, c, d), c)

@register("stepwise")
class Stepwise:
    '''Wrong by `bias`, after as many steps as it is let.'''

    reports = True

    def __init__(self, *, bias: float = 0.0, steps: int = 9) -> None:
        self.bias, self.steps = bias, steps

    def fit(self, train):
        self.train_ = train
        for step in range(1, self.steps + 1):
            report = getattr(self, "report_", None)
            if report is not None:
                report(step)
        return self

    def predict(self, queries):
        for query in queries:
            profile = self.train_.control_pseudobulk(query.context) + self.bias
            yield Prediction(query, profile=profile)
"""
JOB = """
kind: search
dataset: sim:tiny?contexts=1&genes=60
split: listed
model: stepwise
space: {bias: {uniform: [0.0, 1.0]}}
sampler: {kind: random, seed: 1}
scheduler: {kind: asha, grace: 1, factor: 3}
budget: {trials: 10}
metric: {suite: vcc2025, name: mae}
"""
CLUSTER = "{kind: local, num_cpus: 2, object_store_memory: 80MiB}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    installed = folder / "packages" / "stepwise-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: stepwise\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[harness.models]\nstepwise = stepwise:Stepwise\n")
    (folder / "packages" / "stepwise.py").write_text(MODEL)
    (folder / "find.yaml").write_text(JOB)
    (folder / "two.yaml").write_text(CLUSTER)
    return folder


def start(folder: Path, run: Path, *held: str) -> subprocess.Popen[bytes]:
    """Start a driver; one to which what is `held` is hidden until it has chosen."""
    job, cluster = str(folder / "find.yaml"), str(folder / "two.yaml")
    command = [sys.executable, "-m", "harness", "run", job, "-o", str(run), "--on", cluster]
    environment = os.environ | {
        "HARNESS_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join([str(folder / "packages"), os.environ.get("PYTHONPATH", "")]),
        "HELD": ",".join(held),
        "CHOSEN": str(run / "tables" / "search.csv") if held else "",
    }
    with (folder / f"{run.name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def ended(run: Path) -> dict[str, int]:
    """The settings that ended, and when each was written down."""
    return {path.name: path.stat().st_mtime_ns for path in run.glob("search/*/*.json")}


def sides(run: Path) -> dict[str, str]:
    """The side of each trial that was begun."""
    specs = {path.parent.name: path.read_text() for path in run.glob("trials/*/spec.json")}
    return {trial: json.loads(text).get("side", "test") for trial, text in specs.items()}


def held_out(run: Path) -> list[str]:
    """The perturbations of the test pairs."""
    [trial] = [trial for trial, side in sides(run).items() if side == "test"]
    spec = json.loads((run / "trials" / trial / "spec.json").read_text())
    return sorted({pair["perturbation"] for pair in json.loads(spec["split_spec"])["test"]})


def table(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "tables" / "search.csv").drop(columns="seconds")


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_end(folder: Path) -> None:
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    assert start(folder, undisturbed).wait(timeout=200) == 0, (
        folder / "undisturbed.log"
    ).read_text()
    held = held_out(undisturbed)
    driver = start(folder, disturbed, *held)
    deadline = time.monotonic() + 120
    while len(ended(disturbed)) < 4:
        assert driver.poll() is None, (folder / "disturbed.log").read_text()
        assert time.monotonic() < deadline, "no setting ended in two minutes"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # Ray's workers notice that their driver is gone
    before = ended(disturbed)
    assert 4 <= len(before) < 10
    assert set(sides(disturbed).values()) == {"validation"}
    assert not (disturbed / "tables" / "search.csv").exists()
    driver = start(folder, disturbed, *held)
    assert driver.wait(timeout=200) == 0, (folder / "disturbed.log").read_text()
    assert {name: ended(disturbed)[name] for name in before} == before
    tried = table(disturbed)
    pd.testing.assert_frame_equal(tried, table(undisturbed))
    assert (disturbed / "hidden").exists()  # rows between two that are wanted are read with them
    assert sorted(sides(disturbed).values()) == sorted(sides(undisturbed).values())
    [test] = [trial for trial, side in sides(disturbed).items() if side == "test"]
    last = max(ended(disturbed).values())
    assert (disturbed / "trials" / test / "spec.json").stat().st_mtime_ns > last
    scores = (f"{run}/results/{test}.parquet" for run in (disturbed, undisturbed))
    pd.testing.assert_frame_equal(*map(pd.read_parquet, scores))

    stopped = tried[tried["state"] == "stopped"]
    assert len(stopped) >= 3
    assert set(tried["state"]) == {"done", "stopped"}
    assert stopped["steps"].max() < 9
    assert (tried.loc[tried["state"] == "done", "steps"] == 9).all()
    assert tried.loc[tried["chosen"], "bias"].tolist() == [tried["bias"].min()]
    failure = disturbed / "trials" / stopped["trials"].iloc[0] / "failure.json"
    assert json.loads(failure.read_text())["cause"] == "stopped"
    causes = read_ledger(str(disturbed)).causes
    assert all(cause.startswith("stopped: ") for cause in causes)
