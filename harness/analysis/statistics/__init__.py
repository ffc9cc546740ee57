"""What scores can tell: intervals, paired tests, ranks and their stability, as array functions.

They take arrays of scores and know neither results nor tables. `bootstrap` resamples perturbations
and seeds, `paired` tests differences, `ranking` ranks and tests ranks, `stability` compares
rankings. What SciPy and statsmodels have is theirs.
"""

from __future__ import annotations

from harness.analysis.statistics.bootstrap import (
    FEW,
    Bootstrap,
    Resamples,
    percentile_interval,
    resample,
)
from harness.analysis.statistics.paired_tests import PairedTests, holm, paired_tests
from harness.analysis.statistics.rank_stability import Stability, agreement, stability, tau
from harness.analysis.statistics.ranking import (
    Friedman,
    Ranks,
    friedman,
    mean_ranks_of,
    rank,
    ranks_of,
    summary_of_ranks,
)

__all__ = [
    "FEW",
    "Bootstrap",
    "Friedman",
    "PairedTests",
    "Ranks",
    "Resamples",
    "Stability",
    "agreement",
    "friedman",
    "holm",
    "mean_ranks_of",
    "paired_tests",
    "percentile_interval",
    "rank",
    "ranks_of",
    "resample",
    "stability",
    "summary_of_ranks",
    "tau",
]
