"""All that is wrong with declarations, stores and submissions, at once: for `harness check`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.challenge import Rules, check_submission
from harness.config import (
    OTHER_TOOLS,
    Kind,
    Problem,
    check_cluster,
    declarations,
    find_declaration,
    read_yaml,
)
from harness.data import SUFFIX, check_card, is_store_path, open_store, read_card
from harness.errors import DataError, DeclarationError, HarnessError, JobError
from harness.jobs import check_job
from harness.models import check_command, command_problems
from harness.runs import known_names, manifest_problems
from harness.storage import is_remote
from harness.tasks import parse_split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS: tuple[Kind, ...] = ("datasets", "commands", "jobs", "cluster")

TELLING: dict[Kind, frozenset[str]] = {
    "datasets": frozenset({"source", "columns", "control_label", "expression"}),
    "commands": frozenset({"train", "predict", "environment", "parameters", "output"}),
    "jobs": frozenset({"models", "dataset", "split", "seeds", "score"}),
    "cluster": frozenset({"address", "num_cpus", "max_in_flight", "retries"}) | OTHER_TOOLS,
}
"""Keys that only one kind of declaration has."""


@dataclass(slots=True)
class Checked:
    """What was read, and what is wrong with it."""

    read: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def check(names: Iterable[str] = (), rules: Rules | None = None) -> Checked:
    """Read declarations, stores and submissions, and return all that is wrong with them.

    Parameters
    ----------
    names
        YAML files, folders of them, names of declarations, stores, or submissions; every
        declaration that can be found by name when there are none.
    rules
        What submissions are checked against.
    """
    checked = Checked()
    found: Iterable[Path | str] = (path for name in names for path in _meant(name))
    if not names:
        found = (path for kind in KINDS for path in declarations(kind).values())
    for path in found:
        checked.read.append(str(path))
        remote = is_remote(str(path))
        checked.problems += _check_store(str(path)) if remote else _check_one(Path(path), rules)
    return checked


def _meant(name: str) -> Iterator[Path | str]:
    """Find the files that a name, a path or a URL on the command line stands for."""
    if is_remote(name):
        yield name
        return
    path = Path(name)
    if is_store_path(name) or path.suffix == SUFFIX or path.is_file():
        yield path
    elif path.is_dir():
        found = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
        if not found:
            raise DeclarationError(f"{name}: this folder has no .yaml file. Expected declarations.")
        yield from found
    else:
        kinds = (kind for kind in KINDS if name.removesuffix(".yaml") in declarations(kind))
        # Of no kind, it is looked for among jobs: the error then has a near match.
        yield find_declaration(next(kinds, "jobs"), name)


def _check_one(path: Path, rules: Rules | None) -> list[Problem]:
    if is_store_path(str(path)):
        return _check_store(str(path))
    if path.suffix == SUFFIX:
        found = check_submission(str(path), rules)
        return [Problem(str(path), "", text.removeprefix(f"{path}: ")) for text in found]
    kind = _kind_of(path)
    if kind == "datasets":
        return [*check_card(path), *_check_splits(path)]
    if kind == "jobs":
        return [*check_job(path, known_names()), *_check_manifest(path)]
    if kind == "cluster":
        return check_cluster(path)
    if kind == "commands":
        return _check_command(path)
    return [
        Problem(
            str(path),
            "",
            "is neither a dataset card, a job, a command model nor a cluster file: found none of "
            "their keys. Expected for example 'source', 'models', 'predict' or 'max_in_flight'.",
        )
    ]


def _kind_of(path: Path) -> Kind | None:
    """Tell the kind of a declaration by its folder, else by the keys that it has."""
    for kind in KINDS:
        if kind in path.resolve().parent.parts[-3:]:
            return kind
    try:
        data = read_yaml(path)
    except DeclarationError:
        return "jobs"  # whose check says what is wrong with the YAML
    keys = set(data) if isinstance(data, dict) else set()
    likely = max(KINDS, key=lambda kind: len(keys & TELLING[kind]))
    return likely if keys & TELLING[likely] else None


def _check_command(path: Path) -> list[Problem]:
    for name, known in declarations("commands").items():
        if known.resolve() == path.resolve():
            return command_problems(name)
    return check_command(path)


def _check_manifest(path: Path) -> list[Problem]:
    """Check the manifest that a job names, whatever else is wrong with the job."""
    try:
        data = read_yaml(path)
    except DeclarationError:
        return []  # reported already
    manifest = data.get("manifest") if isinstance(data, dict) else None
    if not isinstance(manifest, str) or data.get("kind") != "score":
        return []
    files = data.get("predictions")
    named = [files] if isinstance(files, str) else files if isinstance(files, list) else []
    try:
        _, wrong = manifest_problems(manifest, [one for one in named if isinstance(one, str)])
    except JobError as error:
        key, _, text = str(error.args[0]).partition(": ")
        return [Problem(str(path), key, text)]
    return [Problem(str(path), "manifest", f"{manifest}: {text}") for text in wrong]


def _check_splits(path: Path) -> list[Problem]:
    try:
        card = read_card(str(path))
    except DeclarationError:
        return []  # reported already
    problems: list[Problem] = []
    for name, declared in card.splits.items():
        try:
            parse_split(declared, str(path))
        except HarnessError as error:
            for said in error.args:  # the key of a problem is that in the split, not in the card
                key, text = (said.key, said.message) if isinstance(said, Problem) else ("", said)
                below = f"splits.{name}.{key}".rstrip(".")
                problems.append(Problem(str(path), below, str(text)))
    return problems


def _check_store(path: str) -> list[Problem]:
    try:
        store = open_store(path)
        store.rows(0, min(1, store.n_cells))
        store.rows(max(0, store.n_cells - 1), store.n_cells)
    except (DataError, OSError) as error:
        return [Problem(path, "", str(error))]
    return []
