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
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.errors import DeclarationError, listed, near_match
from harness.tasks.split_kinds import (
    Entry,
    FewShotContext,
    Listed,
    SplitSpec,
    UnseenCombination,
    UnseenPerturbation,
    ZeroShotContext,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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


def n_folds(spec: SplitSpec, pairs: Iterable[tuple[str, str]]) -> int:
    """Count the train/test arrangements that the split has on these pairs."""
    match spec:
        case UnseenPerturbation() | UnseenCombination():
            return spec.folds
        case FewShotContext() | ZeroShotContext():
            return len(_held_out_contexts(spec, {Pair(*pair) for pair in pairs}))
        case Listed():
            return 1


def assign(
    spec: SplitSpec,
    pairs: Iterable[tuple[str, str]],
    fold: int = 0,
    separator: str | None = None,
) -> Assignment:
    """Return which (perturbation, context) pairs one fold trains on, chooses by and tests on.

    Parameters
    ----------
    spec
        The split.
    pairs
        All pairs of the screen.
    fold
        Which fold of the split.
    separator
        What stands between the genes of a combination in the names of the screen; None: no name is
        a combination.

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
    assignment = _assign(spec, known, fold, separator)
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
    "zero-shot-context": (
        "Another context must remain to learn from, beside that of `validation`, and share "
        "perturbations with the one that is held out; `untrained: true` tests the others, too."
    ),
    "unseen-combination": "Lower `validation` or `folds`.",
    "listed": "List pairs of this screen for it.",
}


def _assign(
    spec: SplitSpec, pairs: frozenset[Pair], fold: int, separator: str | None
) -> Assignment:
    match spec:
        case UnseenPerturbation() if spec.version > 1 and separator:
            return _assign_genes(spec, pairs, fold, separator)
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
            purpose = f"fold:{context}" if spec.version > 1 else "fold"
            names = ordered({pair.perturbation for pair in held}, spec.seed, purpose)
            shown = _having(held, names[: round(spec.shown * len(names))])
            test = held - shown
            # With nothing shown this would be a zero-shot split under another name.
            train = pairs - test if shown else frozenset()
            return _with_validation(spec, train, test, shown)
        case ZeroShotContext():
            context = _held_out_contexts(spec, pairs)[fold]
            test = frozenset(pair for pair in pairs if pair.context == context)
            if spec.version == 1:
                return _with_validation(spec, pairs - test, test, pairs - test)
            return _assign_zero_shot(spec, pairs - test, test)
        case Listed():
            return _assign_listed(spec, pairs)


def _assign_genes(
    spec: UnseenPerturbation, pairs: frozenset[Pair], fold: int, separator: str
) -> Assignment:
    """Deal genes, so that no gene of a held-out perturbation is perturbed in training."""
    genes_of = {pair.perturbation: frozenset(pair.perturbation.split(separator)) for pair in pairs}
    genes = ordered(frozenset().union(*genes_of.values()), spec.seed)
    if len(genes) < spec.folds:
        raise DeclarationError(
            f"Split {spec.kind!r}: {len(genes)} genes cannot be dealt to {spec.folds} folds. "
            f"Found {listed(sorted(genes)) or 'none'}, expected one for each fold at least. "
            "Lower `folds`."
        )
    held = frozenset(genes[fold :: spec.folds])
    chosen: frozenset[str] = frozenset()
    if spec.validation > 0:
        others = ordered(frozenset(genes) - held, spec.seed, "validation")
        chosen = frozenset(others[: max(1, round(spec.validation * len(others)))])
    return Assignment(
        train=frozenset(p for p in pairs if not genes_of[p.perturbation] & (held | chosen)),
        validation=frozenset(p for p in pairs if genes_of[p.perturbation] <= chosen),
        test=frozenset(p for p in pairs if genes_of[p.perturbation] <= held),
    )


def _assign_zero_shot(
    spec: ZeroShotContext, others: frozenset[Pair], held: frozenset[Pair]
) -> Assignment:
    """Set contexts aside for validation, and leave out what no training context has."""
    chosen: list[str] = []
    if spec.validation > 0:
        contexts = ordered({pair.context for pair in others}, spec.seed, "validation")
        chosen = contexts[: max(1, round(spec.validation * len(contexts)))]
    train = frozenset(pair for pair in others if pair.context not in chosen)
    validation, test = others - train, held
    if not spec.untrained:
        trained = {pair.perturbation for pair in train}
        validation, test = _having(validation, trained), _having(test, trained)
    return Assignment(train, validation, test)


def ordered(names: Iterable[str], seed: int, purpose: str = "fold") -> list[str]:
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
    names = ordered({pair.perturbation for pair in pairs}, spec.seed)
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
        names = ordered({pair.perturbation for pair in candidates}, spec.seed, "validation")
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
