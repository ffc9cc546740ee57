"""What scores can tell: intervals, paired tests, ranks and their stability, as array functions.

They take arrays of scores and know neither results nor tables. `bootstrap` resamples perturbations
and seeds, `paired_tests` tests differences, `ranking` ranks, tests ranks and compares rankings.
What SciPy and statsmodels have is theirs.
"""

from __future__ import annotations

from harness.analysis.statistics.bootstrap import (
    DEFAULT,
    FEW,
    Bootstrap,
    Resamples,
    defined_mean,
    percentile_interval,
    resample,
)
from harness.analysis.statistics.paired_tests import PairedTests, holm, paired_tests
from harness.analysis.statistics.ranking import (
    Friedman,
    Ranks,
    Stability,
    agreement,
    friedman,
    mean_ranks_of,
    rank,
    ranks_of,
    stability,
    summary_of_ranks,
    tau,
    untested,
)

__all__ = [
    "DEFAULT",
    "FEW",
    "Bootstrap",
    "Friedman",
    "PairedTests",
    "Ranks",
    "Resamples",
    "Stability",
    "agreement",
    "defined_mean",
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
    "untested",
]
