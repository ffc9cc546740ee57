"""Assign each (perturbation, context) pair to train, validation or test.

A split speaks of pairs, never of cells, so that it survives filtering and re-conversion, and so
that no cell of a held-out pair can reach training. Control cells are in no pair: tasks.py divides
them, so that noise shared by what a model is shown and what it is scored against cannot pass for
skill.

What is dealt to folds is ordered by a keyed hash of its name and dealt in turn. So folds differ in
size by one at most, and the side of a pair depends on the names in the screen and the seed alone:
not on the order of rows, not on the machine, not on NumPy's generators. The price: a screen that
gains one perturbation may move others.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from harness.config import Declared, Problem, check_model
from harness.errors import DeclarationError, listed, near_match
from harness.tasks.split_files import read_listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Pair(NamedTuple):
    """What splits assign: one perturbation in one context."""

    perturbation: str
    context: str


class Assignment(NamedTuple):
    """The pairs of each side; a pair that is on none of them is not used at all."""

    train: frozenset[Pair]
    validation: frozenset[Pair]
    test: frozenset[Pair]


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


class UnseenPerturbation(Declared):
    """Perturbations are dealt to folds; those of the fold are held out in every context.

    `validation` is the share of the other perturbations that is set aside to choose by.
    """

    kind: Literal["unseen-perturbation"] = "unseen-perturbation"
    version: int = 1
    folds: int = Field(5, ge=2)
    seed: int = 0
    validation: Share = 0.0


class FewShotContext(Declared):
    """One context per fold: the share `shown` of its perturbations is trained on, not the rest.

    All other contexts are trained on. `validation` is the share of the shown perturbations that is
    set aside.
    """

    kind: Literal["few-shot-context"] = "few-shot-context"
    version: int = 1
    contexts: Names | None = None
    shown: float = Field(0.5, gt=0, lt=1)
    seed: int = 0
    validation: Share = 0.0


class ZeroShotContext(Declared):
    """One context per fold, of which only controls are seen; all other contexts are trained on."""

    kind: Literal["zero-shot-context"] = "zero-shot-context"
    version: int = 1
    contexts: Names | None = None
    seed: int = 0
    validation: Share = 0.0


class UnseenCombination(Declared):
    """Combinations (names with the separator) are dealt to folds; all singles are trained on."""

    kind: Literal["unseen-combination"] = "unseen-combination"
    version: int = 1
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
    version: int = 1
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


def n_folds(spec: SplitSpec, pairs: Iterable[tuple[str, str]]) -> int:
    """Count the train/test arrangements that the split has on these pairs."""
    match spec:
        case UnseenPerturbation() | UnseenCombination():
            return spec.folds
        case FewShotContext() | ZeroShotContext():
            return len(_held_out_contexts(spec, {Pair(*pair) for pair in pairs}))
        case Listed():
            return 1


def assign(spec: SplitSpec, pairs: Iterable[tuple[str, str]], fold: int = 0) -> Assignment:
    """Return which (perturbation, context) pairs one fold trains on, chooses by and tests on.

    Raises
    ------
    DeclarationError
        Fold out of range, names that are in no pair, one pair on two sides, a side left without
        pairs.
    """
    known = frozenset(Pair(*pair) for pair in pairs)
    n = n_folds(spec, known)
    if not 0 <= fold < n:
        raise DeclarationError(
            f"Split {spec.kind!r}: there is no fold {fold}. Folds are numbered from 0 to {n - 1}."
        )
    assignment = _assign(spec, known, fold)
    for side in ("train", "test"):
        if not getattr(assignment, side):
            raise DeclarationError(
                f"Split {spec.kind!r}, fold {fold}: the {side} side is empty. "
                f"Found {len(known)} pairs in {len({pair.context for pair in known})} contexts, "
                f"expected at least one on each side. "
                f"{_ADVICE[spec.kind]}"
            )
    return assignment


_ADVICE = {
    "unseen-perturbation": "Lower `validation` or `folds`.",
    "few-shot-context": "Change `shown`, or use zero-shot-context where there is one perturbation.",
    "zero-shot-context": "Another context must remain to learn from.",
    "unseen-combination": "Lower `validation` or `folds`.",
    "listed": "List pairs of this screen for it.",
}


def _assign(spec: SplitSpec, pairs: frozenset[Pair], fold: int) -> Assignment:
    match spec:
        case UnseenPerturbation():
            test = _dealt(pairs, spec, fold)
            return _with_validation(spec, pairs - test, test, pairs - test)
        case UnseenCombination():
            combined = frozenset(pair for pair in pairs if spec.separator in pair.perturbation)
            test = _dealt(combined, spec, fold)
            return _with_validation(spec, pairs - test, test, combined - test)
        case FewShotContext():
            context = _held_out_contexts(spec, pairs)[fold]
            held = frozenset(pair for pair in pairs if pair.context == context)
            names = _ordered({pair.perturbation for pair in held}, spec.seed)
            shown = _having(held, names[: round(spec.shown * len(names))])
            test = held - shown
            # With nothing shown this would be a zero-shot split under another name.
            train = pairs - test if shown else frozenset()
            return _with_validation(spec, train, test, shown)
        case ZeroShotContext():
            context = _held_out_contexts(spec, pairs)[fold]
            test = frozenset(pair for pair in pairs if pair.context == context)
            return _with_validation(spec, pairs - test, test, pairs - test)
        case Listed():
            return _assign_listed(spec, pairs)


def _ordered(names: Iterable[str], seed: int, purpose: str = "fold") -> list[str]:
    """Return the names in an order that depends on each name, the seed and the purpose alone."""
    key = f"{purpose}:{seed}".encode()

    def position(name: str) -> tuple[bytes, str]:
        return blake2b(name.encode(), key=key, digest_size=8).digest(), name

    return sorted(set(names), key=position)


def _having(pairs: Iterable[Pair], perturbations: Iterable[str]) -> frozenset[Pair]:
    wanted = frozenset(perturbations)
    return frozenset(pair for pair in pairs if pair.perturbation in wanted)


def _dealt(
    pairs: frozenset[Pair], spec: UnseenPerturbation | UnseenCombination, fold: int
) -> frozenset[Pair]:
    """Return the pairs whose perturbation falls to the fold."""
    names = _ordered({pair.perturbation for pair in pairs}, spec.seed)
    if len(names) < spec.folds:
        what = "combinations" if isinstance(spec, UnseenCombination) else "perturbations"
        raise DeclarationError(
            f"Split {spec.kind!r}: {len(names)} {what} cannot be dealt to {spec.folds} folds. "
            f"Found {listed(sorted(names)) or 'none'}, expected one for each fold at least. "
            "Lower `folds`."
        )
    return _having(pairs, names[fold :: spec.folds])


def _with_validation(
    spec: UnseenPerturbation | UnseenCombination | FewShotContext | ZeroShotContext,
    train: frozenset[Pair],
    test: frozenset[Pair],
    candidates: frozenset[Pair],
) -> Assignment:
    """Set aside the declared share of the candidates' perturbations: at least one of them."""
    validation: frozenset[Pair] = frozenset()
    if spec.validation > 0:
        names = _ordered({pair.perturbation for pair in candidates}, spec.seed, "validation")
        validation = _having(candidates, names[: max(1, round(spec.validation * len(names)))])
    return Assignment(train - validation, validation, test)


def _held_out_contexts(
    spec: FewShotContext | ZeroShotContext, pairs: Iterable[Pair]
) -> tuple[str, ...]:
    present = tuple(sorted({pair.context for pair in pairs}))
    if spec.contexts is None:
        return present
    problems = [
        f"Split {spec.kind!r}: context {name!r} has no pair. {near_match(name, present)}"
        for name in spec.contexts
        if name not in present
    ]
    if problems:
        raise DeclarationError(*problems)
    return spec.contexts


def _assign_listed(spec: Listed, pairs: frozenset[Pair]) -> Assignment:
    entries: dict[Side, tuple[Entry, ...]] = {
        "train": spec.train or (),
        "validation": spec.validation,
        "test": spec.test,
    }
    problems = [
        f"Split 'listed', {side} entry {i}: {message}"
        for side in SIDES
        for i, entry in enumerate(entries[side])
        if (message := _not_found(entry, pairs))
    ]
    exact = {side: _matching(entries[side], pairs, _is_exact) for side in SIDES}
    named = frozenset().union(*exact.values())
    broad = {
        side: _matching(entries[side], pairs, lambda e: not _is_exact(e)) - named for side in SIDES
    }
    sides = {side: exact[side] | broad[side] for side in SIDES}
    for first, second in combinations(SIDES, 2):
        if both := sides[first] & sides[second]:
            problems.append(
                f"Split 'listed': {len(both)} pairs are on the {first} and on the {second} side: "
                f"{listed(tuple(pair) for pair in sorted(both))}. List each pair once."
            )
    if problems:
        raise DeclarationError(*problems)
    if spec.train is None:
        sides["train"] = pairs - sides["validation"] - sides["test"]
    return Assignment(sides["train"], sides["validation"], sides["test"])


def _is_exact(entry: Entry) -> bool:
    return entry.perturbation is not None and entry.context is not None


def _matching(
    entries: Iterable[Entry], pairs: frozenset[Pair], wanted: Callable[[Entry], bool]
) -> frozenset[Pair]:
    """Return the pairs that the wanted entries name, by look-up: both lists can be long."""
    names = {(entry.perturbation, entry.context) for entry in entries if wanted(entry)}
    return frozenset(
        pair
        for pair in pairs
        if names & {tuple(pair), (pair.perturbation, None), (None, pair.context)}
    )


def _not_found(entry: Entry, pairs: frozenset[Pair]) -> str:
    """Say which name of the entry is in no pair; nothing where the entry is found."""
    if _is_exact(entry) and Pair(str(entry.perturbation), str(entry.context)) in pairs:
        return ""
    contexts = sorted({pair.context for pair in pairs})
    if entry.context is not None and entry.context not in contexts:
        return f"context {entry.context!r} has no pair. {near_match(entry.context, contexts)}"
    if entry.perturbation is None:
        return ""
    there = {pair.perturbation for pair in pairs if entry.context in {None, pair.context}}
    if entry.perturbation in there:
        return ""
    where = f"context {entry.context!r}" if entry.context else "any context"
    hint = near_match(entry.perturbation, sorted(there))
    return f"perturbation {entry.perturbation!r} is not in {where}. {hint}"
