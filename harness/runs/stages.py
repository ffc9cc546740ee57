"""Files between the stages of a trial, where fit, predict and score are calls of their own.

Each finished stage writes ``stages/fit.json`` or ``stages/predict.json`` into the trial's folder,
last; the next stage starts from it. The folder is deleted when the trial finishes, and when the
model raises, because the mistake may be in an earlier stage.

A fitted model may write itself: ``save(folder)`` writes what `fit` learned into an empty folder,
and ``restore(folder, train)``, of a model with the same parameters, is then as good as `fit`. A
network has both, so that what was trained on a GPU can predict without one. Any other model is
pickled with what it learned; the view that it was fitted to is not, it is made again from the
screen.
"""

from __future__ import annotations

import inspect
import json
import pickle
import tempfile
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ModelError
from harness.executors import STAGES
from harness.runs.provenance import VERSION
from harness.storage import download, paths
from harness.tasks import TrainView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.models import Model
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
        names = set(paths.list_names(self.folder))
        self._begun = bool(names)
        self.records: dict[str, dict[str, Any]] = {
            stage: json.loads(paths.read_bytes(self.path(f"{stage}.json")))
            for stage in STAGES[:-1]
            if f"{stage}.json" in names
        }
        if any(record["code"] != code for record in self.records.values()):
            self.forget()

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


PICKLED = "model.pickle"


def save_model(model: Model, folder: str | Path) -> None:
    """Write a fitted model into a folder, which is made.

    Raises
    ------
    ModelError
        It has no way of its own, and cannot be pickled.
    """
    Path(folder).mkdir(parents=True)
    if hasattr(model, "save"):
        model.save(str(folder))
        return
    for told in ("report_", "supervision_"):  # of its fit, which is over
        vars(model).pop(told, None)
    try:
        with Path(folder, PICKLED).open("wb") as file:
            _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(model)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be kept between its stages: {error}. Give it `save` "
            "and `restore`, or declare the same resources for fit and predict, which are then "
            "one call."
        ) from error


def load_model(model: Any, folder: str | Path, train: TrainView) -> Model:
    """Return the fitted model that `save_model` wrote.

    Parameters
    ----------
    model
        One like it that is not fitted: of the same class, with the same parameters.
    train
        The view that it was fitted to, made again.
    """
    pickled = Path(folder, PICKLED)
    if pickled.exists():
        with pickled.open("rb") as file:
            found: Model = _Unpickler(file, train).load()
        return found
    model.restore(str(folder), train)  # it had `save`
    return cast("Model", model)


def code_of(model: type[Model]) -> str:
    """Return what tells the code of a model from an earlier one: a fit by that is not used."""
    try:
        source = inspect.getsource(inspect.getmodule(model) or model)
    except (OSError, TypeError):
        source = model.__qualname__
    return blake2b(f"{VERSION}\0{source}".encode(), digest_size=16).hexdigest()


class _Pickler(pickle.Pickler):
    """Leaves views out: they hold a whole screen's index, and the reader has one."""

    def persistent_id(self, obj: object) -> str | None:
        return "view" if isinstance(obj, TrainView) else None


class _Unpickler(pickle.Unpickler):  # noqa: S301 - reads what this run wrote into its own folder
    def __init__(self, file: Any, train: TrainView) -> None:
        super().__init__(file)
        self.train = train

    def persistent_load(self, pid: str) -> TrainView:
        return self.train
