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
from typing import TYPE_CHECKING

import psutil

from harness.models.external import supervisor as keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TAIL = 5
"""How many of a program's last lines an error repeats."""


PATIENCE_SECONDS = keeper.GRACE_SECONDS + 10
"""How long the keeper may take to end everything before it is taken for stuck."""


IDLE_SHARE = 0.01
"""A program that takes less of one processor than this is waiting, not working."""


class _Vigil:
    """When a program last did something: wrote a line, or took processor time.

    That is the time of all processes below ours, among them those that have ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.cpu = pid, 0.0
        self.looked = self.active = time.monotonic()

    def heard(self) -> None:
        """Note that the program wrote something."""
        self.active = time.monotonic()

    def idle_seconds(self) -> float:
        """Return for how many seconds it has done nothing, as far as looks now and then tell."""
        now, cpu = time.monotonic(), _cpu_seconds(self.pid)
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


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and all below it, those that have ended included."""
    found = 0.0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                took = process.cpu_times()
                found += took.user + took.system + took.children_user + took.children_system
    return found


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
        "grace": keeper.GRACE_SECONDS,
    }
    tail: deque[str] = deque(maxlen=TAIL)
    # -P: what lies beside the keeper must not be imported in place of what it needs.
    kept = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-P", str(Path(keeper.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=tuple(held),
    )
    vigil = _Vigil(kept.pid)
    listener = threading.Thread(target=_listen, args=(kept, say, tail, vigil), daemon=True)
    try:
        listener.start()
        if not cleanup:  # else it runs elsewhere: in a container, which outlives its client
            _VIGILS.add(vigil)
        assert kept.stdin is not None
        kept.stdin.write(json.dumps(order) + "\n")
        kept.stdin.flush()
        status = kept.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(kept)
        listener.join(PATIENCE_SECONDS)
        raise ProgramError(
            f"ran longer than its limit of {seconds:g} s and was ended.", tuple(tail)
        ) from None
    finally:
        _VIGILS.discard(vigil)
        _end(kept)
        listener.join(PATIENCE_SECONDS)
        assert kept.stdout is not None
        if not listener.is_alive():  # closing what is being read would wait for it
            kept.stdout.close()
    if status:
        raise ProgramError(_why(status), tuple(tail))


def _listen(
    kept: subprocess.Popen[str], say: Callable[[str], None], tail: deque[str], vigil: _Vigil
) -> None:
    assert kept.stdout is not None
    for line in kept.stdout:
        vigil.heard()
        if text := line.rstrip():
            tail.append(text)
            say(text)


def _end(kept: subprocess.Popen[str]) -> None:
    """Close the pipe, at which the keeper ends everything; it is killed where it does not."""
    assert kept.stdin is not None
    with suppress(OSError):
        kept.stdin.close()
    try:
        kept.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(kept.pid, signal.SIGKILL)
        kept.wait()


def _why(status: int) -> str:
    number = status - 128 if status > 128 else -status
    with suppress(ValueError):
        name = signal.Signals(number).name
        memory = " Did it run out of memory?" if name == "SIGKILL" else ""
        return f"was killed by {name}.{memory}"
    return f"ended with status {status}."
