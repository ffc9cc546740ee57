"""Which card describes a file that is to be converted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import declarations
from harness.data.cards import NOT_STATED, Card, read_card, source_file
from harness.errors import CardError, DeclarationError, UnknownNameError, listed
from harness.storage import refuse_url

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    found = [card for card in _cards() if card.source.file == path.name]
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


def _cards() -> Iterator[Card]:
    for name in declarations("datasets"):
        try:
            yield read_card(name)
        except DeclarationError:
            continue  # not the one that was asked for; `harness check` reports it


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
