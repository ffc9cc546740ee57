"""Read the pairs of a listed split from a file: YAML of our own, or `cell-load` TOML.

Both become entries of `split_kinds.Listed`. The YAML holds the keys ``train``, ``validation`` and
``test``, each a list whose items are a perturbation's name or a mapping with ``perturbation``,
``context`` or both.

The TOML has four tables. ``[datasets]`` gives paths, which are of no use here; ``[training]`` names
the datasets of which everything not mentioned elsewhere is trained on; ``[zeroshot]`` puts a whole
context, ``"dataset.context"``, on one side; and ``[fewshot."dataset.context"]`` lists the ``val``
and ``test`` perturbations of a context, of which the rest is trained on. Where `cell-load` lets one
perturbation be both ``val`` and ``test``, it is a test pair only here: a model chosen by what it is
tested on is not tested.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.config import Problem, check_model, read_yaml
from harness.errors import DeclarationError, listed, near_match
from harness.storage import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")

SIDES = {"train": "train", "val": "validation", "test": "test"}
"""Our word for each side that `cell-load` names."""


class FewShotLists(BaseModel):
    """The perturbations of one context that are held out."""

    model_config = ConfigDict(extra="forbid")
    val: list[str] = []
    test: list[str] = []


class CellLoadFile(BaseModel):
    """The tables of a `cell-load` TOML."""

    model_config = ConfigDict(extra="forbid")
    datasets: dict[str, str] = {}
    training: dict[str, Literal["train"]] = {}
    zeroshot: dict[str, Literal["train", "val", "test"]] = {}
    fewshot: dict[str, FewShotLists] = Field(default_factory=dict)

    def dataset_names(self) -> tuple[str, ...]:
        """Return every dataset that the file speaks of; a context is ``dataset.context``."""
        keys = [*self.datasets, *self.training]
        keys += [key.split(".", 1)[0] for key in (*self.zeroshot, *self.fewshot)]
        return tuple(dict.fromkeys(keys))


class EntryLists(BaseModel):
    """The keys of our own YAML; what the lists hold is checked with the split."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["listed"] = "listed"
    version: int = 1
    train: list[Any] | None = None
    validation: list[Any] = []
    test: list[Any]


def read_listed(declared: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the declaration of a listed split with the content of its `file:` in the file's place.

    A relative path is looked for beside the declaring `file`, then in the working folder.
    `dataset:` beside it says which dataset of a TOML is meant where the TOML speaks of several.
    """
    rest = {key: value for key, value in declared.items() if key not in {"file", "dataset"}}
    if mixed := sorted({"train", "validation", "test"} & set(rest)):
        raise DeclarationError(
            Problem(file, "file", f"stands beside {listed(mixed)}. Give a file or lists, not both.")
        )
    beside = Path(file).parent / str(declared["file"])
    path = str(beside if beside.exists() else declared["file"])
    if path.endswith(".toml"):
        return rest | _from_cell_load(path, declared.get("dataset"))
    content, problems = check_model(EntryLists, read_yaml(Path(path)), path)
    if content is None:
        raise DeclarationError(*problems)
    return rest | content.model_dump(include={"train", "validation", "test"})


def _from_cell_load(path: str, dataset: str | None) -> dict[str, Any]:
    try:
        data = tomllib.loads(read_text(path))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DeclarationError(Problem(path, "", f"cannot be read as TOML: {error}.")) from error
    content, problems = check_model(CellLoadFile, data, path)
    if content is None:
        raise DeclarationError(*problems)
    dataset = _chosen(content.dataset_names(), dataset, path)
    zero = _of(content.zeroshot, dataset)
    few = {
        context: few
        for context, few in _of(content.fewshot, dataset).items()
        if context not in zero
    }
    sides: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for context, side in zero.items():
        sides[SIDES[side]].append({"context": context})
    for context, lists in few.items():
        sides["test"] += _entries(lists.test, context)
        sides["validation"] += _entries([p for p in lists.val if p not in lists.test], context)
    if dataset in content.training:
        # Without a list of its own, train is whatever the two others leave.
        return {"validation": sides["validation"], "test": sides["test"], "train": None}
    sides["train"] += [{"context": context} for context in few]
    return dict(sides)


def _chosen(names: tuple[str, ...], dataset: str | None, path: str) -> str:
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset is None:
        message = f"speaks of {len(names)} datasets: {listed(names)}. Say which with `dataset:`."
        raise DeclarationError(Problem(path, "datasets", message))
    if dataset not in names:
        hint = near_match(dataset, names)
        raise DeclarationError(Problem(path, "datasets", f"has no dataset {dataset!r}. {hint}"))
    return dataset


def _of(keyed: Mapping[str, T], dataset: str) -> dict[str, T]:
    """Return the entries of one dataset by context."""
    start = f"{dataset}."
    return {key.removeprefix(start): value for key, value in keyed.items() if key.startswith(start)}


def _entries(perturbations: Iterable[str], context: str) -> list[dict[str, str]]:
    return [{"perturbation": name, "context": context} for name in perturbations]
