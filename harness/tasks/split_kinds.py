"""Splits as cards and jobs declare them.

A kind's `version` says by which rule it deals; a declared ``version: 1`` keeps the older rule, and
the ids of trials that used it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.config import Declared, Problem, check_model
from harness.errors import DeclarationError, near_match
from harness.tasks.split_files import read_listed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Entry(Declared):
    """One line of a listed split: a pair, or all pairs that have the one name given."""

    perturbation: str | None = None
    context: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"perturbation": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_something(self) -> Entry:
        if self.perturbation is None and self.context is None:
            msg = "names neither a perturbation nor a context"
            raise ValueError(msg)
        return self


Share = Annotated[float, Field(ge=0, lt=1)]
# YAML and JSON have lists where a frozen value has tuples: the one place where types are not
# strict.
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Entries = Annotated[tuple[Entry, ...], Field(strict=False)]


Version = Literal[1, 2]


class UnseenPerturbation(Declared):
    """Perturbations are dealt to folds; those of the fold are held out in every context.

    Where names combine genes, the genes are dealt: a combination is tested where all of its genes
    fall to the fold, trained on where none does, and in no use where some do, so that no gene of a
    tested perturbation was perturbed in training. (Version 1 deals names.) `validation` is the
    share of the other perturbations, or genes, that is set aside to choose by.
    """

    kind: Literal["unseen-perturbation"] = "unseen-perturbation"
    version: Version = 2
    folds: int = Field(5, ge=2)
    seed: int = 0
    validation: Share = 0.0


class FewShotContext(Declared):
    """One context per fold: the share `shown` of its perturbations is trained on, not the rest.

    Each context shows its own perturbations. (In version 1 all show the same.) All other contexts
    are trained on. `validation` is the share of the shown perturbations that is set aside.
    """

    kind: Literal["few-shot-context"] = "few-shot-context"
    version: Version = 2
    contexts: Names | None = None
    shown: float = Field(0.5, gt=0, lt=1)
    seed: int = 0
    validation: Share = 0.0


class ZeroShotContext(Declared):
    """One context per fold, of which only controls are seen; all other contexts are trained on.

    `validation` is the share of the other contexts of which only controls are seen, too: at least
    one of them. A perturbation that no training context has is not tested, for that is another
    question, unless `untrained` says so. (In version 1 `validation` is a share of perturbations,
    and everything is tested.)
    """

    kind: Literal["zero-shot-context"] = "zero-shot-context"
    version: Version = 2
    contexts: Names | None = None
    seed: int = 0
    validation: Share = 0.0
    untrained: bool = Field(default=False, exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _untrained_needs_version_2(self) -> ZeroShotContext:
        if self.untrained and self.version == 1:
            msg = "untrained is of version 2: version 1 tests all perturbations of the context"
            raise ValueError(msg)
        return self


class UnseenCombination(Declared):
    """Combinations (names with the separator) are dealt to folds; all singles are trained on."""

    kind: Literal["unseen-combination"] = "unseen-combination"
    version: Literal[1] = 1
    folds: int = Field(5, ge=2)
    seed: int = 0
    separator: str = Field("+", min_length=1)
    validation: Share = 0.0


class Listed(Declared):
    """Pairs by name, as a challenge publishes them.

    An entry with both names outweighs one that leaves a name out. Without `train`, everything that
    is neither validation nor test is trained on.
    """

    kind: Literal["listed"] = "listed"
    version: Version = 2
    train: Entries | None = None
    validation: Entries = ()
    test: Entries


SplitSpec = UnseenPerturbation | FewShotContext | ZeroShotContext | UnseenCombination | Listed

KINDS: dict[str, type[SplitSpec]] = {
    "unseen-perturbation": UnseenPerturbation,
    "few-shot-context": FewShotContext,
    "zero-shot-context": ZeroShotContext,
    "unseen-combination": UnseenCombination,
    "listed": Listed,
}
"""The kinds of split by the name that declarations use."""


def parse_split(declared: Mapping[str, Any], file: str = "split") -> SplitSpec:
    """Return the split that a mapping declares.

    What a listed split names by `file:` is read here and now: its entries become part of the
    specification, so that a trial's id changes with their content. `file` is where the mapping
    stands, for the messages.

    Raises
    ------
    DeclarationError
        With everything that is wrong at once: unknown kind or key (with a near match), wrong type
        or value.
    """
    kind = declared.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = near_match(str(kind), tuple(KINDS))
        raise DeclarationError(Problem(file, "kind", f"no split is of kind {kind!r}. {hint}"))
    if kind == "listed" and "file" in declared:
        declared = read_listed(declared, file)
    spec, problems = check_model(KINDS[kind], dict(declared), file)
    if problems or spec is None:
        raise DeclarationError(*problems)
    return spec
