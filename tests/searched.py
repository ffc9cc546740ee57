"""A small search, for tests to change."""

from typing import Any

JOB: dict[str, Any] = {
    "kind": "search",
    "dataset": "sim:tiny?contexts=1&genes=60",
    "split": "listed",
    "model": "linear",
    "space": {"rank": {"choice": [2, 4, 8]}, "ridge": {"log": [0.001, 10.0]}},
    "budget": {"trials": 4},
    "models": [{"model": "control-mean"}],
}
