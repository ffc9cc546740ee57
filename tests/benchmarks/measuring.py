"""Run commands and tell what they took; what machine it was, and how busy. For Linux.

Processor seconds and the peak of memory are the kernel's, of the command and of the processes that
it waited for: of several processes the peak is the largest one's, not their sum. On a machine that
others use too, processor seconds are what to compare: they too rise under load, by a tenth or two,
where wall time doubles.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")
"""What would hold one side or both back: an older processor's kernels, modules compiled anew."""


class Run(NamedTuple):
    """What one run took."""

    wall: float
    busy: float
    peak_gb: float


def measured(command: Sequence[str], log: Path) -> Run:
    """Run a command to its end, its output into a file."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    start = time.perf_counter()
    with log.open("wb") as file:
        pid = os.posix_spawn(
            command[0],
            list(command),
            kept | {"PYTHONWARNINGS": "ignore"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, file.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, file.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    busy = usage.ru_utime + usage.ru_stime
    return Run(time.perf_counter() - start, busy, usage.ru_maxrss * 1024 / 1e9)


def in_turns(
    commands: Mapping[str, Sequence[str]], rounds: int, folder: Path
) -> dict[str, list[Run]]:
    """Run all commands one after the other, `rounds` times; say each run and the load."""
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(measured(command, folder / "log.txt"))
            one = found[name][-1]
            print(
                f"{name}: {one.wall:.1f} s, {one.busy:.1f} processor s, {one.peak_gb:.2f} GB "
                f"(load {os.getloadavg()[0]:.1f})",
                flush=True,
            )
    return found


def middle(values: Sequence[float], digits: int = 1) -> str:
    """Return the median and, of several, the range."""
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f}–{max(values):.{digits}f})"
    return text


def table(found: Mapping[str, Sequence[Run]]) -> str:
    """Return medians and ranges as Markdown, and how many times as much the last side takes."""
    lines = ["| | runs | wall s | processor s | peak GB |", "|---|---:|---:|---:|---:|"]
    for name, runs in found.items():
        wall, busy, peak = zip(*runs, strict=True)
        numbers = (str(len(runs)), middle(wall), middle(busy), middle(peak, 2))
        lines.append(f"| {name} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def ratios(found: Mapping[str, Sequence[Run]], peer: str) -> str:
    """Say how many times as much wall time, processor time and memory a peer took."""
    lines = []
    theirs = [statistics.median(part) for part in zip(*found[peer], strict=True)]
    for name, runs in found.items():
        if name != peer:
            ours = [statistics.median(part) for part in zip(*runs, strict=True)]
            wall, busy, peak = (b / a for a, b in zip(ours, theirs, strict=True))
            lines.append(
                f"{peer} / {name}: wall {wall:.1f}, processor {busy:.1f}, memory {peak:.1f}"
            )
    return "\n".join(lines)


def machine() -> str:
    """Name the processor, its cores in use, and the load."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line for line in lines if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model}, {len(os.sched_getaffinity(0))} cores; load {load}"


def versions(names: Sequence[str], python: str = sys.executable) -> str:
    """Name Python and packages as they are in an interpreter's environment."""
    if python == sys.executable:
        found = [f"Python {platform.python_version()}"]
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        return ", ".join(found)
    program = (
        "import sys; from tests.benchmarks.measuring import versions; print(versions(sys.argv[1:]))"
    )
    done = subprocess.run(
        [python, "-c", program, *names], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
