"""What `harness new` writes: a model that works, as a package of its own, and a job to change.

The package has the model in ten lines, a test that holds it to the contract, the entry point by
which the harness finds it, and a job that compares it. Everything in it runs as it is written.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from harness.config import find_declaration
from harness.errors import DataError, JobError, near_match
from harness.jobs import check_job
from harness.models import registered
from harness.runs import known_names

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

TEMPLATES = {
    "pyproject.toml": "pyproject.toml.txt",
    "$module.py": "model.py.txt",
    "tests/test_$module.py": "test_model.py.txt",
    "jobs/$name.yaml": "job.yaml.txt",
}
"""The files of a model's package, and the templates in ``cli/templates/model`` that make them."""


def new_model(name: str, folder: str | None = None) -> tuple[Path, ...]:
    """Write a package with a model that works, its test and a job.

    Parameters
    ----------
    name
        What jobs will call it: small letters, digits and single hyphens.
    folder
        Where; a folder of the name by default. Must not exist.

    Returns
    -------
    The files that were written.

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
    templates = files("harness.cli") / "templates" / "model"
    written = []
    for path, template in TEMPLATES.items():
        file = target / Template(path).substitute(words)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / template).read_text(encoding="utf-8")
        file.write_text(Template(text).substitute(words), encoding="utf-8")
        written.append(file)
    return tuple(written)


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
    known = known_names()
    splits = known.splits_of(dataset)
    found = re.search(r"^split:\s*(.*)$", text, flags=re.MULTILINE)
    wanted = re.findall(r"[\w-]+", found[1]) if found else []
    kept = [split for split in wanted if split in splits]
    if not kept:
        raise JobError(
            f"{dataset} has none of the splits of {source}: found {list(splits)}, expected one of "
            f"{wanted}. {near_match((wanted or [''])[0], splits)}"
        )
    text = _with_line(text, "split", f"[{', '.join(kept)}]", str(source))
    scratch = target.with_name(f".{target.name}.partial.yaml")
    try:
        scratch.write_text(text, encoding="utf-8")
        if problems := check_job(scratch, known):
            raise JobError(*(str(p).replace(str(scratch), str(target)) for p in problems))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return target


def _with_line(text: str, key: str, value: str, source: str) -> str:
    """Return a job's text with another value of a key that stands on a line of its own."""
    changed, n = re.subn(rf"^{key}:.*$", f"{key}: {value}", text, flags=re.MULTILINE)
    if n != 1:
        raise JobError(f"{source}: {key} is not on one line of its own. Copy the file by hand.")
    return changed
