"""A program of someone else's as a model: fitted by one command, asked by another.

`class_of` makes a class of a declaration, with the declared parameters as keywords, so that the
registry, the contract and a trial treat it as they treat any other. `fit` writes what the view
shows and runs the command that trains; what that leaves in ``{model_dir}`` is all that `predict`
has.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import shutil
import tarfile
import tempfile
import weakref
from inspect import Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from harness.config import is_file
from harness.errors import ModelError
from harness.models.external.environment import place_of
from harness.models.external.exchange import (
    read_answers,
    write_queries,
    write_query_table,
    write_split,
    write_training,
)
from harness.models.external.process import ProgramError, run_program
from harness.models.external.spec import Command, filled
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.models.base import Model
    from harness.tasks import Prediction, Query, TrainView

log = logging.getLogger("harness.program")


def class_of(command: Command) -> type[Model]:
    """Return a command as a class like any model's."""
    name = "".join(part.capitalize() for part in command.name.replace("/", "-").split("-"))
    signature = Signature(list(command.parameters.values()))
    contents = {"__doc__": command.spec.title, "__signature__": signature, "command": command}
    return type(name, (CommandModel,), contents)


class CommandModel:
    """A declared program; `class_of` says which."""

    command: ClassVar[Command]
    __signature__: ClassVar[Signature]

    seed: int

    def __init__(self, **parameters: Any) -> None:
        given = self.__signature__.bind(**parameters)
        given.apply_defaults()
        vars(self).update(given.arguments)
        self._scratch: str | None = None
        self._threads = 1
        self._remove: Callable[[], object] | None = None

    def work_in(self, scratch: str, threads: int) -> None:
        """Say where its files may lie, and how many threads it may use."""
        self._scratch, self._threads = str(Path(scratch).absolute()), threads

    def fit(self, train: TrainView) -> Self:
        """Write what the view shows, and run the command that trains on it."""
        spec = self.command.spec
        self._start_folder()
        self._is_fitted_to(train)
        try:
            if spec.train or self._predict_reads("train", "split"):
                told, batches = self._as_told(train), spec.input.batches
                write_training(self._path("train"), told, spec.labels, batches=batches)
                write_split(self._path("split"), self._path("train"))
            if spec.train:
                self._run("train", spec.train, {})
        except ModelError as error:
            raise ModelError(f"{self.command.name}, {error}") from error
        if not self._predict_reads("train", "split"):
            self._path("train").unlink(missing_ok=True)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Write what is asked, run the command that predicts, and yield what it wrote, checked."""
        spec = self.command.spec
        folder = Path(tempfile.mkdtemp(prefix="predict-", dir=self.folder_))
        asked = {
            "queries": folder / "queries.h5ad",
            "query_table": folder / "queries.csv",
            "output": folder / spec.output.file,
        }
        try:
            if self._predict_reads("queries"):
                path, told = asked["queries"], self._as_told(self.train_)
                batches = spec.input.batches
                write_queries(path, queries, told, spec.labels, self.seed, batches=batches)
            write_query_table(asked["query_table"], queries)
            self._run("predict", spec.predict, {name: str(path) for name, path in asked.items()})
            labels, genes = spec.labels, self.train_.genes
            yield from read_answers(asked["output"], queries, genes, labels, spec.output)
        except ModelError as error:
            raise ModelError(f"{self.command.name}, {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def save(self, folder: str) -> None:
        """Copy what was learned, and what `predict` reads besides, into an empty folder."""
        shutil.copytree(self.folder_, folder, dirs_exist_ok=True)

    def restore(self, folder: str, train: TrainView) -> Self:
        """Be what was saved, as good as fitted."""
        self._start_folder()
        shutil.copytree(folder, self.folder_, dirs_exist_ok=True)
        self._is_fitted_to(train)
        return self

    def _as_told(self, train: TrainView) -> TrainView:
        """Return a view on the scale that the program reads."""
        return train.counts() if self.command.spec.input.scale == "counts" else train

    def _is_fitted_to(self, train: TrainView) -> None:
        self.train_ = train
        self.notes_: list[str] = []
        if self._path("split").exists():
            write_split(self._path("split"), self._path("train"))  # it names an absolute path

    def _run(self, step: str, words: list[str], asked: dict[str, str]) -> None:
        command, place = self.command, place_of(self.command, self._threads, _say)
        given = self._parameters()
        given_files = {
            name: paths.absolute(given[name])
            for name, parameter in command.parameters.items()
            if is_file(parameter.annotation, given[name])
        }
        values = {
            **given,
            **given_files,
            **command.files,
            **{name: str(self._path(name)) for name in _FILES},
            "threads": self._threads,
            "library_size": self.train_.library_size or 0.0,
            # Executors hide the GPUs of a machine from calls that asked for none.
            "device": "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu",
            "python": place.python,
            **asked,
        }
        files = [*command.files.values(), *given_files.values()]
        argv, cleanup = place.argv(filled(words, values), self.folder_, files)
        log.info("%s: %s", step, shlex.join(argv))
        try:
            run_program(
                argv,
                folder=self.folder_,
                environment=place.variables,
                say=_say,
                seconds=getattr(command.spec.seconds, step),
                cleanup=cleanup,
            )
        except ProgramError as error:
            raise ModelError(f"{step} {error}") from error

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.command.parameters}

    def _predict_reads(self, *names: str) -> bool:
        return any(f"{{{name}}}" in word for word in self.command.spec.predict for name in names)

    def _path(self, name: str) -> Path:
        return Path(self.folder_, _FILES[name])

    def _start_folder(self) -> None:
        if self._remove is not None:
            self._remove()  # an earlier fit's
        self.folder_ = tempfile.mkdtemp(prefix="harness-program-", dir=self._scratch)
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder_, ignore_errors=True)
        self._path("model_dir").mkdir()

    def __reduce__(self) -> tuple[Any, ...]:
        fitted = None
        if hasattr(self, "folder_"):  # what a program learned goes where its model goes
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w") as archive:
                archive.add(self.folder_, arcname=".")
            fitted = (self.train_, content.getvalue())
        return _revived, (self.command.to_json(), self._parameters(), fitted)


_FILES = {"train": "train.h5ad", "split": "split.toml", "model_dir": "model"}
"""What lies in a fitted model's folder, by placeholder."""


def _say(line: str) -> None:
    log.info("%s", line)


def _revived(text: str, parameters: dict[str, Any], fitted: tuple[Any, bytes] | None) -> Any:
    model: Any = class_of(Command.from_json(text))(**parameters)
    if fitted is not None:
        train, content = fitted
        model._start_folder()
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(model.folder_, filter="data")
        model._is_fitted_to(train)
    return model
