"""Cells on disk and in memory: stores, predictions, foreign files, cards and simulated screens.

A `Store` is a converted screen, sorted by pair. `Cells` is what scoring reads, whichever file the
cells are in. Conversion, simulation and writing of predictions are here; AnnData and Dask are
imported nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.anndata_file import open_source as open_source
    from harness.data.anndata_matrix import Source as Source
    from harness.data.array_cells import ArrayCells as ArrayCells
    from harness.data.array_cells import anndata_cells as anndata_cells
    from harness.data.cards import card_for as card_for
    from harness.data.cards import check_card as check_card
    from harness.data.cards import read_card as read_card
    from harness.data.cards import source_status as source_status
    from harness.data.cells import BLOCK_BYTES as BLOCK_BYTES
    from harness.data.cells import Cells as Cells
    from harness.data.cells import Half as Half
    from harness.data.cells import Reader as Reader
    from harness.data.cells import Scale as Scale
    from harness.data.cells import Screen as Screen
    from harness.data.cells import StoreCells as StoreCells
    from harness.data.cells import halved as halved
    from harness.data.cells import runs as runs
    from harness.data.conversion import convert as convert
    from harness.data.dataset_names import is_store_path as is_store_path
    from harness.data.dataset_names import parse_simulated as parse_simulated
    from harness.data.datasets import find_or_make as find_or_make
    from harness.data.download import Progress as Progress
    from harness.data.download import fetch as fetch
    from harness.data.h5ad_writer import H5adWriter as H5adWriter
    from harness.data.prediction_writer import HeldPredictions as HeldPredictions
    from harness.data.prediction_writer import PredictionCollector as PredictionCollector
    from harness.data.prediction_writer import held_controls as held_controls
    from harness.data.predictions import PredictionWriter as PredictionWriter
    from harness.data.predictions import is_store as is_store
    from harness.data.predictions import open_predictions as open_predictions
    from harness.data.predictions import scratch_predictions as scratch_predictions
    from harness.data.predictions import with_controls as with_controls
    from harness.data.predictions import write_profiles as write_profiles
    from harness.data.simulation.presets import presets as presets
    from harness.data.simulation.screens import effects_path as effects_path
    from harness.data.simulation.screens import simulate as simulate
    from harness.data.simulation.screens import simulated_card as simulated_card
    from harness.data.simulation.screens import simulation_options as simulation_options
    from harness.data.spill import from_dense as from_dense
    from harness.data.store import CHUNK_ROWS as CHUNK_ROWS
    from harness.data.store import Store as Store
    from harness.data.store import open_store as open_store
    from harness.data.vcc_archive import MAX_UNPACKED as MAX_UNPACKED
    from harness.data.vcc_archive import SUFFIX as SUFFIX
    from harness.data.vcc_archive import pack as pack
    from harness.data.vcc_archive import unpacked as unpacked

_NAMES = {
    "anndata_file": "open_source",
    "anndata_matrix": "Source",
    "array_cells": "ArrayCells anndata_cells",
    "cards": "card_for check_card read_card source_status",
    "cells": "BLOCK_BYTES Cells Half Reader Scale Screen StoreCells halved runs",
    "conversion": "convert",
    "dataset_names": "is_store_path parse_simulated",
    "datasets": "find_or_make",
    "download": "Progress fetch",
    "h5ad_writer": "H5adWriter",
    "prediction_writer": "HeldPredictions PredictionCollector held_controls",
    "predictions": (
        "PredictionWriter is_store open_predictions scratch_predictions with_controls "
        "write_profiles"
    ),
    "simulation.presets": "presets",
    "simulation.screens": "effects_path simulate simulated_card simulation_options",
    "spill": "from_dense",
    "store": "CHUNK_ROWS Store open_store",
    "vcc_archive": "MAX_UNPACKED SUFFIX pack unpacked",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
