"""Values of a manifest's columns."""

from __future__ import annotations

import pytest

from harness.jobs.prediction_manifest import value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [("1_0", "1_0"), ("nan", "nan"), ("inf", "inf"), ("1e400", "1e400"), ("-.5", -0.5), ("7", 7)],
)
def test_only_plain_finite_numbers_are_numbers(text: str, value: object) -> None:
    found = value_of(text)
    assert (type(found), found) == (type(value), value)
