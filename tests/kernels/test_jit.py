"""Where compiled kernels are kept."""

from __future__ import annotations

from typing import Any

import numba
import pytest

from harness.kernels import jit as compiling


def refusing(asked: list[Any]) -> Any:
    """A `numba.njit` that finds no folder to write to but the one configured."""

    def njit(*, cache: bool = False, **options: Any) -> Any:
        asked.append(numba.config.CACHE_DIR if cache else None)
        if cache and not numba.config.CACHE_DIR:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    return njit


@pytest.mark.parametrize(
    ("cache", "expected"), [("/c", ["", "/c/numba"]), (None, ["", None])], ids=["named", "nowhere"]
)
def test_a_read_only_installation_keeps_kernels_in_the_harness_cache(
    monkeypatch: pytest.MonkeyPatch, cache: str | None, expected: list[Any]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(numba, "njit", refusing(asked))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    if cache:
        monkeypatch.setenv("HARNESS_CACHE", cache)
    compiling.compiled(len)
    assert asked == expected
