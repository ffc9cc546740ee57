"""A fitted model on disk, between the call that fits it and the one that lets it predict.

A model may have ways of its own: ``save(folder)`` writes what `fit` learned into an empty folder,
and ``restore(folder, train)``, of a model with the same parameters, is then as good as `fit`. A
network has them, so that what was trained on a GPU can answer without one. Any other is pickled
with what it learned; the view that it was fitted to is not, it is made again from the screen.
"""

from __future__ import annotations

import inspect
import pickle
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ModelError
from harness.runs.provenance import VERSION
from harness.tasks import TrainView

if TYPE_CHECKING:
    from harness.models import Model

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
