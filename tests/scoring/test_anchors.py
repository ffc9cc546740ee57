"""The ends of the 2026 scale are made once for a truth, and found the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from harness.metrics.suites import suite_named
from harness.scoring import truth as prepared
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import prepare
from tests.golden import cases2026, compare

if TYPE_CHECKING:
    from pathlib import Path

    from harness.scoring.anchors import Anchors

NAMES = suite_named("vcc2026").metrics


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The metrics of every time that anchors were computed."""
    calls: list[tuple[str, ...]] = []

    def counting(truth: Any, names: Any) -> Anchors:
        calls.append(tuple(names))
        return anchors(truth, names)

    anchors = prepared.anchors
    monkeypatch.setattr(prepared, "anchors", counting)
    return calls


def test_anchors_are_kept_and_come_back_equal(tmp_path: Path, made: list[Any]) -> None:
    path = str(tmp_path / "truth.h5ad")
    compare.annotated(cases2026.SIMULATED["plain"]().truth).write_h5ad(path)

    def ends(**reading: Any) -> Anchors:
        kept = str(tmp_path / "reference")
        truth = prepare(path, ScoringOptions(threads=2, **reading), suite="vcc2026", reference=kept)
        return truth.anchors(NAMES)

    first, again = ends(), ends()
    assert len(made) == 1
    pd.testing.assert_frame_equal(first.baseline, again.baseline)
    pd.testing.assert_frame_equal(first.splits, again.splits)
    untargeted = ends(no_target_genes=True)
    assert len(made) == 2, "target genes that stay in are other anchors"
    assert not untargeted.baseline.equals(first.baseline)


def test_anchors_of_a_truth_in_memory_are_not_kept(made: list[Any]) -> None:
    truth = compare.annotated(cases2026.SIMULATED["plain"]().truth)
    for _ in range(2):
        prepare(truth, ScoringOptions(threads=2), suite="vcc2026").anchors(NAMES)
    assert len(made) == 2
