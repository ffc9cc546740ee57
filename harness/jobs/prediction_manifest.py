"""A table that says of which model, setting and seed each prediction is: for files with any names.

A CSV or TSV with a header, or YAML with a list of mappings. ``file`` and ``model`` are needed,
``seed`` is 0 where it is left out, and every other column is a setting; an empty field is none.
Paths start from the manifest's folder. Everything wrong with it is said at once: a row that is
lost here is missing from a table, where nobody sees it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import describe, read_yaml
from harness.errors import JobError, near_match

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FIELDS = ("file", "model", "seed")
"""Columns that mean something; every other one is a setting."""

ONE_TRUTH = ("dataset", "split", "fold", "side", "truth")
"""Columns that would put predictions of several truths into one table."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Listed:
    """One row: a file, and what it is a prediction of.

    `where` is the row, as messages name it.
    """

    file: str
    model: str
    seed: int
    setting: Mapping[str, Any]
    where: str


def value_of(text: str) -> str | int | float:
    """Read a text as a number if it is one, finite and in plain digits; else keep the text."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def read_manifest(path: str) -> tuple[list[Listed], list[str]]:
    """Read the rows of a manifest, and list what is wrong with it and the rows left out.

    Raises
    ------
    JobError
        There is no such file, or no rows can be told in it.
    """
    file = Path(path)
    if not file.is_file():
        raise JobError(f"manifest: there is no {path}. Expected a CSV, TSV or YAML file.")
    rows = list(_rows(file))
    if not rows:
        raise JobError(f"manifest: {path} has no rows. Expected one for each prediction.")
    whole = [(where, row) for where, row in rows if isinstance(row, dict)]
    columns = dict.fromkeys(name for _, row in whole for name in row)
    wrong = list(_wrong_columns(columns)) if whole else []
    listed = []
    for where, row in rows:
        found = [row] if isinstance(row, str) else list(_wrong_row(where, row))
        wrong += found
        if isinstance(row, dict) and not found:
            path = str(file.parent / Path(row["file"]).expanduser())
            setting = {name: value for name, value in row.items() if name not in FIELDS}
            listed.append(Listed(path, row["model"], row.get("seed", 0), setting, where))
    return listed, wrong


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Read rows: each with its place in the file, a row without sense as a message."""
    if file.suffix in {".yaml", ".yml"}:
        yield from _yaml_rows(file)
        return
    if file.suffix not in {".csv", ".tsv"}:
        raise JobError(f"manifest: found {file.name!r}, expected a .csv, .tsv or .yaml file.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(
            f"manifest: {file} is no text in UTF-8: {error}. Save it as that."
        ) from error
    with io.StringIO(text, newline="") as opened:
        reader = csv.reader(opened, delimiter="\t" if file.suffix == ".tsv" else ",")
        header = [name.strip() for name in next(reader, [])]
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice or "" in header:
            found = f"column {twice[0]!r} twice" if twice else "a column without a name"
            raise JobError(f"manifest: {file}: found {found}. Give each column its own name.")
        for fields in reader:
            where = f"line {reader.line_num}"
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                yield (
                    where,
                    f"{where}: found {len(fields)} fields, expected {len(header)} as in the first "
                    "line. Quote fields with commas in them.",
                )
                continue
            texts = zip(header, map(str.strip, fields), strict=True)
            yield (
                where,
                {n: t if n in ("file", "model") else value_of(t) for n, t in texts if t},
            )


def _yaml_rows(file: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    data = read_yaml(file)
    if not isinstance(data, list):
        raise JobError(f"manifest: {file}: found {describe(data)}, expected a list of mappings.")
    for number, row in enumerate(data):
        if not isinstance(row, dict):
            found = f"found {describe(row)}, expected a mapping with file and model"
            yield f"[{number}]", f"[{number}]: {found}."
            continue
        yield f"[{number}]", {key: value for key, value in row.items() if value is not None}


def _wrong_columns(columns: Iterable[str]) -> Iterator[str]:
    columns = list(columns)
    for name in ("file", "model"):
        if name not in columns:
            yield f"there is no column {name!r}. {near_match(name, columns)}"
    for name in columns:
        if name in FIELDS:
            continue
        if name in ONE_TRUTH:
            yield (
                f"column {name!r}: a job has one truth, and tables compare on it. Write a job and "
                "a manifest for each truth."
            )
        elif close := get_close_matches(name.lower(), FIELDS, n=1, cutoff=0.75):
            yield f"column {name!r} would be a setting. Did you mean {close[0]!r}?"
        elif not name.isidentifier():
            yield f"column {name!r} is no name of a setting: letters, digits and underscores."


def _wrong_row(where: str, row: Mapping[str, Any]) -> Iterator[str]:
    for name in ("file", "model"):
        if not isinstance(row.get(name), str) or not row[name]:
            found = f": found {describe(row[name])}, expected str" if name in row else " is missing"
            yield f"{where}: {name}{found}."
    seed = row.get("seed", 0)
    if type(seed) is not int or seed < 0:
        yield f"{where}: seed: found {describe(seed)}, expected a whole number of at least 0."
    for name, value in row.items():
        plain = isinstance(value, str | int | float | bool)
        if name not in FIELDS and (not plain or value != value):
            yield f"{where}: {name}: found {describe(value)}, expected a text or a number."
