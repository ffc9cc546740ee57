"""Truth and predictions in, one score per suite, metric and pair out.

`score` compares one prediction with a truth, `prepare` computes the truth's part once for many, and
`score_files` scores a folder. Anchors of the 2026 score and the checks of metrics are here; no
model and no table is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.scoring.anchors import SUITE as SUITE
    from harness.scoring.batch import NOTE as NOTE
    from harness.scoring.batch import Batch as Batch
    from harness.scoring.batch import Request as Request
    from harness.scoring.batch import as_markdown as as_markdown
    from harness.scoring.batch import score_files as score_files
    from harness.scoring.batch import writing as writing
    from harness.scoring.control_predictions import BASE as BASE
    from harness.scoring.control_predictions import KINDS as KINDS
    from harness.scoring.control_predictions import NEGATIVE as NEGATIVE
    from harness.scoring.control_predictions import POSITIVE as POSITIVE
    from harness.scoring.group_statistics import Statistics as Statistics
    from harness.scoring.metric_checks import Sampling as Sampling
    from harness.scoring.metric_checks import check_trust as check_trust
    from harness.scoring.options import ScoringOptions as ScoringOptions
    from harness.scoring.scorer import SUFFIXES as SUFFIXES
    from harness.scoring.scorer import Scorer as Scorer
    from harness.scoring.scorer import score as score
    from harness.scoring.scorer import scores_counts as scores_counts
    from harness.scoring.scores import Scores as Scores
    from harness.scoring.to_counts import CountedCells as CountedCells
    from harness.scoring.truth import sides_of as sides_of
    from harness.scoring.truth_cache import DamagedError as DamagedError
    from harness.scoring.truth_cache import Values as Values
    from harness.scoring.truth_cache import read_values as read_values

_NAMES = {
    "anchors": "SUITE",
    "batch": "Batch NOTE Request as_markdown score_files writing",
    "control_predictions": "BASE KINDS NEGATIVE POSITIVE",
    "group_statistics": "Statistics",
    "metric_checks": "Sampling check_trust",
    "options": "ScoringOptions",
    "scorer": "SUFFIXES Scorer score scores_counts",
    "scores": "Scores",
    "to_counts": "CountedCells",
    "truth": "sides_of",
    "truth_cache": "DamagedError Values read_values",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
