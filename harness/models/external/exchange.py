"""What a command model's program reads and writes: `.h5ad`, a `cell-load` TOML, a table of queries.

A program sees what any model sees, as files: training cells and shown controls, log1p values or, if
its declaration says so, raw counts. It is asked by cells to fill in, shown controls that carry the
labels of what is to be predicted, so that a program which predicts from control cells needs nothing
else. What it writes is read a few rows at a time, in any order, and refused where it is not exactly
what was asked: nothing is repaired.
"""

from __future__ import annotations

import csv
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from harness.data import BLOCK_BYTES, H5adWriter, from_dense, open_source
from harness.errors import DataError, ModelError, listed, near_match
from harness.models.base import query_rng
from harness.models.profile_to_cells import POOL_BYTES
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.data import Source
    from harness.models.external.spec import Labels, Output
    from harness.tasks import Query, TrainView


def write_training(path: Path, train: TrainView, labels: Labels, *, batches: bool = False) -> None:
    """Write the shown controls of every context, then all training cells: CSR float32.

    With `batches`, each under its own, where the screen tells.
    """
    _check_control(labels, [pair.perturbation for pair in train.pairs])
    sizes = [(labels.control, context, train.n_controls(context)) for context in train.contexts]
    sizes += [(*pair, train.n_cells(*pair)) for pair in train.pairs]
    controls = (block for c in train.contexts for block in train.control_blocks(c))
    cells = (block for _, block in train.batches())
    true: list[np.ndarray | None] = []
    if batches:
        true += [train.control_batch_labels(context) for context in train.contexts]
        true += [train.batch_labels(*pair) for pair in train.pairs]
    with _writer(path, sizes, train.genes, labels, true) as writer:
        for block in chain(controls, cells):
            writer.append(from_dense(block))
        writer.finish()


def write_split(path: Path, train: Path) -> None:
    """Write a TOML as `cell-load` reads it: all cells of one file are for training."""
    name = str(train).replace("\\", "\\\\").replace('"', '\\"')
    parts = f'[datasets]\nscreen = "{name}"\n[training]\nscreen = "train"\n[zeroshot]\n[fewshot]\n'
    path.write_text(parts, encoding="utf-8")


def write_queries(
    path: Path,
    queries: Sequence[Query],
    train: TrainView,
    labels: Labels,
    seed: int,
    *,
    batches: bool = False,
) -> None:
    """Write the cells to fill in: for each context its controls, then each query's cells.

    A query's cells are shown controls of its context, drawn by the seed and the query; with
    `batches`, each under its own: nothing is said of the batches of what is to be predicted.
    """
    _check_control(labels, [query.perturbation for query in queries])
    of_context: dict[str, list[Query]] = {}
    for query in queries:
        of_context.setdefault(query.context, []).append(query)
    most = max(1, POOL_BYTES // (4 * len(train.genes)))
    sizes: list[tuple[str, str, int]] = []
    true: list[np.ndarray | None] = []
    drawn: dict[Query, np.ndarray] = {}
    for context, those in of_context.items():
        n = min(most, train.n_controls(context))
        sizes.append((labels.control, context, n))
        sizes += [(q.perturbation, context, q.n_cells) for q in those]
        for q in those:
            rng = query_rng(seed, q, "queries")
            drawn[q] = rng.choice(n, size=q.n_cells, replace=q.n_cells > n)
        if batches and (known := train.control_batch_labels(context, most)) is not None:
            true += [known, *(known[drawn[q]] for q in those)]
    with _writer(path, sizes, train.genes, labels, true) as writer:
        for context, those in of_context.items():
            pool = train.controls(context, most)
            writer.append(from_dense(pool))
            for query in those:
                writer.append(from_dense(pool[drawn[query]]))
        writer.finish()


def write_query_table(path: Path, queries: Sequence[Query]) -> None:
    """Write a CSV with a row for each query; several targets are joined by ``+``."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["perturbation", "context", "n_cells", "targets"])
        for query in queries:
            rows.writerow(
                [query.perturbation, query.context, query.n_cells, "+".join(query.targets)]
            )


def read_answers(
    path: Path, queries: Sequence[Query], genes: Sequence[str], labels: Labels, output: Output
) -> Iterator[Prediction]:
    """Yield what a program wrote, one prediction for each query, in the order of the queries.

    Rows that carry the control label are left aside. Memory holds the rows of queries that are not
    complete yet: one query's where the file has them together and in order.

    Raises
    ------
    ModelError
        There is no such file, or it has other genes, labels or numbers of cells than were asked.
    """
    if not path.exists():
        found = listed(sorted(entry.name for entry in path.parent.iterdir()))
        raise ModelError(
            f"predict ended well and wrote no {path.name}. Found {found} beside it. "
            "The program has to write what {output} names."
        )
    try:
        with open_source(path) as source:
            _check_genes(source.genes, tuple(genes), path.name)
            yield from _answers(source, queries, _asked(source, queries, labels, output), output)
    except DataError as error:
        raise ModelError(str(error)) from error


def _check_control(labels: Labels, perturbations: Iterable[str]) -> None:
    if labels.control in perturbations:
        raise ModelError(
            f"{labels.control!r} is a perturbation of this screen, and labels.control, which marks "
            "the control cells in the program's files. Declare another one."
        )


def _writer(
    path: Path,
    sizes: Sequence[tuple[str, str, int]],
    genes: Sequence[str],
    labels: Labels,
    batches: Sequence[np.ndarray | None],
) -> H5adWriter:
    many = [n for _, _, n in sizes]
    known = [some for some in batches if some is not None]
    columns = {
        labels.perturbation_column: np.repeat(np.array([p for p, _, _ in sizes]), many),
        labels.context_column: np.repeat(np.array([c for _, c, _ in sizes]), many),
        # One batch for all, where true ones are not asked for or known.
        labels.batch_column: np.concatenate(known) if known else np.full(sum(many), "0"),
    }
    return H5adWriter(path, columns=columns, genes=genes, dtype="float32")


def _check_genes(found: tuple[str, ...], genes: tuple[str, ...], file: str) -> None:
    if found == genes:
        return
    said = f"{file} has other genes than {{train}}: found {len(found)}, expected {len(genes)}"
    if sorted(found) == sorted(genes):
        raise ModelError(
            f"{said}, the same in another order. Write them in the order of {{train}}."
        )
    if missing := sorted(set(genes) - set(found)):
        raise ModelError(f"{said}; missing are {listed(missing)}. Write all of them, in order.")
    raise ModelError(f"{said}; not asked for are {listed(sorted(set(found) - set(genes)))}.")


def _asked(source: Source, queries: Sequence[Query], labels: Labels, output: Output) -> np.ndarray:
    """Find the number of the query that each row answers, -1 for controls: (n_cells,)."""
    columns = []
    for column in (labels.perturbation_column, labels.context_column):
        if column not in source.obs:
            known = [str(name) for name in source.obs.columns]
            raise ModelError(
                f"{Path(source.path).name} has no column {column!r} in obs, which says what each "
                f"cell is a prediction of. {near_match(column, known)}"
            )
        columns.append(source.obs[column].astype(str).tolist())
    counts = Counter(pair for pair in zip(*columns, strict=True) if pair[0] != labels.control)
    profiles = output.holds == "profiles"
    wanted = {(q.perturbation, q.context): 1 if profiles else q.n_cells for q in queries}
    for perturbation, context in counts:
        if (perturbation, context) not in wanted:
            raise ModelError(
                f"prediction for {perturbation!r} in {context!r}: nobody asked for it. Write the "
                "labels of {queries} unchanged."
            )
    wrong = [pair for pair, n in wanted.items() if counts[pair] != n]
    if wrong:
        (perturbation, context), rows = wrong[0], "rows, profiles," if profiles else "cells"
        raise ModelError(
            f"prediction for {perturbation!r} in {context!r}: found {counts[wrong[0]]} {rows} "
            f"expected {wanted[wrong[0]]}."
            f" {len(wrong)} of {len(wanted)} queries are answered wrongly in number."
        )
    places = {(q.perturbation, q.context): number for number, q in enumerate(queries)}
    numbers = (places.get(pair, -1) for pair in zip(*columns, strict=True))
    return np.fromiter(numbers, dtype=np.int64, count=source.n_cells)


def _answers(
    source: Source, queries: Sequence[Query], asked: np.ndarray, output: Output
) -> Iterator[Prediction]:
    """Gather the rows of each query, and pass it on once all are there and its turn has come."""
    held: dict[int, list[Any]] = {}
    due, left = 0, np.bincount(asked[asked >= 0], minlength=len(queries))
    for start, block in source.row_blocks(BLOCK_BYTES):
        numbers = asked[start : start + block.shape[0]]
        for number in np.unique(numbers[numbers >= 0]).tolist():
            part = block[numbers == number]
            held.setdefault(number, []).append(part)
            left[number] -= part.shape[0]
        while due < len(queries) and not left[due]:
            rows = sparse.vstack(held.pop(due), format="csr").toarray()
            if output.holds == "profiles":
                yield Prediction(queries[due], profile=rows[0].astype(np.float64))
            else:
                # Whole numbers stay whole, so that the check of log1p values refuses them.
                floats = np.issubdtype(rows.dtype, np.floating)
                yield Prediction(queries[due], cells=rows.astype(np.float32) if floats else rows)
            due += 1
