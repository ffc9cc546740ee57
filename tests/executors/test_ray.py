"""What the Ray executor says when there is no cluster to run on."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from harness.config.cluster import ClusterSpec
from harness.errors import ClusterError
from harness.executors import open_executor


@pytest.mark.ray
def test_an_address_where_nobody_answers_is_an_error() -> None:
    nobody = ClusterSpec(kind="ray", address="127.0.0.1:1")
    with (
        pytest.raises(ClusterError, match=r"No Ray cluster answers at '127.0.0.1:1'"),
        open_executor(nobody),
    ):
        pass


@pytest.mark.ray
@pytest.mark.parametrize(("failures", "begun"), [(1, True), (2, False)])
def test_a_start_that_a_busy_machine_was_too_slow_for_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, failures: int, *, begun: bool
) -> None:
    from harness.executors import ray as ray_cluster

    calls = []

    def init(**options: object) -> None:
        calls.append(options)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup. This could happen …")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    expected = nullcontext() if begun else pytest.raises(ClusterError, match="half a minute, twice")
    with expected, open_executor(ClusterSpec(kind="local")):
        pass
    assert len(calls) == 2
