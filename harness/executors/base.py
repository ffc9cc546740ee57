"""What every executor promises, and the one place where a failure becomes data.

An executor gets calls (a function and its arguments) and yields outcomes in the order in which
they finish. It knows nothing of trials. The contract, which ``tests/contracts/executor.py`` holds
every implementation to:

- one outcome for each call, whatever happens to it; the others go on;
- a call may be followed by another (`then`), with needs of its own: it is made once the first has
  returned, before calls that were not begun, and the outcome is that of the last one made;
- calls are taken from the iterable only as room appears, so that a job of any length costs the
  driver no more than the calls in flight; an iterable that gives None has no call until one of
  those in flight has ended;
- an exception raised by the function is recorded and not retried: it would be raised again;
- a worker that is lost (killed, its node gone) is replaced and the call tried again, a declared
  number of times; one that was killed for its memory once, with more of it;
- a call that outlives its time limit, or whose worker gives no sign of life, is ended and recorded.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.executors.resources import Resources
from harness.executors.threads import pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Cause = Literal["", "raised", "lost", "memory", "time", "stalled"]

Worker = Literal["pooled", "single_use", "persistent"]
"""Which process carries a call: any; one of its own, which ends with it, so that nothing of a GPU's
memory is left; one that stays for others with the same needs, so that what is on the GPU stays."""


class TimeLimitError(Exception):
    """A call ran longer than it may."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function to be called somewhere, with what it needs there.

    Attributes
    ----------
    limit_s
        Wall time after which an attempt is ended; None for no limit.
    stall_s, silence
        An attempt is ended when `silence`, asked in the driver with the time at which the attempt
        was submitted, is more seconds than `stall_s`: how long its worker has given no sign of
        life, 0 before its first.
    age
        Asked likewise: how many seconds ago the worker began, 0 where nobody knows. It tells a
        worker that was ended at its limit from one that was lost after a long wait for its turn.
    worker
        Which process carries it; all the same where there is one only.
    then
        What to call when this has returned.
    """

    key: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    resources: Resources = field(default_factory=Resources)
    limit_s: float | None = None
    stall_s: float | None = None
    silence: Callable[[float], float] | None = None
    age: Callable[[float], float] | None = None
    worker: Worker = "pooled"
    then: Call | None = None

    @property
    def for_worker(self) -> Call:
        """The call as it travels: without what only the driver asks."""
        return replace(self, silence=None, age=None, then=None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: a value, or the reason why there is none.

    Attributes
    ----------
    cause
        Empty when the call returned; ``raised`` by the function itself; ``lost`` with its worker;
        ``memory`` when the worker was killed for using too much, or was refused more;
        ``time`` and ``stalled`` when the call was ended by its limits.
    error
        One line, with the type of the exception; empty when there is none.
    seconds
        Wall time of the last attempt, without waiting.
    unplaceable
        Whether the call is lost because no node has had its resources for too long.
    """

    key: str
    value: Any = None
    cause: Cause = ""
    error: str = ""
    traceback: str = ""
    attempts: int = 1
    seconds: float = 0.0
    host: str = ""
    unplaceable: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is no value to use."""
        return bool(self.cause)


def should_retry(outcome: Outcome, retries: int) -> bool:
    """Whether the worker was lost, and the call may be tried on another.

    A call that was killed for its memory, or refused more of it, gets one more chance, since its
    neighbours may have taken it; a second time says that it is the call itself.
    """
    if outcome.cause == "lost":
        return outcome.attempts <= retries
    return outcome.cause == "memory" and outcome.attempts <= min(1, retries)


class Executor(Protocol):
    """Runs calls somewhere; a context manager, because it may hold processes."""

    def check(self, *needs: Resources) -> None:
        """Raise `ClusterError` where a call with such needs could never run, before any does."""
        ...

    def run(self, calls: Iterable[Call | None]) -> Iterator[Outcome]:
        """Yield one outcome for each call, in the order in which they finish."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


def attempt(call: Call) -> Outcome:
    """Run one call here, on its threads; a failure becomes data: one bad trial stops no sweep.

    ``SystemExit`` counts as a failure too: a model that calls ``sys.exit`` must not end the sweep.
    ``KeyboardInterrupt`` passes through, since it is the user's.
    """
    start = time.perf_counter()
    host = platform.node()
    try:
        with pinned(call.resources.threads), time_limit(call.limit_s):
            value = call.function(*call.args)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the only place that may
        cause: Cause = "raised"
        if isinstance(error, TimeLimitError):
            cause = "time"
        elif isinstance(error, MemoryError):  # no mistake of the call's own
            cause = "memory"
        return Outcome(
            key=call.key,
            cause=cause,
            error=f"{type(error).__name__}: {error}",
            traceback=traceback.format_exc(),
            seconds=time.perf_counter() - start,
            host=host,
        )
    return Outcome(key=call.key, value=value, seconds=time.perf_counter() - start, host=host)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeLimitError` in the block once it has run so long.

    It is heard between two steps of the interpreter, not within a call to C that never returns; an
    executor with processes of its own ends those.
    """
    if seconds is None:
        yield
        return
    on_main_thread = threading.current_thread() is threading.main_thread()
    with _alarmed(seconds) if on_main_thread else _interrupted(seconds):
        yield


@contextmanager
def _alarmed(seconds: float) -> Iterator[None]:
    """Interrupt the main thread, also while it sleeps, by a signal."""

    def ring(number: int, frame: object) -> None:
        raise TimeLimitError(_too_long(seconds))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    """Interrupt any other thread, which no signal reaches: when it next runs Python."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread, over = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    timer = threading.Timer(
        seconds,
        lambda: over.acquire(blocking=False) and raise_in(thread, ctypes.py_object(TimeLimitError)),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    except TimeLimitError as error:
        raise TimeLimitError(_too_long(seconds)) from error
    finally:
        timer.cancel()
        if not over.acquire(blocking=False):
            raise_in(thread, None)  # in time after all: what was to be raised is taken back


def _too_long(seconds: float) -> str:
    return f"ran longer than its limit of {seconds:g} s"
