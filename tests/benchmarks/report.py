"""How long a report takes to make and to open, and how large it is, by the number of trials.

Run: ``python -m tests.benchmarks.report [TRIALS ...]``; by default 10, 200 and 1000. Scores are
drawn, not computed. With a Chromium on the path, each page is opened from disk five times, and the
median is given of the time until its script has run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from harness.analysis.report import report_html
from harness.analysis.results import Results
from harness.models.registry import registered

N_PAIRS, SEEDS = 100, 5
METRICS = ("overlap_at_N", "mae", "discrimination_score_l1")
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def drawn(n_trials: int) -> Results:
    """Return results of settings of one model, five seeds each, on a hundred pairs."""
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": [f"{at:012x}" for at in range(n_trials)]})
    setting = np.arange(n_trials) // SEEDS
    trials = trials.assign(
        model="linear",
        dataset="drawn",
        split="unseen-perturbation",
        seed=np.arange(n_trials) % SEEDS,
    )
    trials["param.rank"], trials["param.ridge"] = setting % 20, setting // 20
    trials["seconds.fit"], trials["peak_memory"] = 1.0, 1e9
    skill = rng.normal(size=setting.max() + 1)[setting]
    parts = []
    for metric in METRICS:
        values = skill[:, None] * 0.1 + rng.normal(0.5, 0.2, (n_trials, N_PAIRS))
        parts.append(
            pd.DataFrame(
                {
                    "trial": np.repeat(trials["trial"].to_numpy(), N_PAIRS),
                    "suite": "vcc2025",
                    "metric": metric,
                    "version": 1,
                    "context": "c",
                    "perturbation": np.tile([f"p{at}" for at in range(N_PAIRS)], n_trials),
                    "value": values.ravel(),
                    "reason": "",
                }
            )
        )
    return Results.of(pd.concat(parts, ignore_index=True), trials)


def opened(browser: str, page: Path) -> float:
    """Return the milliseconds from navigation until the page's script has run."""
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --dump-dom"
    with tempfile.TemporaryDirectory() as profile:
        found = subprocess.run(
            [browser, *flags.split(), f"--user-data-dir={profile}", page.as_uri()],
            capture_output=True,
            text=True,
            check=True,
        )
    said = re.search(r'<meta name="took" content="([^"]*)"', found.stdout)
    assert said, "the page's script did not end"
    return float(json.loads(said[1]))


def main(sizes: list[int]) -> None:
    """Print one line for each number of trials."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    for n_trials in sizes:
        results = drawn(n_trials)
        start = time.process_time()
        page = report_html(results, registered())
        made = time.process_time() - start
        took = "no browser"
        if browser:
            say = (
                'const m = document.createElement("meta"); m.name = "took"; '
                "m.content = JSON.stringify(performance.now()); document.head.append(m);"
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "page.html"
                path.write_text(page.replace("</body>", f"<script>{say}</script></body>"), "utf-8")
                took = f"{median(opened(browser, path) for _ in range(5)):.0f} ms to open"
        size = len(page.encode()) / 1e6
        print(f"{n_trials} trials: {made:.1f} processor s to make, {size:.1f} MB, {took}")


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [10, 200, 1000])
