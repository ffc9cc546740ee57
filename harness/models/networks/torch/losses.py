"""Distances between sets of cells, as losses: one value for each set."""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.5, 1.0, 2.0)
"""Bandwidths of the kernels, in mean squared distances between the two sets."""


def energy_distance(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return ``2 E|x − y| − E|x − x'| − E|y − y'|`` without a cell's distance to itself: (n_sets,).

    Parameters
    ----------
    x
        (n_sets, n, n_genes), all of them cells.
    y, weights
        (n_sets, m, n_genes) and (n_sets, m), which sum to 1 and are zero where there is no cell. A
        set of one cell has no distance within: the term is zero.
    """
    even = _even(x)
    between = _expected(_lengths(x, y), even, weights)
    return 2 * between - _within(_lengths(x, x), even) - _within(_lengths(y, y), weights)


def squared_mmd(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy, mean over Gaussian kernels: (n_sets,).

    Arguments as in `energy_distance`; unbiased likewise. The bandwidths follow the mean squared
    distance between the two sets, which counts as given.
    """
    even = _even(x)
    across, inside, outside = _squares(x, y), _squares(x, x), _squares(y, y)
    scale = _expected(across, even, weights).detach()[:, None, None] + 1e-6
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for factor in SCALES:
        k_xy, k_xx, k_yy = (torch.exp(-d / (factor * scale)) for d in (across, inside, outside))
        total = total + _within(k_xx, even) + _within(k_yy, weights)
        total = total - 2 * _expected(k_xy, even, weights)
    return total / len(SCALES)


LOSSES = {"energy": energy_distance, "mmd": squared_mmd}


def _even(x: Tensor) -> Tensor:
    n_sets, n = x.shape[:2]
    return torch.full((n_sets, n), 1 / n, dtype=x.dtype, device=x.device)


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances: (n_sets, n, m).

    Both are centred first: far from zero, the difference of large squares has few digits.
    """
    centre = y.mean(dim=1, keepdim=True).detach()
    x, y = x - centre, y - centre
    own = (x * x).sum(-1)[:, :, None] + (y * y).sum(-1)[:, None]
    return (own - 2 * x @ y.transpose(1, 2)).clamp(min=0)


def _lengths(x: Tensor, y: Tensor) -> Tensor:
    return torch.sqrt(_squares(x, y) + 1e-6)  # a root has no gradient at zero


def _expected(values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("snm,sn,sm->s", values, left, right)


def _within(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over pairs of different cells: (n_sets,); zero for a set of one."""
    itself = (weights**2 * values.diagonal(dim1=1, dim2=2)).sum(1)
    share = 1 - (weights**2).sum(1)
    total = _expected(values, weights, weights) - itself
    return torch.where(share > 1e-4, total / share.clamp(min=1e-4), torch.zeros_like(total))
