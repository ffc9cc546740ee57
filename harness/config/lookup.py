"""Find declarations by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from harness.errors import DeclarationError, UnknownNameError, listed

Kind = Literal["datasets", "jobs", "cluster", "commands"]

_PACKAGE = Path(__file__).parents[1]
_NOUN: dict[Kind, str] = {
    "datasets": "dataset card",
    "jobs": "job",
    "cluster": "cluster file",
    "commands": "command model",
}


def declarations(kind: Kind) -> dict[str, Path]:
    """Find every declaration of a kind by name; the working folder comes before the package.

    A job in a folder of its own keeps the folder in its name: ``sweeps/linear``. Command models lie
    among the jobs, in a folder that has no jobs.
    """
    found: dict[str, Path] = {}
    below = "jobs/commands" if kind == "commands" else kind
    for folder in (_PACKAGE.parent / below, _PACKAGE / "share" / below, Path(below)):
        files = sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])
        if kind == "jobs":
            commands = folder / "commands"
            files = [file for file in files if not file.is_relative_to(commands)]
        found |= {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    return dict(sorted(found.items()))


def find_declaration(kind: Kind, name: str) -> Path:
    """Find the file that `name` means: an existing path, else a declaration of that name.

    ``linear`` finds ``jobs/sweeps/linear.yaml`` too, unless two folders have one.
    """
    if Path(name).suffix in {".yaml", ".yml"} and Path(name).is_file():
        return Path(name)
    known = declarations(kind)
    wanted = re.sub(r"\.ya?ml$", "", name)
    if wanted in known:
        return known[wanted]
    inside = [full for full in known if full.rpartition("/")[2] == wanted]
    if len(inside) > 1:
        raise DeclarationError(
            f"{_NOUN[kind]} {name!r} could be any of {listed(inside)}. Give the whole name."
        )
    if not inside:
        raise UnknownNameError(_NOUN[kind], name, tuple(known))
    return known[inside[0]]
