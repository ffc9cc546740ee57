"""The executor contract over every executor, and what only a cluster can show."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.config.cluster import ClusterSpec
from harness.errors import ClusterError
from harness.executors import Call, InlineExecutor, attempt, open_executor
from harness.executors.resources import Resources
from tests.contracts import executor as contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.executors import Executor, Worker


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[Executor]:
    cluster = ClusterSpec(
        kind="local",
        num_cpus=2,
        num_gpus=2,
        object_store_memory="80MiB",
        max_in_flight=4,
        retries=2,
    )
    with open_executor(cluster) as executor:
        yield executor


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "inline":
        return InlineExecutor()
    return request.getfixturevalue("ray_executor")


@pytest.mark.parametrize("clause", contract.CONTRACT, ids=lambda clause: clause.__name__)
def test_contract(executor: Executor, clause: Callable[[Executor], None]) -> None:
    clause(executor)


@pytest.mark.ray
def test_a_call_that_no_node_could_run_is_refused_with_what_there_is(
    ray_executor: Executor,
) -> None:
    ray_executor.check(Resources(cpus=2), Resources(cpus=0.5, memory="1MiB"))
    with pytest.raises(
        ClusterError,
        match=r"has 1 CPU, 3 GPUs, .* Found 1 node, the largest first: 1 with 2 CPUs, 2 GPUs",
    ):
        ray_executor.check(Resources(cpus=1), Resources(cpus=1, gpus=3))
    with pytest.raises(ClusterError, match=r"has 1 CPU, 2 big_disk, which"):
        ray_executor.check(Resources(custom={"big_disk": 2}))


def where(gpus: bool = False) -> tuple[int, str]:
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.ray
def test_a_fit_on_a_gpu_has_a_process_of_its_own(ray_executor: Executor) -> None:
    def pids(worker: Worker) -> list[int]:
        calls = [Call(str(i), where, (), Resources(gpus=1), worker=worker) for i in range(4)]
        return [outcome.value[0] for outcome in ray_executor.run(calls)]

    assert len(set(pids("single_use"))) == 4
    assert len(set(pids("persistent"))) <= 2


@pytest.mark.ray
def test_scoring_on_a_share_of_a_gpu_stays_in_its_processes(ray_executor: Executor) -> None:
    needs = Resources(cpus=0.5, gpus=0.5)
    calls = [Call(str(i), where, (), needs, worker="persistent") for i in range(12)]
    found = [outcome.value for outcome in ray_executor.run(calls)]
    assert len(found) == 12
    assert len({pid for pid, _ in found}) <= 4
    assert {gpu for _, gpu in found} <= {"0", "1"}


@pytest.mark.ray
def test_a_lasting_worker_that_dies_costs_one_attempt(
    ray_executor: Executor, tmp_path: Path
) -> None:
    needs, marker = Resources(gpus=1), str(tmp_path / "died")
    calls = [Call("dies", contract.die_once, (marker,), needs, worker="persistent")]
    calls += [Call(str(i), where, (), needs, worker="persistent") for i in range(4)]
    outcomes = contract.run(ray_executor, *calls)
    assert (outcomes["dies"].value, outcomes["dies"].attempts) == ("survived", 2)
    assert not any(outcome.failed for outcome in outcomes.values())


@pytest.mark.ray
def test_a_lasting_worker_gives_way_to_a_fit_that_needs_its_gpu(
    ray_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.executors import ray_workers

    monkeypatch.setattr(ray_workers.Workers.release, "__defaults__", (0.5,))
    both = Resources(gpus=2)
    calls = [Call("score", where, (), Resources(gpus=1), worker="persistent")]
    calls += [Call(str(i), where, (), both, worker="single_use") for i in range(2)]
    outcomes = contract.run(ray_executor, *calls)
    seen = {key: outcome.value[1] for key, outcome in outcomes.items()}
    assert (len(seen["score"]), seen["0"], seen["1"]) == (1, "0,1", "0,1")


@pytest.mark.ray
@pytest.mark.parametrize("worker", ["pooled", "persistent"])
def test_a_worker_that_waited_long_is_lost_and_not_late(
    ray_executor: Executor, tmp_path: Path, worker: Worker
) -> None:
    """Its limit counts from when it began, which the run folder says, not from its submission."""
    marker = str(tmp_path / "died")
    call = Call("dies", contract.die_once, (marker,), limit_s=0.01, worker=worker, age=lambda s: 0)
    outcome = contract.run(ray_executor, call)["dies"]
    assert (outcome.value, outcome.attempts) == ("survived", 2)


@pytest.mark.ray
def test_a_silent_call_on_a_lasting_worker_is_ended(ray_executor: Executor) -> None:
    needs = Resources(gpus=1)
    silent = Call("silent", contract.hang, (), needs, None, 20.0, lambda since: 21.0)
    outcome = contract.run(ray_executor, replace(silent, worker="persistent"))["silent"]
    assert (outcome.cause, outcome.attempts) == ("stalled", 1)


def test_a_cluster_that_may_grow_refuses_nothing() -> None:
    growing = ClusterSpec(kind="ray", address="auto", autoscaling=True)
    open_executor(growing).check(Resources(gpus=64))


@pytest.mark.ray
@pytest.mark.parametrize("end", [contract.die_once, contract.be_preempted_once])
@pytest.mark.parametrize("worker", ["pooled", "persistent"])
def test_a_lost_worker_costs_one_attempt(
    ray_executor: Executor, tmp_path: Path, end: Callable[[str], str], worker: Worker
) -> None:
    call = Call("dies", end, (str(tmp_path / "died"),), worker=worker)
    outcome = contract.run(ray_executor, call)["dies"]
    assert (outcome.value, outcome.attempts, outcome.cause) == ("survived", 2, "")


@pytest.mark.ray
def test_a_call_that_loses_every_worker_is_given_up(ray_executor: Executor) -> None:
    outcomes = contract.run(
        ray_executor, Call("dies", contract.die), Call("good", contract.square, (2,))
    )
    assert outcomes["good"].value == 4
    assert (outcomes["dies"].cause, outcomes["dies"].attempts) == ("lost", 3)


@pytest.mark.ray
def test_a_call_that_gets_no_memory_is_tried_once_more(ray_executor: Executor) -> None:
    outcome = contract.run(ray_executor, Call("starves", contract.starve))["starves"]
    assert (outcome.cause, outcome.attempts) == ("memory", 2)


@pytest.mark.ray
@pytest.mark.slow
def test_a_call_that_hears_no_alarm_dies_with_its_worker(ray_executor: Executor) -> None:
    outcomes = contract.run(
        ray_executor, Call("deaf", contract.hang, limit_s=0.5), Call("good", contract.square, (2,))
    )
    assert outcomes["good"].value == 4
    assert (outcomes["deaf"].cause, outcomes["deaf"].attempts) == ("time", 1)
    assert outcomes["deaf"].error.startswith("WorkerCrashedError")  # it could not raise this itself


@pytest.mark.ray
def test_a_silent_call_is_ended(ray_executor: Executor) -> None:
    silent = Call("silent", contract.hang, stall_s=20.0, silence=lambda since: 21.0)
    outcome = contract.run(ray_executor, silent)["silent"]
    assert (outcome.cause, outcome.attempts) == ("stalled", 1)
    assert outcome.error == "no sign of life for 21 s, limit 20 s"


def busy(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    return "done"


@pytest.mark.parametrize(
    ("seconds", "cause"), [(30.0, "time"), (0.0, "")], ids=["too_long", "in_time"]
)
def test_a_limit_is_heard_in_any_thread(seconds: float, cause: str) -> None:
    call = Call("busy", busy, (seconds,), limit_s=0.3)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(attempt, call).result()
        assert outcome.cause == cause
        assert ("limit of 0.3 s" in outcome.error) == bool(cause)
        assert outcome.seconds < 10
        # The same thread is not interrupted afterwards, by what came too late for the call.
        assert pool.submit(busy, 0.5).result() == "done"


def granted(marker: str, how: str) -> int:
    """Return how much memory it was given; have too little the first time, or ever."""
    import ray

    path = Path(marker)
    if not path.exists() or how == "killed again":
        path.touch()
        if how == "refused":
            raise MemoryError("Unable to allocate 1.00 PiB")
        os._exit(1)
    return int(ray.get_runtime_context().get_assigned_resources()["memory"])


@pytest.fixture
def monitored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ray say of a worker that died what it says of one that its memory monitor killed."""
    import ray

    plain_get = ray.get

    def get(reference: Any) -> Any:
        try:
            return plain_get(reference)
        except ray.exceptions.WorkerCrashedError as error:
            raise ray.exceptions.OutOfMemoryError("the node was low on memory") from error

    monkeypatch.setattr(ray, "get", get)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("monitored")
def test_a_call_without_memory_is_tried_once_more_with_twice_as_much(
    ray_executor: Executor, tmp_path: Path
) -> None:
    ways, needs = ("killed", "refused", "killed again"), Resources(memory="100MiB")
    calls = [Call(how, granted, (str(tmp_path / how), how), needs) for how in ways]
    outcomes = contract.run(ray_executor, *calls)
    ends = [(outcomes[how].value, outcomes[how].cause, outcomes[how].attempts) for how in ways]
    assert ends == [(200 << 20, "", 2), (200 << 20, "", 2), (None, "memory", 2)]


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "2,3")], ids=["none", "one"])
def test_inline_a_call_that_asks_for_no_gpu_sees_none(
    monkeypatch: pytest.MonkeyPatch, gpus: float, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    call = Call("look", os.environ.get, ("CUDA_VISIBLE_DEVICES",), Resources(gpus=gpus))
    assert contract.run(InlineExecutor(), call)["look"].value == seen
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    contract.run(InlineExecutor(), call)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
