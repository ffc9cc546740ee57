"""A search on Ray chooses as it does inline, and ends settings that exceed their limits."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from harness.models import base
from harness.models.base import _MODELS
from tests.searched import run_search, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.runs.runner import Report


@pytest.fixture
def search(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Report]:
    """Run the job with some of its keys changed."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return partial(run_search, tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_a_search_chooses_what_it_does_inline(
    search: Callable[..., Report], tmp_path: Path
) -> None:
    cluster = tmp_path / "two.yaml"
    cluster.write_text("{kind: local, num_cpus: 2, object_store_memory: 80MiB}", encoding="utf-8")
    changes = {"budget": {"trials": 6, "concurrent": 2}}
    inline = search(folder="inline", **changes)
    on_ray = search(folder="ray", on=str(cluster), **changes)
    pd.testing.assert_frame_equal(table(on_ray), table(inline))
    assert on_ray.plan.trials == inline.plan.trials


SLOW = """
import ctypes, time
from harness.models.base import register
from harness.models.means import ControlMean

@register("slow")
class Slow(ControlMean):
    def __init__(self, *, how: str = "fine") -> None:
        self.how = how

    def fit(self, train):
        while self.how == "sleeps":
            time.sleep(0.01)
        if self.how == "deaf":
            ctypes.PyDLL(None).sleep(600)
        return super().fit(train)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_setting_beyond_its_limits_is_ended_once_and_recorded(
    search: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    installed = packages / "slow-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[harness.models]\nslow = slow:Slow\n")
    (packages / "slow.py").write_text(SLOW)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), *sys.path]))
    # It was not installed when this process looked, and will not be for other tests.
    monkeypatch.setattr(base, "_offered", lambda: tuple(entry_points(group=base.GROUP)))
    monkeypatch.setattr(base, "_MODELS", dict(_MODELS))
    (tmp_path / "two.yaml").write_text("{kind: local, num_cpus: 2, object_store_memory: 80MiB}")
    report = search(
        on=str(tmp_path / "two.yaml"),
        model="slow",
        space={"how": {"choice": ["fine", "sleeps", "deaf"]}},
        sampler={"kind": "random", "seed": 1},
        budget={"trials": 4, "concurrent": 2},
        limits={"seconds": 30, "stall_seconds": 15},
        models=[],
    )
    tried = table(report)
    assert set(tried["how"]) == {"fine", "sleeps", "deaf"}
    ended = tried.groupby("how")["state"].unique().map(list).to_dict()
    assert ended == {"fine": ["done"], "sleeps": ["failed"], "deaf": ["failed"]}
    run = report.plan.run
    causes = {"sleeps": "time", "deaf": "stalled"}
    for how, trials in zip(tried["how"], tried["trials"], strict=True):
        if how != "fine":
            failure = run.failure(trials)
            assert failure is not None
            assert (failure["cause"], failure["attempts"]) == (causes[how], 1)
