"""What a model's author needs to test it: the contract, and a tiny screen in memory.

::

    from harness.testing import check_model

    def test_my_model_keeps_the_contract():
        check_model(MyModel, strength=0.5)

Every clause is a function of its own in `CONTRACT`, so that a test suite can also run them one by
one.
"""

from __future__ import annotations

from harness.testing.model_contract import CONTRACT, Case, check_model
from harness.testing.screen import MemoryScreen, PairRange, tiny_screen

__all__ = ["CONTRACT", "Case", "MemoryScreen", "PairRange", "check_model", "tiny_screen"]
