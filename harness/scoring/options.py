"""Options of scoring: how truth and predictions are read, and on what they are computed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.data import anndata_cells
from harness.errors import HarnessError
from harness.kernels import Limits, available_threads, choose
from harness.storage import parse_size

if TYPE_CHECKING:
    from harness.data import Cells, Scale
    from harness.kernels import Backend, Choice

CONTROL_LABEL = "non-targeting"
PERTURBATION_COLUMN = "target_gene"


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How to read truth and predictions, and with what to compute.

    Parameters
    ----------
    perturbation_column, context_column
        Columns of `obs`; without a context column all cells share one context.
    control
        The perturbation of control cells.
    scale
        What the values are; None: look. The truth's and the prediction's must be the same.
    prediction_scale
        What a prediction's are, where that is meant to be another scale than the truth's.
    threads
        How many threads; None: as many as this process may use.
    memory
        About how much a block of genes may take, as ``1GiB``; `memory_bytes` is the same parsed.
    no_target_genes
        Whether perturbations act on no gene, which suites of raw counts want to be told.
    backend
        Where ranks are computed: ``cpu``, ``gpu``, or ``auto``, a GPU where one is visible.
    """

    perturbation_column: str = PERTURBATION_COLUMN
    context_column: str | None = None
    control: str = CONTROL_LABEL
    scale: Scale | None = None
    threads: int | None = None
    memory: str = "1GiB"
    no_target_genes: bool = False
    backend: Choice = "auto"
    prediction_scale: Scale | None = None
    memory_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise HarnessError(f"threads: found {self.threads}, expected at least 1. Name more.")
        try:
            size = parse_size(self.memory)
        except ValueError as error:
            raise HarnessError(f"memory: {error}") from error
        if not size:
            raise HarnessError(f"memory: found {self.memory!r}, expected some, such as '1GiB'.")
        object.__setattr__(self, "memory_bytes", size)

    @property
    def for_prediction(self) -> ScoringOptions:
        """The options of a prediction: those of the truth, on its own scale if one was named."""
        return replace(self, scale=self.prediction_scale or self.scale)

    def cells(self, source: Any, name: str) -> Cells:
        """Return the cells behind a path, an AnnData object, or an object that has them already."""
        if hasattr(source, "gene_block"):
            found: Cells = source
            return found
        reading: dict[str, Any] = {
            "perturbation_column": self.perturbation_column,
            "context_column": self.context_column,
            "control_label": self.control,
            "scale": self.scale,
        }
        if isinstance(source, str | os.PathLike):
            from harness.data import open_predictions

            limits = Limits(self.n_threads, self.memory_bytes)
            return open_predictions(os.fspath(source), **reading, limits=limits)
        if hasattr(source, "obs") and hasattr(source, "var_names"):
            return anndata_cells(source, **reading, name=name, threads=self.n_threads)
        raise TypeError(
            f"{name} is a {type(source).__name__}; expected a path, an AnnData object, or an "
            "object with `gene_block` (harness.data.cells.Cells)."
        )

    @property
    def limits(self) -> dict[str, int]:
        """The keywords `threads` and `memory` (bytes) of functions that stream cells."""
        return {"threads": self.n_threads, "memory": self.memory_bytes}

    @property
    def device(self) -> Backend:
        """The backend to use; an error where a GPU was asked for and there is none."""
        try:
            return choose(self.backend)
        except RuntimeError as error:
            raise HarnessError(str(error)) from error

    @property
    def n_threads(self) -> int:
        """The number of threads to use."""
        return self.threads or available_threads()
