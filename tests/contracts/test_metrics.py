"""The metric contract over every registered metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.metrics import registered
from tests.contracts.metric import CONTRACT

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.metrics import Metric


OPTIONAL = {"clustering_agreement": ("scanpy", "igraph")}
"""Packages without which a metric has no value."""


@pytest.mark.parametrize("name", registered())
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_every_registered_metric_keeps_the_contract(
    name: str, clause: Callable[[Metric], None]
) -> None:
    for package in OPTIONAL.get(name, ()):
        pytest.importorskip(package, reason=f"{name} needs {package}, of the extra clustering")
    clause(registered()[name])
