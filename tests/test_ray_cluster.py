"""What the Ray executor says when there is no cluster to run on."""

from __future__ import annotations

import pytest

from harness.errors import ClusterError
from harness.executors import open_executor
from harness.specs import ClusterSpec


@pytest.mark.ray
def test_an_address_where_nobody_answers_is_an_error() -> None:
    nobody = ClusterSpec(kind="ray", address="127.0.0.1:1")
    with (
        pytest.raises(ClusterError, match=r"No Ray cluster answers at '127.0.0.1:1'"),
        open_executor(nobody),
    ):
        pass
