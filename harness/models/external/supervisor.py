"""Runs one program, and sees to it that nothing of it outlives whoever asked.

Started by `process` as a process of its own, between the harness and the program. It
adopts whatever the program leaves behind (a child subreaper, on Linux), so that grandchildren in
sessions of their own are still found. It holds one end of a pipe: when the other end closes,
because the harness was killed, a trial was cancelled or a time limit passed, it ends the program
with all that it started, gently at first, and then itself. It does the same when the program ends
on its own.

It is two processes. Ray kills the children of a worker that it ends, and a killed supervisor
could not end the program: so the child forks, and its own child, in a session of
its own, supervises. The first waits for it, and ends what is left where that one is killed.

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
from functools import partial
from typing import Any

import psutil

GRACE_SECONDS = 5.0
"""How long a program may take to clean up once it is told to end."""

ENDED = 128 + signal.SIGTERM

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_ENDING = threading.Lock()


def main() -> int:
    """Carry out the order on the first line of stdin; return the program's exit status."""
    # By the descriptor: a thread that waits in `sys.stdin` holds a lock which Python needs to end.
    read = b""
    while not read.endswith(b"\n") and (more := os.read(0, 1 << 16)):
        read += more
    order = json.loads(read)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.fork()
    if not supervisor:
        os.setsid()
        os._exit(_supervise(order))
    status = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
    if status < 0:  # it was killed, and this process has adopted what the program had started
        _end(order)
    return status if status >= 0 else 128 - status


def _supervise(order: dict[str, Any]) -> int:
    """Run the program; return its exit status once nothing of it is left."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a fork is none, though its parent is
    try:
        child = subprocess.Popen(  # noqa: S603 - the words of a declaration, no shell
            order["argv"],
            stdin=subprocess.DEVNULL,
            cwd=order["folder"],
            env=order["environment"],
            preexec_fn=partial(_prctl, _PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        sys.stderr.write(f"{order['argv'][0]}: cannot be started: {error.strerror}\n")
        sys.stderr.flush()
        return 127
    threading.Thread(target=_end_with_the_harness, args=(order,), daemon=True).start()
    status = child.wait()
    _end(order)
    return status if status >= 0 else 128 - status


def _end_with_the_harness(order: dict[str, Any]) -> None:
    """Wait until the other end of the pipe is closed, then end everything."""
    while os.read(0, 4096):
        pass
    _end(order)
    os._exit(ENDED)


def _end(order: dict[str, Any]) -> None:
    """End all that the program started; the second of two threads that call it does nothing."""
    with _ENDING:
        if order.get("ended"):
            return
        order["ended"] = True
        deadline = time.monotonic() + order["grace"]
        _signal_all(signal.SIGTERM)
        while _signal_all(0) and time.monotonic() < deadline:
            time.sleep(0.02)
        while _signal_all(signal.SIGKILL):
            time.sleep(0.02)
        if cleanup := order["cleanup"]:
            subprocess.run(cleanup, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 - ours


def _signal_all(number: int) -> bool:
    """Send a signal (0 is none) to all that lives of the program; return whether any did."""
    any_lives = False
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                any_lives = True
                process.send_signal(number)
    return any_lives


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
