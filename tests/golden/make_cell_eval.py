"""Make cell_eval.json with today's ``cell-eval``.

In an environment with cell-eval 0.8.2 and pdex 0.3.0:

    python tests/golden/make_cell_eval.py path/to/papalexi21.h5ad path/to/datlinger21.h5ad
"""

from __future__ import annotations

import sys
from pathlib import Path

import oracle

PROFILES = ("minimal", "de", "anndata")


def main() -> None:
    """Score every case under the profile full, and the plain one under the others."""
    found = {}
    for name, case in oracle.all_cases(*map(Path, sys.argv[1:])):
        found[name] = oracle.run(case, "full")
        print(name, flush=True)
    plain = oracle.cases.SIMULATED["plain"]()
    for profile in PROFILES:
        run = oracle.run(plain, profile)
        found["plain"][profile] = {"columns": list(run["results"])}
    oracle.write(oracle.HERE / "cell_eval.json", found)


if __name__ == "__main__":
    main()
