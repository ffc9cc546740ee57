"""What every executor must satisfy; `test_executors.py` runs it over all of them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.executors import Call
from harness.executors.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.executors import Executor, Outcome


def square(x: int) -> int:
    return x * x


def fail(message: str) -> None:
    raise ValueError(message)


def starve() -> None:
    raise MemoryError("Unable to allocate 1.00 PiB")


def leave() -> None:
    sys.exit("a model called sys.exit")


def die_once(marker: str) -> str:
    """Kill the worker the first time, answer the second."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os._exit(1)
    return "survived"


def be_preempted_once(marker: str) -> str:
    """Be told to go, as by a node that is taken away; answer the second time."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    return "survived"


def die() -> None:
    os._exit(1)


def hang() -> None:
    """Sleep in C, holding the interpreter, deaf to every signal: none may wake it either."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    library = ctypes.PyDLL(None)
    library.sleep(600)


def run(executor: Executor, *calls: Call) -> dict[str, Outcome]:
    return {outcome.key: outcome for outcome in executor.run(calls)}


def every_call_has_one_outcome(executor: Executor) -> None:
    outcomes = list(executor.run(Call(str(i), square, (i,)) for i in range(20)))
    assert sorted(outcome.key for outcome in outcomes) == sorted(str(i) for i in range(20))
    assert all(outcome.value == int(outcome.key) ** 2 for outcome in outcomes)
    assert all(outcome.host and outcome.attempts == 1 for outcome in outcomes)


def an_iterable_without_a_call_is_asked_again(executor: Executor) -> None:
    ended: list[str] = []

    def calls() -> Iterator[Call | None]:
        yield Call("first", square, (2,))
        while not ended:
            yield None
        yield Call("second", square, (3,))

    ended.extend(outcome.key for outcome in executor.run(calls()))
    assert ended == ["first", "second"]


def a_call_that_raises_does_not_stop_the_others(executor: Executor) -> None:
    outcomes = run(executor, Call("bad", fail, ("no such gene",)), Call("good", square, (3,)))
    assert outcomes["good"].value == 9
    bad = outcomes["bad"]
    assert (bad.cause, bad.attempts) == ("raised", 1)
    assert bad.error == "ValueError: no such gene"
    assert "in fail" in bad.traceback


def a_call_that_gets_no_memory_says_so(executor: Executor) -> None:
    outcome = run(executor, Call("starves", starve))["starves"]
    assert (outcome.cause, outcome.error) == ("memory", "MemoryError: Unable to allocate 1.00 PiB")


def a_call_that_exits_is_a_failure(executor: Executor) -> None:
    outcome = run(executor, Call("exit", leave))["exit"]
    assert outcome.cause == "raised"
    assert "sys.exit" in outcome.error


def calls_are_taken_only_as_room_appears(executor: Executor) -> None:
    taken: list[int] = []

    def calls() -> Iterator[Call]:
        for i in range(200):
            taken.append(i)
            yield Call(str(i), time.sleep, (0.001,))

    outcomes = executor.run(calls())
    next(outcomes)
    assert len(taken) < 100
    assert sum(1 for _ in outcomes) == 199


def a_call_that_outlives_its_limit_is_ended(executor: Executor) -> None:
    slow = Call("slow", time.sleep, (60,), limit_s=0.5)
    outcomes = run(executor, slow, Call("good", square, (2,), limit_s=30))
    assert outcomes["good"].value == 4
    assert (outcomes["slow"].cause, outcomes["slow"].attempts) == ("time", 1)
    assert "limit of 0.5 s" in outcomes["slow"].error
    assert outcomes["slow"].seconds < 10


def note(path: str, text: str) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text)
    return text


def a_call_is_followed_by_the_next_of_its_chain(executor: Executor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "notes"))
        needs = (Resources(cpus=1), Resources(cpus=2), Resources(cpus=0.5))
        first, second, third = (
            Call("a", note, (path, text), need) for text, need in zip("abc", needs, strict=True)
        )
        chain = replace(first, then=replace(second, then=third))
        [outcome] = executor.run([chain])
        assert outcome.value == "c"
        assert Path(path).read_text(encoding="utf-8") == "abc"


def nothing_follows_a_call_that_fails(executor: Executor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "notes"))
        bad = Call("bad", fail, ("no",), then=Call("bad", note, (path, "never")))
        outcomes = run(executor, bad, Call("good", square, (2,)))
        assert (outcomes["bad"].cause, outcomes["good"].value) == ("raised", 4)
        assert not Path(path).exists()


def threads() -> dict[str, int]:
    """Return how many threads each library would use."""
    import numba
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    found = {pool["user_api"]: pool["num_threads"] for pool in threadpool_info()}
    return found | {
        "numba": numba.get_num_threads(),
        "programs": int(os.environ["OMP_NUM_THREADS"]),
    }


def a_call_has_the_threads_that_it_asked_for(executor: Executor) -> None:
    import numba

    for cpus in (2, 1):
        # Twice: the first loads the libraries in its worker, the second finds them there.
        calls = [Call(str(i), threads, (), Resources(cpus=cpus)) for i in range(2)]
        for found in (outcome.value for outcome in executor.run(calls)):
            assert found["blas"] == found["programs"] == cpus
        assert found["numba"] == min(cpus, numba.config.NUMBA_NUM_THREADS)


CONTRACT = (
    an_iterable_without_a_call_is_asked_again,
    a_call_is_followed_by_the_next_of_its_chain,
    nothing_follows_a_call_that_fails,
    a_call_has_the_threads_that_it_asked_for,
    a_call_that_outlives_its_limit_is_ended,
    every_call_has_one_outcome,
    a_call_that_raises_does_not_stop_the_others,
    a_call_that_gets_no_memory_says_so,
    a_call_that_exits_is_a_failure,
    calls_are_taken_only_as_room_appears,
)
