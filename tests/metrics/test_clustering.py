"""Agreement of clusters: the oracle's values, and what there is without the optional packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.metrics import clustering
from harness.scoring.scorer import score
from tests.golden import cases, compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.scoring.scores import Scores

GOLDEN = compare.golden("cell_eval")


def scored(case: cases.Case) -> Scores:
    sides = (compare.annotated(side) for side in vars(case).values())
    return score(*sides, metrics=["clustering_agreement"])


@pytest.fixture
def packages() -> None:
    """Skip where the optional packages are not installed."""
    for name in clustering.NEEDED:
        pytest.importorskip(name, reason=f"needs {name}, of the extra clustering")


def agrees(found: Scores, name: str) -> None:
    expected = GOLDEN[name]["results"]["clustering_agreement"]
    assert found.frame["value"].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", list(cases.SIMULATED))
def test_agreement_equals_the_oracle_on_simulated_screens(name: str) -> None:
    agrees(scored(cases.SIMULATED[name]()), name)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("file", ["papalexi21", "datlinger21"])
@pytest.mark.parametrize("name", ["other-half", "next-perturbation", "means-of-other-half"])
def test_agreement_equals_the_oracle_on_real_screens(
    file: str, name: str, data_file: Callable[[str], Path]
) -> None:
    case = cases.screens(compare.read_screen(data_file(f"{file}.h5ad")))[name]
    agrees(scored(case), f"{file}:{name}")


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "find_spec", lambda name: None)
    found = scored(cases.SIMULATED["plain"]()).frame
    assert found["value"].isna().all()
    assert set(found["reason"]) == {"not installed: pip install 'virtual-cell-harness[clustering]'"}


def test_two_perturbations_have_no_clusters() -> None:
    sizes = {cases.CONTROL: 30, "G1": 20, "G2": 20}
    sides = [cases.logged(cases.counts(seed, sizes, cases.GENES, 6.0)) for seed in (1, 2)]
    found = scored(cases.Case(*sides)).frame
    assert set(found["reason"]) == {"fewer than three perturbations"}
