"""The files that a reader opens to follow one trial, and one `harness score`.

    python -m tests.benchmarks.walk

A trial of `linear` on `sim:tiny` is run inline, and two small files are scored. Printed are the
files of `harness/` with functions that ran from the entry to the end, in the order of their first
call. Modules that only define errors, and what ran at import, are left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = Path(harness.__file__).parent
JOB = """
dataset: sim:tiny?contexts=1&genes=60
split: unseen-perturbation
folds: [0]
models: [{model: linear, rank: 2}]
"""


class Walk:
    """Notes files in the order of their first call, while a function of a name is on the stack."""

    def __init__(self, entry: str, file: str) -> None:
        self.entry, self.file = entry, file
        self.files: dict[str, str] = {}
        self.depth = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(str(PACKAGE)) or event not in {"call", "return"}:
            return
        name = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        if code.co_name == self.entry and name.endswith(self.file):
            self.depth += 1 if event == "call" else -1
        skipped = (
            code.co_name == "<module>" or name in {"errors.py"} or name.endswith("__init__.py")
        )
        if self.depth > 0 and event == "call" and not skipped:
            self.files.setdefault(name, code.co_name)

    def follow(self, function: Any, *arguments: Any) -> None:
        sys.setprofile(self)
        try:
            function(*arguments)
        finally:
            sys.setprofile(None)


def show(title: str, walk: Walk) -> None:
    print(f"\n{title}: {len(walk.files)} files")
    for name, first in walk.files.items():
        print(f"  {name}  ({first})")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HARNESS_CACHE"] = str(Path(folder, "cache"))
        Path("job.yaml").write_text(JOB, encoding="utf-8")
        harness.run("job.yaml", "first", on="inline")  # imports, screen and compiled code
        trial = Walk("run_trial", "trial.py")
        trial.follow(harness.run, "job.yaml", "run", "inline")
        from harness.cli import run_command as run

        truth = harness.simulate("tiny", "truth.zarr", contexts=1, genes=60).path
        other = harness.simulate("tiny", "other.zarr", contexts=1, genes=60, cells=60).path
        words = ["score", "-t", truth, "-p", other, "-o", "scores"]
        words += ["--perturbation-column", "perturbation"]
        run([*words])
        score = Walk("run", "cli/__init__.py")
        score.follow(run, words)
        show("run_trial", trial)
        show("harness score", score)


if __name__ == "__main__":
    main()
