"""What is wrong with a Slurm script that starts Ray: its syntax, its requests, and its pitfalls.

Bash reads it where there is a bash; the rest is read as text, comments left out. A script that
starts no Ray is only held to the first two.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.declarations import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOCKET_BYTES = 107
"""How long the path of a Unix socket may be on Linux."""

SOCKET_TAIL = len("/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store.1")
"""What Ray adds to its temporary folder to name a socket."""

ONCE = {
    "--time": "Slurm gives the partition's default, often an hour. Add #SBATCH --time=1-00:00:00.",
    "--signal": "the driver would be killed at the time limit unwarned. Add #SBATCH "
    "--signal=B:USR1@300, and trap it.",
    "--requeue": "a preempted job would not come back. Add #SBATCH --requeue.",
}
EACH = {
    "--nodes": "Add #SBATCH --nodes=N.",
    "--ntasks-per-node": "each node is to have one Ray. Add #SBATCH --ntasks-per-node=1.",
    "--cpus-per-task": "Ray gets what one task has. Add #SBATCH --cpus-per-task=N, or --exclusive.",
}
"""Requests that a script makes once, and for each component of a heterogeneous job, and why."""

DEFAULT_PORTS = {
    "--ray-client-server-port": "10001",
    "--dashboard-port": "8265",
    "--dashboard-agent-listen-port": "52365",
    "--min-worker-port": "10002 to 19999 for workers",
}
"""What two Rays on one node would both take."""

SHORT = {"-t": "--time", "-N": "--nodes", "-c": "--cpus-per-task"}


@dataclass(frozen=True, slots=True)
class _Request:
    """One ``#SBATCH`` line."""

    line: int
    option: str
    value: str
    component: int


def check_script(path: Path) -> list[Problem]:
    """Return all that is wrong with a Slurm script."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [Problem(str(path), "", f"cannot be read: {error}.")]
    requests = list(_requests(text))
    code = _without_comments(text)
    found = [*_syntax(path), *_shape(text), *_missing(requests)]
    if re.search(r"\bray\s+(start|symmetric-run)\b", code):
        found += _ray(code, exclusive=any(r.option == "--exclusive" for r in requests))
    return [Problem(str(path), key, message) for key, message in found]


def _requests(text: str) -> Iterator[_Request]:
    component = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("#SBATCH"):
            continue
        words = line.removeprefix("#SBATCH").split("#")[0].split()
        if words[:1] == ["hetjob"]:
            component += 1
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word.startswith("-"):
                option, _, value = word.partition("=")
                yield _Request(number, SHORT.get(option, option), value or following, component)


def _without_comments(text: str) -> str:
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())


def _syntax(path: Path) -> Iterator[tuple[str, str]]:
    bash = shutil.which("bash")
    if bash is None:
        return
    run = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True, check=False)  # noqa: S603 — a file to be read, not run
    for line in run.stderr.splitlines():
        if match := re.search(r"line (\d+): (.*)", line):
            yield f"line {match[1]}", f"bash cannot read it: {match[2]}."


def _shape(text: str) -> Iterator[tuple[str, str]]:
    lines = text.splitlines()
    if not lines or not lines[0].startswith("#!"):
        yield "line 1", "sbatch wants an interpreter here. Expected #!/usr/bin/env bash."
    started = 0
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            started = started or number
        if started and line.startswith("#SBATCH"):
            yield (
                f"line {number}",
                f"Slurm does not read #SBATCH after the first command, line {started}. Move it up.",
            )


def _missing(requests: list[_Request]) -> Iterator[tuple[str, str]]:
    given = {request.option for request in requests}
    for option, why in ONCE.items():
        if option not in given:
            yield "#SBATCH", f"has no {option}: {why}"
    components = range(1 + max((request.component for request in requests), default=0))
    for component in components:
        mine = {request.option for request in requests if request.component == component}
        where = f"component {component} of the job" if len(components) > 1 else "it"
        for option, why in EACH.items():
            whole = option == "--cpus-per-task" and "--exclusive" in mine
            if option not in mine and not whole:
                yield "#SBATCH", f"{where} has no {option}: {why}"
    for request in requests:
        if request.option == "--signal" and not request.value.startswith("B:"):
            yield (
                f"line {request.line}",
                f"--signal={request.value} reaches the steps and not this script. Write "
                f"--signal=B:{request.value.removeprefix('R:')}.",
            )


def _ray(code: str, *, exclusive: bool) -> Iterator[tuple[str, str]]:
    for option, variable in (
        ("--num-cpus", "SLURM_CPUS_PER_TASK"),
        ("--num-gpus", "SLURM_GPUS_ON_NODE"),
    ):
        if option not in code:
            yield (
                "ray",
                f"has no {option}: Ray would take the whole node. Add {option}=${variable}.",
            )
        elif re.search(rf"{option}[= ]\d", code):
            yield "ray", f"{option} is a fixed number. Take it from Slurm: {option}=${variable}."
    yield from _temp_folder(code)
    yield from _manners(code)
    if not exclusive:
        yield from _shared_node(code)
    if re.search(r"\bharness\s+run\b", code) and not re.search(r"--on[ =]\S", code):
        yield "harness run", "has no --on: it would start another Ray. Add --on slurm/inside."
    if not re.search(r"^\s*trap\s", code, re.MULTILINE):
        yield "trap", "is missing: preempted, the script would leave the driver to be killed."


def _temp_folder(code: str) -> Iterator[tuple[str, str]]:
    if "--temp-dir" not in code:
        yield (
            "ray",
            "has no --temp-dir: jobs on a node share /tmp/ray. Add "
            "--temp-dir=/tmp/hr$SLURM_JOB_ID.",
        )
    for path in re.findall(r"(?:--temp-dir[= ]|\btemp=)\"?(/[^\s\"';]+)", code):
        # Eight digits stand for a job's id, sixteen for whatever another variable holds.
        likely = re.sub(r"\$\{?SLURM_JOB_ID\}?", "12345678", path)
        likely = re.sub(r"\$\{?\w+\}?", "x" * 16, likely)
        if len(likely) + SOCKET_TAIL > SOCKET_BYTES:
            yield (
                "ray",
                f"--temp-dir {path} is too long: the path of a socket below it would have "
                f"{len(likely) + SOCKET_TAIL} bytes, and may have {SOCKET_BYTES}. "
                "Take /tmp/hr$SLURM_JOB_ID.",
            )


def _manners(code: str) -> Iterator[tuple[str, str]]:
    if "--disable-usage-stats" not in code and "RAY_USAGE_STATS_ENABLED=0" not in code:
        yield "ray", "reports usage statistics. Add --disable-usage-stats."
    if "RAY_AUTH_MODE" not in code:
        yield (
            "ray",
            "says nothing of RAY_AUTH_MODE: with `token` and a RAY_AUTH_TOKEN of the job's own, "
            "nobody else on the network can run code as you.",
        )


def _shared_node(code: str) -> Iterator[tuple[str, str]]:
    if re.search(r"\bray\s+symmetric-run\b", code):
        yield (
            "ray symmetric-run",
            "ends every Ray that it finds on its nodes. Add #SBATCH --exclusive, or start head and "
            "workers by srun.",
        )
    if re.search(r"\bray\s+stop\b", code):
        yield (
            "ray stop",
            "ends every Ray of yours on the node, other jobs' too. End the steps instead.",
        )
    port = re.search(r"--port[= ]\"?(\d+)", code)
    if port or not re.search(r"--port[= ]", code):
        yield (
            "ray start --head",
            f"takes port {port[1] if port else '6379, the default'}, as another job on the node "
            "may. Derive --port from $SLURM_JOB_ID.",
        )
    for option, default in DEFAULT_PORTS.items():
        if option not in code:
            yield "ray start", f"has no {option}: another job on the node may take {default} too."
