"""Counts to log1p of counts at a common library size, a block of genes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.kernels.backend import namespace_of

FRACTION = 1e-3
"""A fractional part above this means log1p; no such part anywhere means counts."""


def has_fractions(values: np.ndarray) -> bool:
    """Tell whether any value has a fractional part above 0.001."""
    if values.dtype.kind in "iub" or not values.size:
        return False
    return bool(np.any(np.modf(values)[0] > FRACTION))


def median_library_size(sizes: np.ndarray) -> float:
    """Return the median total count over the cells that have any; 0 where none has."""
    counted = np.asarray(sizes)[np.asarray(sizes) > 0]
    return float(np.median(counted)) if counted.size else 0.0


def context_library_sizes(sizes: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """Return the median library size of each cell's context: (n_cells,) float64.

    1 in a context without any counts, whose cells no size can change.
    """
    _, codes = np.unique(contexts, return_inverse=True)
    medians = [median_library_size(sizes[codes == at]) or 1.0 for at in range(codes.max() + 1)]
    return np.array(medians)[codes]


def log1p_normalise(block: Any, sizes: np.ndarray, library_size: float | np.ndarray) -> Any:
    """Scale each cell to `library_size` and take log(1 + x); float32, or float64 if `block` is.

    Divides by size / library_size in the block's own precision, in this order, since ties between
    cells are decided by the last bit and the reference scorers (scanpy) do it so.

    Parameters
    ----------
    block
        (n_cells, width) counts, dense or SciPy CSC. Not changed. A dense one may be on a device,
        whose logarithm differs in the last bit: ranks of such values are not the CPU's.
    sizes
        (n_cells,) total count of each cell over all genes. A cell without counts stays zero.
    library_size
        The total that every cell is scaled to, or (n_cells,) the total of each.
    """
    dtype = np.dtype(np.float64 if block.dtype == np.float64 else np.float32)
    factors = np.divide(sizes, library_size, dtype=dtype, casting="unsafe")
    factors[factors == 0] = 1
    if getattr(block, "format", "dense") == "csc":
        result = block.astype(dtype, copy=True)
        np.divide(result.data, factors[result.indices], out=result.data)
        np.log1p(result.data, out=result.data)
        return result
    xp = namespace_of(block)
    scaled = xp.asarray(block, dtype=dtype) / xp.asarray(factors)[:, None]
    return xp.log1p(scaled, out=scaled)
