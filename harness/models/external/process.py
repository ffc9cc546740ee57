"""Run a program of someone else's: its output as it comes, its time limited, its children ended.

The program runs under `supervisor`, a process that ends with this one. So nothing is left
behind when a block is left by an exception, when a worker is killed outright, or when the machine
that drives a run is switched off.

Whether a program lives is told by what it does, since this process lives beside it whatever it
does: `idle_seconds` returns how long the programs of this process have been idle.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from harness.models.external import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TAIL = 5
"""How many of a program's last lines an error repeats."""

PATIENCE_SECONDS = supervisor.GRACE_SECONDS + 10
"""How long the supervisor may take to end everything before it is taken for stuck."""

IDLE_SHARE = 0.01
"""A program that takes less of one processor than this is waiting, not working."""


class _Vigil:
    """When a program last did something: wrote a line, or took processor time.

    That is the time of all processes below ours, among them those that have ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.cpu = pid, 0.0
        self.looked = self.active = time.monotonic()

    def idle_seconds(self) -> float:
        """Return for how many seconds it has done nothing, as far as looks now and then tell."""
        now, cpu = time.monotonic(), 0.0
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    took = process.cpu_times()
                    cpu += took.user + took.system + took.children_user + took.children_system
        if abs(cpu - self.cpu) > IDLE_SHARE * (now - self.looked):
            self.active = now
        self.looked, self.cpu = now, cpu
        return now - self.active


_VIGILS: set[_Vigil] = set()


def idle_seconds() -> float:
    """Return the seconds since a program of this process last used the CPU or wrote; 0 without one.

    The longest of several programs. Containers count as busy: their CPU time is not visible.
    """
    return max((vigil.idle_seconds() for vigil in tuple(_VIGILS)), default=0.0)


class ProgramError(Exception):
    """A program failed: what happened, and the last lines that it wrote."""

    def __init__(self, what: str, tail: tuple[str, ...]) -> None:
        super().__init__(what, tail)
        self.what, self.tail = what, tail

    def __str__(self) -> str:
        said = " Its last lines:\n" + "\n".join(f"  {line}" for line in self.tail)
        return self.what + (said if self.tail else " It wrote nothing.")


def run_program(  # noqa: PLR0913 - all but the program by keyword, and no two belong together
    argv: Sequence[str],
    *,
    folder: str,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    seconds: float | None = None,
    cleanup: Sequence[str] = (),
    held: Sequence[int] = (),
) -> None:
    """Run a program to its end.

    Parameters
    ----------
    argv
        The program and its arguments; no shell reads them.
    folder, environment
        Its working folder, and all of its environment variables.
    say
        Told each line that it writes, as it comes; progress bars that redraw themselves too.
    seconds
        After so long it is ended.
    cleanup
        A command that is run once it has ended, however it did.
    held
        Open files, as of a lock, that stay open until all of it has ended, also where this process
        ends before.

    Raises
    ------
    ProgramError
        It could not be started, failed, was killed or took too long.
    """
    order = {
        "argv": list(argv),
        "folder": folder,
        "environment": dict(environment),
        "cleanup": list(cleanup),
        "grace": supervisor.GRACE_SECONDS,
    }
    # -P: what lies beside the script must not be imported in place of what it needs.
    process = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-P", str(Path(supervisor.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=tuple(held),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    vigil, tail = _Vigil(process.pid), deque[str](maxlen=TAIL)

    def listen(output: IO[str]) -> None:
        for line in output:
            vigil.active = time.monotonic()
            if text := line.rstrip():
                tail.append(text)
                say(text)

    listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
    status = None
    try:
        listener.start()
        if not cleanup:  # else it runs elsewhere: in a container, which outlives its client
            _VIGILS.add(vigil)
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(seconds)
    finally:
        _VIGILS.discard(vigil)
        _end(process)
        listener.join(PATIENCE_SECONDS)
        if not listener.is_alive():  # closing what is being read would wait for it
            process.stdout.close()
    if status is None:
        what = f"ran longer than its limit of {seconds:g} s and was ended."
        raise ProgramError(what, tuple(tail))
    if status:
        raise ProgramError(_why(status), tuple(tail))


def _end(process: subprocess.Popen[str]) -> None:
    """Close the pipe, at which the supervisor ends everything; it is killed where it does not."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _why(status: int) -> str:
    """Name what ended a program: a signal, or a status of its own."""
    number = status - 128 if status > 128 else -status
    with suppress(ValueError):
        name = signal.Signals(number).name
        memory = " Did it run out of memory?" if name == "SIGKILL" else ""
        return f"was killed by {name}.{memory}"
    return f"ended with status {status}."
