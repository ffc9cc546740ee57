"""What each score means: definitions from arrays to one value per pair, and suites of them.

A metric sees arrays only, through `comparison.Comparison`; it imports kernels and nothing else of
this package. Importing this module registers all metrics and suites.
"""

from __future__ import annotations

from harness.metrics import calibrated, clustering, differential, expression, suites, vcc2026
from harness.metrics.base import Metric, metric_named, register, registered
from harness.metrics.comparison import Comparison, Conventions, Side
from harness.metrics.suites import Suite, suite_named

__all__ = [
    "Comparison",
    "Conventions",
    "Metric",
    "Side",
    "Suite",
    "calibrated",
    "clustering",
    "differential",
    "expression",
    "metric_named",
    "register",
    "registered",
    "suite_named",
    "suites",
    "vcc2026",
]
