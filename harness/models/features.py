"""Features of perturbations: one vector for each, from the training data or from the user's table.

``principal-components``: the scores of the perturbed gene on the first principal components of the
training pseudobulks, genes as observations (Ahlmann-Eltze, Huber and Anders, Nature Methods 2025).

``co-expression``: the gene's loadings on the first principal components of the shown control cells,
each gene standardised within its context, so that the inner product of two genes' features is their
correlation as far as these components have it. Guilt by association (Eisen et al., PNAS 1998),
without a perturbed cell.

``identity``: which single perturbations it consists of, and nothing else: a combination is like its
parts, a perturbation like itself in another context, and a new one like nothing.

A path or URL: a table with one row for each gene, or for each perturbation, such as embeddings of
what is written about genes (GenePT; Chen and Zou, Nature Biomedical Engineering 2024). CSV or TSV
with names in the first column; Parquet with names as the index or the first column; npz with
`names` (n,) and `values` (n, n_features).

A combination has the sum of its parts' vectors, unless the table has a row of its own for it. A
target that is no gene of the screen has no computed features, and a model then has to say what it
does instead. A name that a table lacks is an error, since a row of zeros would look like knowledge.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal
from zipfile import BadZipFile

import numpy as np

from harness.config import InputFile, read_file
from harness.errors import DataError, ModelError, listed
from harness.models.base import at_least
from harness.models.effects import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import pandas as pd

    from harness.tasks import TrainView


LARGEST = 1e100
"""A feature as large as this has a square that is infinite with a few others."""


def parse_table(path: str, content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the values, (n,) and (n, n_features) float64, of a table.

    Raises
    ------
    DataError
        The file is of another kind or damaged; a name is twice in it, or a value is no number.
    """
    suffix = path.rpartition(".")[2].lower()
    if suffix not in _READERS:
        raise DataError(
            f"{path}: a table of features ends in {listed(f'.{s}' for s in _READERS)}. Save it as "
            "one of these."
        )
    try:
        names, values = _READERS[suffix](content)
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a table of features: {error}") from error
    _check(path, names, values)
    return names, values


def _check(path: str, names: tuple[str, ...], values: np.ndarray) -> None:
    if values.ndim != 2 or len(values) != len(names) or not values.size:
        raise DataError(
            f"{path}: found {len(names)} names and values of shape {values.shape}, expected one "
            "row of at least one number for each name."
        )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise DataError(f"{path}: {len(twice)} names are given twice: {listed(twice)}.")
    wrong = ~(np.abs(values) < LARGEST).all(axis=1)  # NaN is not below it either
    if wrong.any():
        found = [name for name, is_wrong in zip(names, wrong, strict=True) if is_wrong]
        raise DataError(
            f"{path}: {len(found)} rows have NaN or infinite values: {listed(found)}. Expected "
            f"numbers below {LARGEST:g} in size. Fill them in, or leave the rows out."
        )


def _read_text(content: bytes, separator: str) -> tuple[tuple[str, ...], np.ndarray]:
    import pandas as pd

    # A gene called NA or NaN keeps its name: only numbers may be missing, and none is.
    frame = pd.read_csv(
        BytesIO(content), sep=separator, dtype={0: str}, keep_default_na=False, na_values=[]
    )
    if not isinstance(frame.index, pd.RangeIndex):  # as R writes it, and pandas guesses
        raise ValueError(
            f"its header has {frame.shape[1]} fields and its rows have more. Give the column "
            "of names a title, too, such as `gene`."
        )
    return _of_frame(frame.set_index(frame.columns[0]))


def _read_parquet(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    import pandas as pd

    frame = pd.read_parquet(BytesIO(content))
    if isinstance(frame.index, pd.RangeIndex):
        frame = frame.set_index(frame.columns[0])
    return _of_frame(frame)


def _of_frame(frame: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    if frame.index.nlevels > 1:
        raise ValueError(
            f"its index has {frame.index.nlevels} levels: {listed(map(str, frame.index.names))}. "
            "Expected one, the names."
        )
    wrong = [str(name) for name, kind in frame.dtypes.items() if kind.kind not in "iufb"]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {frame.shape[1]} columns are not numbers, or lack some: "
            f"{listed(wrong)}. Expected names in the first column, and numbers in all others."
        )
    return tuple(frame.index.astype(str)), frame.to_numpy(dtype=np.float64)


def _read_npz(content: bytes) -> tuple[tuple[str, ...], np.ndarray]:
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        if not {"names", "values"} <= set(arrays):
            raise ValueError(f"found arrays {listed(sorted(arrays))}, expected names and values.")
        names, values = arrays["names"], arrays["values"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise ValueError(
            f"`names` has type {names.dtype} and shape {names.shape}, expected text, one for each "
            "row of `values`."
        )
    if values.dtype.kind not in "iufb":
        raise ValueError(f"`values` has type {values.dtype}, expected real numbers.")
    return tuple(names.astype(str).tolist()), values.astype(np.float64)


_READERS: dict[str, Callable[[bytes], tuple[tuple[str, ...], np.ndarray]]] = {
    "csv": partial(_read_text, separator=","),
    "tsv": partial(_read_text, separator="\t"),
    "parquet": _read_parquet,
    "npz": _read_npz,
}


Source = Literal["principal-components", "co-expression", "identity"] | InputFile
"""Where features come from: computed, or the path of a table."""

Told = Literal["principal-components", "co-expression"] | InputFile
"""The same for networks, which are told of names besides."""

Missing = Literal["error", "mean-effect"]
"""What is done for a perturbation that a table has no row for."""

_OF_GENES = ("principal-components", "co-expression")

COMPUTED = 32
"""How many features are computed where nobody says."""

CONTROL_BYTES = 128 * 1024 * 1024
"""Memory for the control cells that co-expression is seen in: 1,850 cells of 18,080 genes."""


class Features:
    """One vector for each of some genes or perturbations: looked up by a perturbation's name.

    Attributes
    ----------
    names
        (n,) genes, or perturbations.
    values
        (n, n_features) float64.
    source
        Where they are from, as `features_of` takes it.
    """

    def __init__(
        self, names: Sequence[str], values: np.ndarray, train: TrainView, source: str
    ) -> None:
        self.names = tuple(names)
        self.values = values
        self.source = source
        self._train = train
        self._of_genes = source in _OF_GENES
        self._rows = {name: row for row, name in enumerate(self.names)}

    @property
    def table(self) -> str:
        """The path of the table that they are from; nothing where they were computed."""
        return "" if self._of_genes or self.source == "identity" else self.source

    @property
    def n_features(self) -> int:
        """The length of each vector."""
        return int(self.values.shape[1])

    @property
    def fixed(self) -> bool:
        """Whether they are the same whichever perturbations are trained on."""
        return bool(self.table) or self.source == "co-expression"

    def of(self, perturbation: str) -> np.ndarray | None:
        """Return the vector of a perturbation: (n_features,). None where a part of it has none."""
        if not self._of_genes and perturbation in self._rows:
            vector: np.ndarray = self.values[self._rows[perturbation]]
            return vector
        parts = self._parts(perturbation)
        if not parts or any(part not in self._rows for part in parts):
            return None
        total: np.ndarray = self.values[[self._rows[part] for part in parts]].sum(axis=0)
        return total

    def lacking(self, perturbations: Iterable[str]) -> list[str]:
        """Return the genes and perturbations, sorted, that a table would need a row for."""
        unknown = [name for name in perturbations if self.of(name) is None]
        parts = {part for name in unknown for part in parts_of(name, self._train)}
        return sorted(parts - set(self._rows))

    def refuse_missing(self, perturbations: Iterable[str], missing: Missing) -> None:
        """Raise `ModelError` where the table lacks a row that is needed, unless told otherwise."""
        if not self.table or missing != "error":
            return
        if lacking := self.lacking(perturbations):
            raise ModelError(
                f"{self.table} has no row for {len(lacking)} of the genes or perturbations that "
                f"are needed: {listed(lacking)}. Its rows are named {listed(self.names, 3)}. Add "
                "them to the table, or set `missing: mean-effect`: they then get the mean effect, "
                "and a note."
            )

    def standardised(self) -> Features:
        """Return the same with each column centred and divided by its standard deviation.

        A constant column becomes 0: its standard deviation is what rounding leaves.
        """
        spread = self.values.std(axis=0)
        varies = spread > 1e-9 * np.abs(self.values).max(axis=0, initial=0.0)
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=varies)
        scaled = (self.values - self.values.mean(axis=0)) * factor
        return Features(self.names, scaled, self._train, self.source)

    def _parts(self, perturbation: str) -> Sequence[str]:
        """Return the names that the vectors of a perturbation are looked up by."""
        named = parts_of(perturbation, self._train)
        if self.source == "identity" or (self.table and all(n in self._rows for n in named)):
            return named
        targets = self._train.targets(perturbation)
        return targets if len(targets) == len(named) else ()


def features_of(train: TrainView, source: str, n_features: int | None = None) -> Features:
    """Return features of perturbations, computed or read.

    Parameters
    ----------
    train
        What may be learned from; nothing else is looked at.
    source
        ``principal-components``, ``co-expression``, ``identity``, or the path or URL of a table.
    n_features
        How many, by default 32 that are computed, and all columns of a table. A number keeps as
        many leading principal components of the table's rows; fewer where there are no more.
        Identity has one for each single perturbation, whatever is said here.
    """
    at_least(1, n_features=n_features)
    if source == "principal-components":
        scores = principal_scores(training_bulks(train), n_features or COMPUTED)
        return Features(train.genes, scores, train, source)
    if source == "co-expression":
        return Features(train.genes, _co_expression(train, n_features or COMPUTED), train, source)
    if source == "identity":
        parts = sorted({part for name in train.perturbations for part in parts_of(name, train)})
        return Features(parts, np.eye(len(parts)), train, source)
    names, values = parse_table(source, read_file(source))
    if n_features is not None and n_features < values.shape[1]:
        values = principal_scores(values - values.mean(axis=0), n_features)
    return Features(names, values, train, source)


def training_bulks(train: TrainView) -> np.ndarray:
    """Return the pseudobulks of the training pairs: (n_genes, n_pairs) float64."""
    bulks = [train.pseudobulk(*pair) for pair in train.pairs]
    return np.array(bulks, dtype=np.float64).reshape(len(bulks), len(train.genes)).T


def principal_scores(observed: np.ndarray, rank: int) -> np.ndarray:
    """Return the rows' scores on the leading principal components: (n_rows, <= rank).

    Columns are centred. Components without variance are left out. By the eigenvectors of the
    smaller product of the matrix with itself: genes outnumber pairs many times, or the reverse.
    """
    if not observed.size:
        return np.zeros((len(observed), 0))
    centred = observed - observed.mean(axis=0)
    wide = centred.shape[1] > centred.shape[0]
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = np.flatnonzero(values > values.max(initial=0.0) * 1e-10)[::-1][:rank]
    chosen: np.ndarray = vectors[:, kept]
    return _signed(chosen * np.sqrt(values[kept]) if wide else centred @ chosen)


def _signed(columns: np.ndarray) -> np.ndarray:
    """Return columns whose largest entry is positive.

    The sign of an eigenvector is the library's choice, and a seed would give other networks.
    """
    if not columns.size:
        return columns
    largest = columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])]
    signed: np.ndarray = np.where(largest < 0, -columns, columns)
    return signed


def _co_expression(train: TrainView, rank: int) -> np.ndarray:
    """Return the genes' loadings on the principal components of control cells: (n_genes, rank)."""
    size = CONTROL_BYTES // (4 * len(train.genes) * len(train.contexts))
    cells = [_standardised(train.controls(c, max(2, size))) for c in train.contexts]
    together = np.concatenate(cells)
    n, n_genes = together.shape
    wide = n_genes > n
    product = (together @ together.T if wide else together.T @ together).astype(np.float64)
    values, vectors = np.linalg.eigh(product / n)
    kept = np.flatnonzero(values > values.max(initial=0.0) * 1e-10)[::-1][:rank]
    chosen, sizes = vectors[:, kept], np.sqrt(values[kept])
    if wide:  # from cells to genes: the right singular vectors
        chosen, sizes = together.T @ chosen, 1 / np.sqrt(n)
    return _signed(chosen * sizes)


def _standardised(cells: np.ndarray) -> np.ndarray:
    """Centre each gene and divide by its standard deviation; a constant one becomes 0."""
    centred = cells - cells.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = centred.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    standard: np.ndarray = centred * scale.astype(np.float32)
    return standard
