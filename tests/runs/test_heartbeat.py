"""What stages cost, added up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs.heartbeat import Cost, total_cost

# --- cost ---------------------------------------------------------------------------------------


def test_costs_add_up_and_memory_is_the_largest() -> None:
    def cost(seconds: float, memory: int) -> Cost:
        return Cost(
            seconds=seconds,
            cpu_seconds=2 * seconds,
            gpu_seconds=seconds / 2,
            peak_memory=memory,
            host="n1",
        )

    found = total_cost({"fit": cost(2.0, 7), "score": cost(1.0, 9)})
    assert found["seconds"] == {"fit": 2.0, "score": 1.0}
    totals = ("wall_seconds", "cpu_seconds", "gpu_seconds", "peak_memory")
    assert [found[name] for name in totals] == [3.0, 6.0, 1.5, 9]


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak"
)
def test_a_trial_has_not_the_peak_of_one_before_it_in_the_same_process() -> None:
    code = (
        "import numpy as np; from harness.runs.heartbeat import reset_peak_memory, peak_memory\n"
        "block = np.ones(40_000_000 // 8); del block\n"
        "before = peak_memory(); reset_peak_memory(); print(before - peak_memory())"
    )  # in a process of its own: what other tests hold would hide it
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(said.stdout) > 20_000_000
