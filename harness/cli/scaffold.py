"""What `harness new` writes: a model that works, as a package of its own, and a job to change.

The package has the model in ten lines, a test that holds it to the contract, the entry point by
which the harness finds it, and a job that compares it. Everything in it runs as it is written.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from harness.config import find_declaration
from harness.errors import DataError, JobError, near_match
from harness.jobs import check_job
from harness.models import registered
from harness.runs import known_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "The model $name for the harness"
requires-python = ">=3.11"
dependencies = ["virtual-cell-harness"]

[project.entry-points."harness.models"]
$name = "$module:$class_name"

[tool.setuptools]
py-modules = ["$module"]
"""

MODEL = '''\
"""$name: say here in a line what it predicts, and whose idea it is."""

from __future__ import annotations

import numpy as np
from harness.tasks import Prediction


class $class_name:
    """Predicts a share of what the context's training perturbations do on average."""

    def __init__(self, *, share: float = 0.5) -> None:
        # Parameters and nothing else: jobs set them, and cross lists of them.
        self.share = share

    def fit(self, train):
        # The view answers for training pairs and controls. What is learned ends in _.
        self.train_ = train
        effects = {}
        for perturbation, context in train.pairs:
            effect = train.effect(perturbation, context)  # (n_genes,), log1p scale
            effects.setdefault(context, []).append(effect)
        self.effects_ = {c: np.mean(found, axis=0) for c, found in effects.items()}
        return self

    def predict(self, queries):
        # A profile, (n_genes,), or cells=, (query.n_cells, n_genes); log1p scale.
        for query in queries:
            effect = self.effects_.get(query.context, 0.0)  # 0 where nothing was shown
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + self.share * effect)
'''

TEST = """\
from __future__ import annotations

import numpy as np
from harness.tasks.splits import parse_split
from harness.tasks import Task
from harness.testing import check_model, tiny_screen

from $module import $class_name


def test_it_keeps_the_contract():
    check_model($class_name)
    check_model($class_name, share=0.0)


def test_without_a_share_it_predicts_the_controls():
    task = Task(tiny_screen(), parse_split({"kind": "unseen-perturbation"}))
    view = task.train_view()
    for answer in $class_name(share=0.0).fit(view).predict(task.queries()):
        np.testing.assert_array_equal(
            answer.profile, view.control_pseudobulk(answer.query.context)
        )
"""

JOB = """\
# Does $name beat no change, and the mean of what perturbations do? A simulated screen, in seconds.
kind: sweep
title: $name against the means
dataset: sim:tiny
split: few-shot-context
seeds: [0]
models:
  - {model: control-mean}
  - {model: perturbation-mean}
  - {model: $name, share: [0.25, 0.5, 1.0]}
  - {model: replicate}
score: {suite: vcc2025, baseline: perturbation-mean}
"""


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model's package as it was written."""

    folder: Path
    files: tuple[Path, ...]


def new_model(name: str, folder: str | None = None) -> NewModel:
    """Write a package with a model that works, its test and a job.

    Parameters
    ----------
    name
        What jobs will call it: small letters, digits and single hyphens.
    folder
        Where; a folder of the name by default. Must not exist.

    Raises
    ------
    DataError
        The name cannot be one, or is taken; the folder exists.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be a model's name. Expected small letters, digits and single "
            f"hyphens, beginning with a letter, such as {_proposed(name)!r}."
        )
    if name in registered():
        raise DataError(f"There is a model {name!r} already. Choose another name.")
    module = name.replace("-", "_")
    if iskeyword(module) or module in sys.stdlib_module_names or find_spec(module):
        raise DataError(
            f"{name!r} cannot be a model's name: its module would be {module}.py, and Python has "
            f"{module!r} already. Choose another, such as 'my-{name}'."
        )
    target = Path(folder or name)
    if target.exists():
        raise DataError(f"{target} exists already. Choose another folder with -o, or remove it.")
    words = {"name": name, "module": module, "class_name": name.title().replace("-", "")}
    files = _written(
        target,
        {
            "pyproject.toml": PYPROJECT,
            f"{module}.py": MODEL,
            f"tests/test_{module}.py": TEST,
            f"jobs/{name}.yaml": JOB,
        },
        words,
    )
    return NewModel(target, files)


def _written(
    folder: Path, templates: Mapping[str, str], words: Mapping[str, str]
) -> tuple[Path, ...]:
    files = []
    for name, template in templates.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(template).substitute(words), encoding="utf-8")
        files.append(file)
    return tuple(files)


def _proposed(name: str) -> str:
    """Return a name that is like the given one and right."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())
    proposed = "-".join(words).lstrip("0123456789-")
    return proposed if _NAME.fullmatch(proposed) else "my-model"


def new_job(name: str, dataset: str, like: str = "baselines", file: str | None = None) -> Path:
    """Write a copy of a job for another dataset, with all splits that the dataset has of it.

    Parameters
    ----------
    name
        What `harness run` will call it.
    dataset
        A card, ``sim:PRESET``, or a store.
    like
        The job that is copied, comments and all; one dataset and its splits are put in.
    file
        Where; ``jobs/NAME.yaml`` by default. Must not exist.

    Raises
    ------
    JobError
        The dataset is unknown, or has no split of the job's; the copy would not run.
    """
    source = find_declaration("jobs", like)
    target = Path(file or f"jobs/{name}.yaml")
    if target.exists():
        raise DataError(f"{target} exists already. Choose another name, or remove it.")
    text = source.read_text(encoding="utf-8")
    text = _with_line(text, "title", f"{name}, after {like}", str(source))
    text = _with_line(text, "dataset", dataset, str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.partial.yaml")
    try:
        scratch.write_text(_with_splits(text, dataset, str(source)), encoding="utf-8")
        problems = check_job(scratch, known_names())
        if problems:
            raise JobError(*(str(p).replace(str(scratch), str(target)) for p in problems))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def _with_splits(text: str, dataset: str, source: str) -> str:
    known = known_names()
    splits = known.splits_of(dataset)
    found = re.search(r"^split:\s*(.*)$", text, flags=re.MULTILINE)
    wanted = re.findall(r"[\w-]+", found[1]) if found else []
    kept = [name for name in wanted if name in splits]
    if not kept:
        raise JobError(
            f"{dataset} has none of the splits of {source}: found {list(splits)}, expected one of "
            f"{wanted}. {near_match((wanted or [''])[0], splits)}"
        )
    return _with_line(text, "split", f"[{', '.join(kept)}]", source)


def _with_line(text: str, key: str, value: str, source: str) -> str:
    """Return a job's text with another value of a key that stands on a line of its own."""
    changed, n = re.subn(rf"^{key}:.*$", f"{key}: {value}", text, flags=re.MULTILINE)
    if n != 1:
        raise JobError(f"{source}: {key} is not on one line of its own. Copy the file by hand.")
    return changed
