"""Runs one program, and sees to it that nothing of it outlives whoever asked.

Started by `process` as a process of its own, between the harness and the program. It
adopts whatever the program leaves behind (a child subreaper, on Linux), so that grandchildren in
sessions of their own are still found. It holds one end of a pipe: when the other end closes,
because the harness was killed, a trial was cancelled or a time limit passed, it ends the program
with all that it started, gently at first, and then itself. It does the same when the program ends
on its own.

It is two processes. Whoever ends a worker may kill its children, as Ray does, and with the keeper
the program would be without one: so the child only waits for a grandchild, in a session of its own,
that keeps. Should that one be killed, Linux ends the program itself, though not what it started.

A script, not a module that is imported: it must start quickly and needs psutil alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import psutil

GRACE_SECONDS = 5.0
"""How long a program may take to clean up once it is told to end."""

ENDED = 128 + signal.SIGTERM

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_ENDING = threading.Lock()


def main() -> int:
    """Carry out the order on the first line of stdin; return the program's exit status."""
    order = json.loads(_first_line())
    keeper = os.fork()
    if not keeper:
        os.setsid()
        os._exit(_keep(order))
    status = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    return status if status >= 0 else 128 - status


def _keep(order: dict[str, Any]) -> int:
    _tell_linux(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(  # noqa: S603 - the words of a declaration, no shell
            order["argv"],
            stdin=subprocess.DEVNULL,
            cwd=order["folder"],
            env=order["environment"],
            preexec_fn=_die_with_the_keeper,
        )
    except OSError as error:
        sys.stderr.write(f"{order['argv'][0]}: cannot be started: {error.strerror}\n")
        sys.stderr.flush()
        return 127
    threading.Thread(target=_end_with_the_harness, args=(order,), daemon=True).start()
    status = child.wait()
    _end(order)
    return status if status >= 0 else 128 - status


def _first_line() -> bytes:
    # By the descriptor: a thread that waits in `sys.stdin` holds a lock which Python needs to end.
    read = b""
    while not read.endswith(b"\n") and (more := os.read(0, 1 << 16)):
        read += more
    return read


def _die_with_the_keeper() -> None:
    _tell_linux(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tell_linux(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _end_with_the_harness(order: dict[str, Any]) -> None:
    """Wait until the other end of the pipe is closed, then end everything."""
    while os.read(0, 4096):
        pass
    _end(order)
    os._exit(ENDED)


def _end(order: dict[str, Any]) -> None:
    """End what is left of the program, once, whoever of the two threads is first."""
    with _ENDING:
        if not order.get("ended"):
            order["ended"] = True
            _end_all(order["grace"])
            if cleanup := order["cleanup"]:
                subprocess.run(cleanup, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - ours


def _end_all(grace: float) -> None:
    """End every process that the program started: asked first, then killed, until none is left."""
    deadline = time.monotonic() + grace
    _tell(signal.SIGTERM)
    while _living() and time.monotonic() < deadline:
        time.sleep(0.02)
    while _living():
        _tell(signal.SIGKILL)
        time.sleep(0.02)


def _tell(number: signal.Signals) -> None:
    for process in _living():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _living() -> list[psutil.Process]:
    """Return what the program started and has not ended; those that have are reaped by `wait`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main())
