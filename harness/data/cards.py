"""Dataset cards: what a screen is, where its file comes from, and which of its columns mean what.

A card is YAML in datasets/ and holds no code. It does not say where the file lies on this
machine: that is looked for under ``$HARNESS_DATA`` and in the cache, so that one card serves
every machine. `version` rises when scores could change, and is part of every trial's id.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from harness.config import Declared, Problem, check_model, declarations, find_declaration, read_yaml
from harness.errors import CardError, DeclarationError, UnknownNameError, listed
from harness.storage import data_folders, find_data_file, refuse_url

Name = Annotated[str, Field(min_length=1)]


class Source(Declared):
    """The file, where it can be had, and under which terms.

    `url` is a direct download; without one, `page` is where a person gets the file. A checksum is
    null where nobody has published one: it is never made up. `md5` is for archives that publish
    only that; SHA-256 is preferred.
    """

    file: Name
    url: str | None = None
    page: str | None = None
    sha256: str | None = None
    md5: str | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    license: Name
    cite: Name

    @field_validator("file")
    @classmethod
    def _is_a_name(cls, file: str) -> str:
        if "/" in file or "\\" in file:
            raise ValueError(f"found {file!r}, expected the file's name without folders.")
        return file

    @field_validator("url", "page")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None and not re.match(r"https?://\S+$", address):
            raise ValueError(f"found {address!r}, expected an address that begins with https://.")
        return address

    @field_validator("sha256", "md5")
    @classmethod
    def _is_a_digest(cls, digest: str | None) -> str | None:
        if digest is not None and not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{32}", digest):
            raise ValueError(
                f"found {digest!r}, expected the 64 (SHA-256) or 32 (MD5) "
                "lower-case hexadecimal digits of a checksum."
            )
        return digest

    @model_validator(mode="after")
    def _can_be_had(self) -> Source:
        if self.url is None and self.page is None:
            raise ValueError("has neither url nor page. Say where the file can be had.")
        if self.sha256 is not None and len(self.sha256) != 64:
            raise ValueError("sha256 has 32 digits, expected 64. An MD5 goes under md5.")
        if self.md5 is not None and len(self.md5) != 32:
            raise ValueError("md5 has 64 digits, expected 32. A SHA-256 goes under sha256.")
        return self


class Columns(Declared):
    """Which columns of obs say what was done to a cell, where, and in which batch."""

    perturbation: Name
    context: Name | None = None
    batch: Name | None = None


class Expression(Declared):
    """Which matrix is read, and on which scale it is."""

    layer: Name = "X"
    scale: Literal["counts", "log1p"]


class Card(Declared):
    """A dataset, described.

    Attributes
    ----------
    context_label
        The one context of a screen that has no column for it.
    combination_separator
        What stands between the parts of a combination in the perturbation column.
    target_column
        The column of obs with the gene that was acted on, where it is not the perturbation's own
        name.
    gene_column
        The column of var with gene names, where they are not the index.
    splits
        By name; each is a mapping with ``kind``, and is read by `harness.tasks.parse_split`.
    """

    name: Name
    version: Annotated[int, Field(ge=1)]
    title: Name
    organism: Name
    source: Source
    columns: Columns
    context_label: Name | None = None
    control_label: Name
    combination_separator: Name | None = None
    target_column: Name | None = None
    gene_column: Name | None = None
    expression: Expression
    splits: dict[str, dict[str, Any]] = Field(default={})

    @field_validator("splits")
    @classmethod
    def _have_kinds(cls, splits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, split in splits.items():
            if not isinstance(split.get("kind"), str):
                raise ValueError(f"{name} has no kind. Say for example: kind: unseen-perturbation.")
        return splits

    @model_validator(mode="after")
    def _has_one_context(self) -> Card:
        if self.columns.context is None and self.context_label is None:
            raise ValueError(
                "has neither columns.context nor context_label. Name the column of contexts, "
                "or the one context of all cells."
            )
        if self.columns.context is not None and self.context_label is not None:
            raise ValueError("has both columns.context and context_label. Keep one of them.")
        return self


NOT_STATED = "https://example.invalid/not-stated"
"""The page of a source that no card describes."""


def correction(card: Card, key: str) -> str:
    """Advise on a wrong value: correct a key of the card, or the flag that stands for it."""
    if card.source.page != NOT_STATED:
        return f"Correct {key} in the card."
    flags = {
        "columns.perturbation": "--perturbation-column",
        "columns.context": "--context-column",
        "control_label": "--control",
    }
    return f"Give another {flags[key]}." if key in flags else "Describe the file by a card, --card."


def read_card(name_or_path: str) -> Card:
    """Return a card by name or path; all that is wrong with it is one `CardError`."""
    path = find_declaration("datasets", name_or_path)
    card, problems = _read(path)
    if card is None or problems:
        raise CardError(*problems)
    return card


def check_card(path: Path) -> list[Problem]:
    """Return all that is wrong with a card's file, splits aside: their rules live higher up."""
    return _read(path)[1]


def _read(path: Path) -> tuple[Card | None, list[Problem]]:
    try:
        data = read_yaml(path)
    except DeclarationError as error:
        return None, list(error.args)
    card, problems = check_model(Card, data, str(path))
    name = data.get("name") if isinstance(data, dict) else None
    if isinstance(name, str) and name != path.stem:
        text = f"found {name!r}, expected {path.stem!r}, as the file is called."
        problems.append(Problem(str(path), "name", text))
    return card, problems


def source_file(card: Card) -> Path:
    """Return the card's file on this machine; else a `CardError` that says where to get it."""
    found = find_data_file(card.source.file)
    if found is not None:
        return found
    *given, cache = data_folders()
    looked = f"HARNESS_DATA ({given[0]})" if given else "HARNESS_DATA (not set)"
    raise CardError(
        f"{card.name}: its file {card.source.file} is not on this machine. Looked in {looked} and "
        f"in the cache ({cache}). {how_to_get(card)}"
    )


def source_status(card: Card) -> str:
    """Return in a few words whether the card's file is here, and else how to get it."""
    if find_data_file(card.source.file) is not None:
        return "here"
    return f"harness fetch {card.name}" if card.source.url else f"see {card.source.page}"


def how_to_get(card: Card) -> str:
    """Return the command, or the web page, that gets a card's file."""
    if card.source.url is not None:
        return f"It is at {card.source.url}: get it with: harness fetch {card.name}"
    return (
        f"It has no direct address: get it from {card.source.page} and put it, as "
        f"{card.source.file}, into the folder that HARNESS_DATA names."
    )


def card_for(source: str, card: str | None, **columns: str | None) -> tuple[Path, Card]:
    """Return the file to convert and the card that describes it.

    Parameters
    ----------
    source
        A file, or the name of a card, whose file is then looked for on this machine.
    card
        The card's name or file; by default the one whose source file is called as the file is.
    columns
        What an ad hoc card says when there is no other: perturbation_column, context_column,
        control, scale.

    Raises
    ------
    CardError
        No card names the file and no scale is given, or several cards name it.
    """
    refuse_url(source)
    path = Path(source)
    if not path.exists():
        try:
            described = read_card(card or source)
        except UnknownNameError as error:
            raise FileNotFoundError(f"{source}: there is no such file. {error}") from error
        if card is not None:
            raise FileNotFoundError(f"{source}: there is no such file.")
        return source_file(described), described
    if card is not None:
        return path, read_card(card)
    if columns.get("scale") is not None:
        return path, _ad_hoc(path, columns)
    return path, _naming(path)


def _naming(path: Path) -> Card:
    """Return the one card whose source is called like the file."""
    found = []
    for name in declarations("datasets"):
        # a card with an error is not the one that was asked for; `harness check` reports it
        with suppress(DeclarationError):
            card = read_card(name)
            if card.source.file == path.name:
                found.append(card)
    if len(found) == 1:
        return found[0]
    if found:
        raise CardError(
            f"{path}: {len(found)} cards describe a file of this name: "
            f"{listed(card.name for card in found)}. Say which with --card."
        )
    raise CardError(
        f"{path}: no card describes a file of this name. Give one with --card, or say what it "
        "would: --scale counts (or log1p), --perturbation-column, --control, --context-column."
    )


def _ad_hoc(path: Path, columns: dict[str, str | None]) -> Card:
    name = path.name.partition(".")[0]
    context = columns.get("context_column")
    content: dict[str, Any] = {
        "name": name,
        "version": 1,
        "title": name,
        "organism": "not stated",
        "source": {
            "file": path.name,
            "page": NOT_STATED,
            "license": "not stated",
            "cite": "not stated",
        },
        "columns": {"perturbation": columns["perturbation_column"], "context": context},
        "context_label": None if context else "all",
        "control_label": columns["control"],
        "expression": {"layer": "X", "scale": columns["scale"]},
        "splits": {"unseen-perturbation": {"kind": "unseen-perturbation"}},
    }
    return Card.model_validate(content)
