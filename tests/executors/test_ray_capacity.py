"""Nodes that go in the midst of a run: what needs them waits for another, and not for ever."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.config.cluster import ClusterSpec
from harness.errors import ClusterError
from harness.executors import Call, open_executor
from harness.executors.ray_capacity import Capacity, with_more_memory
from harness.executors.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.executors import Executor, Outcome, Worker

NEEDS = Resources(cpus=1, custom={"rare": 1})
COMMON = Resources(cpus=1)

HEAD = {"CPU": 2.0, "memory": 8.0 * 2**30}
LARGE = {"CPU": 4.0, "GPU": 1.0, "memory": 2.0 * 2**30}


# --- what is known of the nodes -----------------------------------------------------------------


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The nodes that a cluster pretends to have, to be changed."""
    there = [HEAD, LARGE]
    monkeypatch.setattr(
        "harness.executors.ray_capacity.nodes", lambda: [{"Resources": node} for node in there]
    )
    return there


def test_needs_are_given_up_when_no_node_has_had_them_for_long(
    present: list[dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    places, gpu = Capacity(0.2), Resources(gpus=1)
    places.look([gpu, COMMON])
    assert not places.any_lacking
    present.remove(LARGE)
    with caplog.at_level(logging.WARNING, "harness.cluster"):
        places.look([gpu, COMMON])
        assert (places.any_lacking, places.given_up(gpu)) == (True, "")
        time.sleep(0.25)
        places.look([gpu, COMMON])
    assert places.given_up(gpu).startswith("No node of the Ray cluster has 1 CPU, 1 GPU, which one")
    assert "Found 1 node, the largest first: 1 with 2 CPUs, 0 GPUs, 8.0 GiB" in places.given_up(gpu)
    assert "Waited 0.2 s for one (wait_for_node_seconds). Run the same" in places.given_up(gpu)
    assert not places.given_up(COMMON)
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("No node of the Ray cluster has 1 CPU, 1 GPU any more; calls that need")
    present.append(LARGE)
    places.look([])
    assert not places.given_up(gpu)


def test_a_cluster_that_may_grow_is_waited_for_without_end() -> None:
    growing = ClusterSpec(kind="ray", address="auto", autoscaling=True)
    assert not Capacity(growing.patience).due


@pytest.mark.parametrize(
    ("needs", "memory"),
    [
        pytest.param(Resources(memory="1GiB"), 2 * 2**30, id="twice"),
        pytest.param(Resources(memory="5GiB"), 8 * 2**30, id="all_of_the_largest"),
        pytest.param(Resources(), 4 * 2**30, id="half_of_the_largest"),
        pytest.param(Resources(gpus=1), 1 * 2**30, id="half_of_the_largest_with_a_gpu"),
        pytest.param(Resources(gpus=1, memory="3GiB"), 3 * 2**30, id="never_less"),
    ],
)
@pytest.mark.usefixtures("present")
def test_more_memory_is_asked_of_a_node_that_has_the_rest(needs: Resources, memory: int) -> None:
    assert with_more_memory(needs).memory_bytes == memory


def test_this_machine_alone_has_no_node_to_wait_for() -> None:
    with pytest.raises(ValueError, match="wait_for_node_seconds is for kind 'ray'"):
        ClusterSpec(kind="local", wait_for_node_seconds=3)


# --- nodes that go ------------------------------------------------------------------------------

QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}
QUICK |= {"health_check_timeout_ms": 1000, "health_check_failure_threshold": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": QUICK})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def executor(cluster: Any) -> Iterator[Executor]:
    where = ClusterSpec(kind="ray", address=cluster.address, wait_for_node_seconds=3)
    with open_executor(where) as executor:
        yield executor


@pytest.fixture
def rare(cluster: Any) -> Any:
    return add_rare(cluster)


def add_rare(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, resources={"rare": 1}, object_store_memory=80 << 20)


def stay(marker: str, seconds: float = 60.0) -> str:
    """Take long where nobody was before."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        time.sleep(seconds)
    return "stayed"


def answer() -> str:
    return "here"


def until_begun(marker: Path) -> None:
    until = time.monotonic() + 30
    while not marker.exists():
        assert time.monotonic() < until, "the call never began"
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.parametrize("worker", ["pooled", pytest.param("persistent", marks=pytest.mark.slow)])
def test_calls_whose_only_node_is_gone_end_and_the_others_go_on(
    cluster: Any, executor: Executor, rare: Any, tmp_path: Path, worker: Worker
) -> None:
    def calls() -> Iterator[Call]:
        yield Call("first", stay, (str(tmp_path / "begun"),), NEEDS, worker=worker)
        yield Call("second", answer, (), NEEDS, worker=worker)
        yield Call("common", answer, (), COMMON)
        until_begun(tmp_path / "begun")
        cluster.remove_node(rare, allow_graceful=False)
        for i in range(50):
            yield Call(str(i), answer, (), NEEDS, worker=worker)
        yield Call("last", answer, (), COMMON)

    began = time.monotonic()
    outcomes: dict[str, Outcome] = {outcome.key: outcome for outcome in executor.run(calls())}
    assert time.monotonic() - began < 120  # not three seconds for each
    assert (outcomes.pop("common").value, outcomes.pop("last").value) == ("here", "here")
    assert len(outcomes) == 52
    assert {outcome.cause for outcome in outcomes.values()} == {"lost"}
    assert (outcomes["first"].attempts, outcomes["second"].attempts) == (1, 0)
    assert "has 1 CPU, 1 rare, which one call of a trial needs. Found 1 node" in outcomes["0"].error
    with pytest.raises(ClusterError, match="has 1 CPU, 1 rare, which one call"):
        executor.check(NEEDS)


@pytest.mark.ray
def test_a_node_that_comes_back_in_time_is_waited_for(
    cluster: Any, executor: Executor, rare: Any, tmp_path: Path
) -> None:
    def calls() -> Iterator[Call]:
        yield Call("first", stay, (str(tmp_path / "begun"),), NEEDS)
        until_begun(tmp_path / "begun")
        cluster.remove_node(rare, allow_graceful=False)
        nodes.append(add_rare(cluster))
        yield Call("second", answer, (), NEEDS)

    nodes: list[Any] = []
    outcomes = {outcome.key: outcome for outcome in executor.run(calls())}
    assert (outcomes["first"].value, outcomes["first"].attempts) == ("stayed", 2)
    assert outcomes["second"].value == "here"
    cluster.remove_node(nodes[0], allow_graceful=False)
