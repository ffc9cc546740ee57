"""Programs as models: read and check jobs/commands/*.yaml.

A command model is another team's program, started as a process of its own: one command that trains
and one that predicts, each a list of words with placeholders such as ``{train}`` and ``{output}``.
Jobs say what and never how; this is the one declaration that says how, so it stands apart from
them and is used by its name, ``{model: NAME, parameter: ...}``, like any other model.

::

    title: What it is, in one line
    version: 1                                   # raise it when its predictions could change
    environment: {requirements: [mine==1.2]}     # or python:, or image:; else the harness' own
    files: {program: mine.py}                    # beside this file; their content is part of trials
    parameters:
      width: {type: int, default: 64}
    train: [python, "{program}", fit, "{train}", "{model_dir}", --width, "{width}"]
    predict: [python, "{program}", predict, "{model_dir}", "{queries}", "{output}"]

All that decides a prediction is in `identity`, which is part of a trial's id; how long a step may
take, and what the model is called, is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config import (
    ENTRY_KEYS,
    Declared,
    InputFile,
    Name,
    Positive,
    Problem,
    check_model,
    declarations,
    describe,
    find_declaration,
    read_yaml,
)
from harness.errors import CommandError, DeclarationError, near_match

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Value = int | float | str | bool | None
Words = Annotated[list[Name], Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0)]

ALWAYS: dict[str, str] = {
    "train": "the .h5ad with the training cells and the shown controls",
    "split": "the cell-load TOML that names it",
    "model_dir": "the folder that train fills and predict reads",
    "library_size": "what counts of a cell are scaled to before log1p; 0 where there are none",
    "seed": "the trial's seed",
    "threads": "how many threads it may use",
    "device": "cuda or cpu",
    "python": "the interpreter of its environment",
}
"""Placeholders that both commands may use."""

PREDICT_ONLY: dict[str, str] = {
    "queries": "an .h5ad to fill in: shown control cells, labelled as what is to be predicted",
    "query_table": "the same as a CSV: perturbation, context, n_cells, targets",
    "output": "the file to write",
}
"""Placeholders of predict: a program that trains knows nothing of what it will be asked."""

_TAKEN = frozenset({"model", "cells", "seed", "fit", "predict", "work_in", *ENTRY_KEYS})
_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "file": InputFile}
_MISSING = "\0missing"


class Environment(Declared):
    """Where the program runs: with an interpreter, requirements built once, or an image."""

    python: Name | None = None
    requirements: Words | None = None
    constraints: list[Name] = Field(default=[])
    installer: Literal["pip", "uv"] = "pip"
    image: Name | None = None
    variables: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _one_of_them(self) -> Environment:
        if self.image and (self.python or self.requirements):
            raise ValueError("image: has an interpreter of its own. Remove python, requirements.")
        if self.constraints and not self.requirements:
            raise ValueError("constraints: apply to requirements, and there are none.")
        return self


class Option(Declared):
    """A parameter that jobs may set; a ``file`` is part of a trial by its content."""

    type: Literal["int", "float", "str", "bool", "file"]
    default: Value = _MISSING
    choices: Annotated[list[Value], Field(min_length=1)] | None = None
    about: str | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Option:
        given = [] if self.default == _MISSING else [self.default]
        for value in [*given, *(self.choices or ())]:
            allowed = {"float": int | float, "file": str}.get(self.type, _TYPES[self.type])
            fits = isinstance(value, allowed) and (self.type == "bool") == isinstance(value, bool)
            if value is not None and not fits:
                raise ValueError(f"found {describe(value)}, expected {self.type} as its type says.")
        if self.choices and given and self.default not in self.choices:
            raise ValueError(f"default: {self.default!r} is not among its choices.")
        return self

    def parameter(self, name: str) -> Parameter:
        """Return the option as `inspect.signature` would give it."""
        kind: Any = Literal[tuple(self.choices)] if self.choices else _TYPES[self.type]
        default = Parameter.empty if self.default == _MISSING else self.default
        if default is None:
            kind = kind | None
        elif self.type == "float" and type(default) is int:
            default = float(default)
        return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


class Input(Declared):
    """What is in the files that the program reads: which values, and whether true batches."""

    scale: Literal["log1p", "counts"] = "log1p"
    batches: bool = False


class Labels(Declared):
    """How cells are labelled in the files that the program reads and writes."""

    perturbation_column: Name = "target_gene"
    context_column: Name = "context"
    batch_column: Name = "batch"
    control: Name = "non-targeting"


class Output(Declared):
    """What the program writes: log1p cells, or one profile for each query."""

    file: str = "prediction.h5ad"
    holds: Literal["cells", "profiles"] = "cells"

    @field_validator("file")
    @classmethod
    def _is_a_name(cls, file: str) -> str:
        if Path(file).name != file or Path(file).suffix not in {".h5ad", ".zarr"}:
            raise ValueError(f"found {file!r}, expected a name in .h5ad or .zarr, without folders.")
        return file


class StepLimits(Declared):
    """Seconds after which a step is ended; none where it may take any time."""

    install: Seconds | None = None
    train: Seconds | None = None
    predict: Seconds | None = None


class CommandSpec(Declared):
    """A command model, as its file declares it."""

    title: Name
    version: Positive
    license: Name | None = None
    cite: Name | None = None
    environment: Environment = Environment()
    files: dict[str, Name] = Field(default={})
    parameters: dict[str, Option] = Field(default={})
    input: Input = Input()
    labels: Labels = Labels()
    train: Words | None = None
    predict: Words
    output: Output = Output()
    seconds: StepLimits = StepLimits()


@dataclass(frozen=True, slots=True)
class Command:
    """A command model by name, with the folder that its relative paths start from."""

    name: str
    folder: str
    spec: CommandSpec

    @property
    def files(self) -> dict[str, str]:
        """The declared files by placeholder, as absolute paths."""
        return {name: str(Path(self.folder, file)) for name, file in self.spec.files.items()}

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The declared parameters, and the seed."""
        seed = Parameter("seed", Parameter.KEYWORD_ONLY, default=0, annotation=int)
        own = {name: option.parameter(name) for name, option in self.spec.parameters.items()}
        return {**own, "seed": seed}

    def identity(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return all that decides what it predicts, the content of its files among it."""
        kept = {"version", "environment", "train", "predict", "input", "labels", "output"}
        said = self.spec.model_dump(mode="json", include=kept, exclude_defaults=True)
        return {**said, "files": dict(digests)}

    def to_json(self) -> str:
        """Return the command as a worker needs it, which may not see the file."""
        spec = self.spec.model_dump(mode="json", exclude_unset=True)
        return json.dumps({"name": self.name, "folder": self.folder, "spec": spec})

    @classmethod
    def from_json(cls, text: str) -> Command:
        """Return what `to_json` wrote."""
        said = json.loads(text)
        return cls(said["name"], said["folder"], CommandSpec.model_validate(said["spec"]))


def read_command(name_or_path: str) -> Command:
    """Return a command model by name or path; all that is wrong with it is a `CommandError`."""
    path = find_declaration("commands", name_or_path)
    problems = check_command(path)
    if problems:
        raise CommandError(*problems)
    spec = CommandSpec.model_validate(read_yaml(path))
    names = {file.resolve(): name for name, file in declarations("commands").items()}
    name = names.get(path.resolve(), path.stem)
    return Command(name, str(path.resolve().parent), spec)


def check_command(path: Path) -> list[Problem]:
    """Return all that is wrong with the declaration of a command model."""
    file = str(path)
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return list(error.args)
    _, problems = check_model(CommandSpec, data, file)
    if not isinstance(data, dict):
        return problems
    seen = {problem.key for problem in problems}
    used: dict[str, set[str]] = {"train": set(), "predict": set()}
    found = [*_names(data, path.parent), *_placeholders(data, used), *_unused(data, used)]
    return problems + [Problem(file, key, text) for key, text in found if key not in seen]


def filled(words: list[str], values: Mapping[str, Value]) -> list[str]:
    """Return a command with its placeholders replaced; ``{{`` and ``}}`` are braces.

    Truth values and null are written as YAML has them, the way Hydra reads them.
    """
    written = {
        name: json.dumps(value) if isinstance(value, bool) or value is None else str(value)
        for name, value in values.items()
    }
    return [word.format_map(written) for word in words]


# --- what is wrong with one ---------------------------------------------------------------------

Found = tuple[str, str]


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _names(data: Mapping[str, Any], folder: Path) -> Iterator[Found]:
    """Check the names of files and parameters, and that the files are there."""
    own = ALWAYS | PREDICT_ONLY
    files, parameters = _mapping(data, "files"), _mapping(data, "parameters")
    for name, file in files.items():
        if isinstance(file, str) and not (folder / file).exists():
            yield f"files.{name}", f"there is no {file} in {folder}. Paths start from this file's."
    for kind, names in (("files", files), ("parameters", parameters)):
        for name in names:
            if name in own:
                yield f"{kind}.{name}", f"is a placeholder already: {own[name]}. Rename it."
            elif not name.isidentifier() or name.endswith("_"):
                yield f"{kind}.{name}", "expected letters, digits and inner underscores."
    for name in parameters:
        if name in _TAKEN:
            yield f"parameters.{name}", "is a word that a job's entry has already. Rename it."
        elif name in files:
            yield f"parameters.{name}", "is under files, too. Rename one of them."


def _placeholders(data: Mapping[str, Any], used: dict[str, set[str]]) -> Iterator[Found]:
    """Check the placeholders of both commands, and note in `used` which each of them names."""
    declared = [*_mapping(data, "files"), *_mapping(data, "parameters")]
    for step, own in (("train", ALWAYS), ("predict", ALWAYS | PREDICT_ONLY)):
        words, known = data.get(step), [*own, *declared]
        for i, word in enumerate(words if isinstance(words, list) else []):
            if isinstance(word, str):
                for wrong in _wrong_fields(word, step, known, used[step]):
                    yield f"{step}[{i}]", wrong


def _wrong_fields(word: str, step: str, known: list[str], used: set[str]) -> Iterator[str]:
    fields: list[tuple[str, str | None, str | None, str | None]] = []
    try:
        fields.extend(Formatter().parse(word))
    except ValueError as error:
        yield f"found {word!r}: {error}. A brace that is meant is written twice."
        return
    finally:  # those that stand before what cannot be read are named, too
        used.update(field for _, field, _, _ in fields if field)
    for _, field, form, conversion in fields:
        if field is None or (field in known and not form and not conversion):
            continue
        shown = f"{{{field}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
        if step == "train" and field in PREDICT_ONLY:
            yield f"{shown} is known to predict only: training must not see what will be asked."
        elif field in known:
            yield f"found {shown}, expected {{{field}}} alone: values are written as they are."
        else:
            hint = near_match(field, known)
            yield f"{shown} is no placeholder. {hint} A brace that is meant is written twice."


def _unused(data: Mapping[str, Any], used: dict[str, set[str]]) -> Iterator[Found]:
    """Check that each command names what it needs, and that one names each file and parameter."""
    train, predict = used["train"], used["predict"]
    if isinstance(data.get("predict"), list):
        if "output" not in predict:
            yield "predict", "nowhere names {output}, so its predictions would not be found."
        if predict.isdisjoint({"queries", "query_table"}):
            text = "names neither {queries} nor {query_table}: it cannot know what is asked."
            yield "predict", text
    if isinstance(data.get("train"), list):
        if "model_dir" not in train:
            yield "train", "nowhere names {model_dir}, the only folder that predict finds again."
        if train.isdisjoint({"train", "split"}):
            yield "train", "names neither {train} nor {split}: it would train on nothing."
    for kind in ("files", "parameters"):
        for name in _mapping(data, kind):
            if name not in train | predict:
                yield f"{kind}.{name}", f"is used by neither command. Name it as {{{name}}}."
