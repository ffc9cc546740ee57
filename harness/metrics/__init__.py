"""What each score means: definitions from arrays to one value per pair, and suites of them.

A metric sees arrays only, through `Comparison` or `CountComparison`. Kernels are all that this
package imports of the project. `registered` gives every metric, `registered_suites` every suite.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.metrics.anchored_score import SCALES as SCALES
    from harness.metrics.anchored_score import aggregates as aggregates
    from harness.metrics.anchored_score import fault as fault
    from harness.metrics.anchored_score import scaled as scaled
    from harness.metrics.anchored_score import scaled_members as scaled_members
    from harness.metrics.base import NO_TRUE_GENES as NO_TRUE_GENES
    from harness.metrics.base import Metric as Metric
    from harness.metrics.base import Need as Need
    from harness.metrics.base import Ratio as Ratio
    from harness.metrics.base import metric_named as metric_named
    from harness.metrics.base import register as register
    from harness.metrics.base import registered as registered
    from harness.metrics.combined_score import combine_scores as combine_scores
    from harness.metrics.combined_score import scaled_scores as scaled_scores
    from harness.metrics.comparison import Comparison as Comparison
    from harness.metrics.comparison import Conventions as Conventions
    from harness.metrics.comparison import DETable as DETable
    from harness.metrics.comparison import Side as Side
    from harness.metrics.count_comparison import NO_GENE as NO_GENE
    from harness.metrics.count_comparison import CountComparison as CountComparison
    from harness.metrics.count_comparison import CountSide as CountSide
    from harness.metrics.count_comparison import target_columns as target_columns
    from harness.metrics.suites import Suite as Suite
    from harness.metrics.suites import registered_suites as registered_suites
    from harness.metrics.suites import suite_named as suite_named
    from harness.metrics.vcc2026 import MIN_GENES as MIN_GENES
    from harness.metrics.vcc2026 import NO_CHANGE as NO_CHANGE
    from harness.metrics.vcc2026 import TOO_FEW_GENES as TOO_FEW_GENES

_NAMES = {
    "anchored_score": "SCALES aggregates fault scaled scaled_members",
    "base": "Metric NO_TRUE_GENES Need Ratio metric_named register registered",
    "combined_score": "combine_scores scaled_scores",
    "comparison": "Comparison Conventions DETable Side",
    "count_comparison": "CountComparison CountSide NO_GENE target_columns",
    "suites": "Suite registered_suites suite_named",
    "vcc2026": "MIN_GENES NO_CHANGE TOO_FEW_GENES",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
