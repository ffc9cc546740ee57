"""What lies between the stages of a trial where each is a call of its own.

A stage that ended leaves ``stages/fit.json`` or ``stages/predict.json`` in the trial's folder,
written last: its presence says that what the next stage needs is there whole, and that the stage
need not be carried out again, whatever becomes of the next. A trial that is finished has no such
folder any more; nor has one in which the model raised, since what is to be corrected may lie in an
earlier stage.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.executors import STAGES
from harness.storage import download, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.runs.folder import RunFolder
    from harness.runs.heartbeat import Cost

MODEL = "model"
PREDICTIONS = "predictions.zarr"
PROFILES = "profiles.zarr"


class StageFiles:
    """The folder between the stages of one trial.

    Parameters
    ----------
    code
        What tells the code that fits from an earlier version of it, whose stages do not count.
    """

    def __init__(self, run: RunFolder, trial: str, code: str) -> None:
        self.folder = run.of_trial(trial, "stages")
        self.code = code
        self._begun = False
        self.records = self._read()

    def path(self, name: str) -> str:
        """Return a file or folder between the stages."""
        return paths.join(self.folder, name)

    @property
    def costs(self) -> dict[str, Cost]:
        """What the stages took that are done, by name."""
        return {stage: record["cost"] for stage, record in self.records.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the model said of its predictions."""
        return tuple(self.records.get("predict", {}).get("notes", ()))

    def finish(self, stage: str, cost: Cost, **said: Any) -> None:
        """Say that a stage is done, after all that it leaves is there."""
        record = {"code": self.code, "cost": cost, **said}
        paths.write_atomic(self.path(f"{stage}.json"), json.dumps(record, indent=2) + "\n")
        self.records[stage] = record

    def leave(self, local: str, name: str) -> None:
        """Move a finished local folder between the stages."""
        self._begun = True
        paths.remove(self.path(name))
        paths.publish(local, self.path(name))

    @contextmanager
    def fetched(self, name: str) -> Iterator[str]:
        """Give a folder between the stages as a local one."""
        if not paths.is_remote(self.folder):
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            local = Path(scratch, name)
            download(self.path(name), str(local))
            yield str(local)

    def forget(self) -> None:
        """Remove all that is between the stages."""
        if self._begun:
            paths.remove(self.folder)
        self.records = {}

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return what the stages that are done say; nothing where other code did them."""
        found: dict[str, dict[str, Any]] = {}
        names = set(paths.list_names(self.folder))
        self._begun = bool(names)
        for stage in STAGES[:-1]:
            if f"{stage}.json" in names:
                found[stage] = json.loads(paths.read_bytes(self.path(f"{stage}.json")))
        if any(record["code"] != self.code for record in found.values()):
            self.forget()
            return {}
        return found
