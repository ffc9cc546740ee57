"""Make vcc2025.json with the scorer of the 2025 leaderboard.

In an environment with cell-eval 0.6.6, pdex 0.1.27 and SciPy below 1.17 (which computes the rank
test of float32 values in float32, unlike the releases that scored the leaderboard):

    python tests/golden/make_vcc2025.py path/to/papalexi21.h5ad
"""

from __future__ import annotations

import sys
from pathlib import Path

import oracle

KEPT = (
    "perturbation",
    "overlap_at_N",
    "mae",
    "discrimination_score_l1",
    "discrimination_score_l2",
    "discrimination_score_cosine",
    "de_nsig_counts_real",
    "de_nsig_counts_pred",
)


def main() -> None:
    """Score every case under the profiles full and vcc, and the plain one against the baseline."""
    found = {}
    for name, case in oracle.all_cases(*map(Path, sys.argv[1:])):
        full = oracle.run(case, "full", skip_metrics=["clustering_agreement", "pearson_edistance"])
        vcc = oracle.run(case, "vcc")
        kept = {column: full["results"][column] for column in KEPT}
        found[name] = {"results": kept, "vcc": vcc}
        print(name, flush=True)
    found["plain"]["from_baseline"] = combined(found["plain"]["vcc"], found["baseline"]["vcc"])
    oracle.write(oracle.HERE / "vcc2025.json", found)


def combined(user: dict, base: dict) -> dict:
    """Scale one aggregate by another."""
    import polars as pl
    from cell_eval._score import score_agg_metrics

    tables = (pl.DataFrame(side["aggregate"]) for side in (user, base))
    return oracle.columns(score_agg_metrics(*tables))


if __name__ == "__main__":
    main()
