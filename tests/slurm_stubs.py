"""Slurm, Ray and the harness as far as a batch script can tell: stubs that record their words.

`srun` runs its command once for each task, here, with the variables that Slurm would set; `ray
start` listens where a head would, and ends when told to; `harness run` lasts as long as a test
says; `python`, which counts nodes, waits until all have come.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal
    from pathlib import Path

SRUN = """#!/usr/bin/env bash
set -m  # as Slurm starts tasks: not deaf to SIGINT
record srun "$@"
tasks=1 cpus=1 gpus=
while [[ $1 == --* ]]; do
  case $1 in
    --ntasks=*) tasks=${1#*=} ;;
    --cpus-per-task=*) cpus=${1#*=} ;;
    --gpus-per-node=*) gpus=${1##*[=:]} ;;
  esac
  shift
done
export SLURM_CPUS_PER_TASK=$cpus SLURM_CPUS_ON_NODE=$cpus
[ -z "$gpus" ] || export SLURM_GPUS_ON_NODE=$gpus
pids=()
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task "$@" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM
status=0
for pid in "${pids[@]}"; do
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
  wait "$pid" || status=$?
done
exit "$status"
"""

PYTHON = """#!/usr/bin/env bash
[ "$1" != -c ] || exit "${STUB_NO_CLIENT:-0}"
until [ "$(grep -c '"words": ."ray",' "$STUB_RECORD")" -ge "$2" ]; do sleep 0.05; done
"""

RECORD = """
import json, os, sys
kept = {k: v for k, v in os.environ.items() if k.startswith(("RAY_", "SLURM_"))}
with open(os.environ["STUB_RECORD"], "a") as file:
    file.write(json.dumps({"words": sys.argv[1:], "env": kept}) + "\\n")
"""

RAY = """
import os, signal, socket, subprocess, sys, time
words = sys.argv[1:]
subprocess.run(["record", "ray", *words])
if os.environ.get("STUB_RAY") == "broken":
    sys.exit(0 if words[0] == "symmetric-run" else 3)
if words[0] == "symmetric-run":
    if os.environ["SLURM_PROCID"] == "0":
        sys.exit(subprocess.run(words[words.index("--") + 1 :]).returncode)
    sys.exit(1)  # a worker whose head is gone
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
given = dict(word.split("=", 1) for word in words if "=" in word)
listener = None
if "--head" in words:
    listener = socket.create_server((given["--node-ip-address"], int(given["--port"])))
while not ended:
    time.sleep(0.02)
subprocess.run(["record", "ray ended"])
"""

HARNESS = """
import os, subprocess, sys, time
subprocess.run(["record", "harness", *sys.argv[1:]])
try:
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
except KeyboardInterrupt:
    subprocess.run(["record", "harness interrupted"])
    sys.exit(130)
sys.exit(int(os.environ.get("STUB_STATUS", "0")))
"""


class Slurm:
    """A folder of stubs, and a job that runs a script with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.records.touch()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.add("srun", SRUN)
        for name, code in {"record": RECORD, "ray": RAY, "harness": HARNESS}.items():
            self.add(name, f"#!{sys.executable} -S\n{code}")
        self.add("scontrol", '#!/usr/bin/env bash\nrecord scontrol "$@"\n')
        self.add("python", PYTHON)

    def add(self, name: str, text: str) -> None:
        """Put a program onto the path."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, script: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a script as Slurm would, on this machine."""
        env = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "STUB_RECORD": str(self.records),
            "HEAD_IP": "127.0.0.1",
            "SLURMD_NODENAME": "node1",
            **variables,
        }
        return subprocess.Popen(
            ["bash", str(script), *words],
            env=env,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, script: Path, *words: str, **variables: str) -> tuple[int, str]:
        """Run a script to its end, and return its status and what it said."""
        process = self.start(script, *words, **variables)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def of(self, program: str) -> list[dict[str, Any]]:
        """Return what was recorded of a program: its words, and its environment."""
        records = [json.loads(line) for line in self.records.read_text().splitlines()]
        return [
            {"words": record["words"][1:], "env": record["env"]}
            for record in records
            if record["words"][0] == program
        ]

    def wait_for(self, program: str, seconds: float = 30) -> None:
        """Wait until a program has been recorded."""
        end = time.monotonic() + seconds
        while not self.of(program):
            assert time.monotonic() < end, f"{program} did not start"
            time.sleep(0.05)

    def interrupt(self, script: Path, number: signal.Signals, **variables: str) -> tuple[int, str]:
        """Run a script, signal it once its driver runs, and return its status and words."""
        process = self.start(script, "mine", STUB_SECONDS="60", **variables)
        self.wait_for("harness")
        time.sleep(0.3)  # so that the driver has got as far as its sleep
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


def options(words: list[str]) -> dict[str, str]:
    """Return ``--name=value`` words as a mapping; those without a value as empty text."""
    pairs = [word.partition("=") for word in words if word.startswith("--")]
    return {name: value for name, _, value in pairs}
