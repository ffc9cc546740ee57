"""Array functions beneath every score: NumPy and numba here, CuPy where there is a device.

They know nothing of files, labels or metrics and import nothing but NumPy, SciPy and numba (or
CuPy), so a bare GPU machine can test them. They release the interpreter's lock and are given their
threads; none starts a pool of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.kernels.backend import Backend as Backend
    from harness.kernels.backend import Choice as Choice
    from harness.kernels.backend import choose as choose
    from harness.kernels.blocks import RowRange as RowRange
    from harness.kernels.cell_distances import Apart as Apart
    from harness.kernels.cell_distances import Distances as Distances
    from harness.kernels.cell_distances import Population as Population
    from harness.kernels.cell_maps import ControlQuantiles as ControlQuantiles
    from harness.kernels.cell_maps import shift_controls as shift_controls
    from harness.kernels.columns import columns_of as columns_of
    from harness.kernels.columns import compressed as compressed
    from harness.kernels.columns import note_cuts as note_cuts
    from harness.kernels.columns import pick_rows as pick_rows
    from harness.kernels.differential import adjust as adjust
    from harness.kernels.differential import adjust_rows as adjust_rows
    from harness.kernels.differential import clipped_fold_change as clipped_fold_change
    from harness.kernels.differential import fold_change as fold_change
    from harness.kernels.distances import pairwise_distances as pairwise_distances
    from harness.kernels.energy import energy_distance as energy_distance
    from harness.kernels.energy import mean_distance as mean_distance
    from harness.kernels.file_gather import gather as gather
    from harness.kernels.gene_weights import squared_weights as squared_weights
    from harness.kernels.gene_weights import standardised_u as standardised_u
    from harness.kernels.groups import Groups as Groups
    from harness.kernels.jackknife import BULK_TOTAL as BULK_TOTAL
    from harness.kernels.jackknife import Depths as Depths
    from harness.kernels.jackknife import count_sums as count_sums
    from harness.kernels.normalise import FRACTION as FRACTION
    from harness.kernels.normalise import context_library_sizes as context_library_sizes
    from harness.kernels.normalise import has_fractions as has_fractions
    from harness.kernels.normalise import log1p_normalise as log1p_normalise
    from harness.kernels.normalise import median_library_size as median_library_size
    from harness.kernels.rank_test import BlockStatistics as BlockStatistics
    from harness.kernels.rank_test import Workspace as Workspace
    from harness.kernels.rank_test import joint_statistics as joint_statistics
    from harness.kernels.rank_test import midranks as midranks
    from harness.kernels.rank_test import p_values as p_values
    from harness.kernels.rank_test_stream import stream_statistics as stream_statistics
    from harness.kernels.thinning import rounded as rounded
    from harness.kernels.thinning import thinned as thinned
    from harness.kernels.threads import Limits as Limits
    from harness.kernels.threads import available_threads as available_threads
    from harness.kernels.threads import in_threads as in_threads

_NAMES = {
    "backend": "Backend Choice choose",
    "blocks": "RowRange",
    "cell_distances": "Apart Distances Population",
    "cell_maps": "ControlQuantiles shift_controls",
    "columns": "columns_of compressed note_cuts pick_rows",
    "differential": "adjust adjust_rows clipped_fold_change fold_change",
    "distances": "pairwise_distances",
    "energy": "energy_distance mean_distance",
    "file_gather": "gather",
    "gene_weights": "squared_weights standardised_u",
    "groups": "Groups",
    "jackknife": "BULK_TOTAL Depths count_sums",
    "normalise": (
        "FRACTION context_library_sizes has_fractions log1p_normalise median_library_size"
    ),
    "rank_test": "BlockStatistics Workspace joint_statistics midranks p_values",
    "rank_test_stream": "stream_statistics",
    "thinning": "rounded thinned",
    "threads": "Limits available_threads in_threads",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
