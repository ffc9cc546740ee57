"""Measure conversion against ``anndata.read_h5ad(FILE).write_zarr(...)``, alternating.

    python tests/benchmarks/convert.py FOLDER [--rounds 3] [--cells 50000] [--only NAME ...]

Makes the screen of `screen.py` in FOLDER (500 MB) unless it is there, then runs every variant in a
process of its own, in turn, so that other load on the machine falls on all alike. Prints the median
and the range of wall time, processor time, and the peak of resident memory, interpreter included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from screen import N_CELLS, write_screen

HEAD = """
import json, re, sys, time
begun = time.perf_counter()
source, out = sys.argv[1:]
"""

TAIL = """
status = open("/proc/self/status").read()
print(json.dumps({
    "wall s": time.perf_counter() - begun,
    "cpu s": time.process_time(),
    "peak MB": int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024,
}))
"""

OURS = """
from harness.data.conversion import convert
from harness.data.cards import Card
card = Card(
    name="bench", version=1, title="Benchmark", organism="human", control_label="non-targeting",
    source={"file": "a", "page": "https://a.b", "license": "MIT", "cite": "nobody"},
    columns={"perturbation": "target_gene", "context": "cell_line"},
    expression={"scale": "counts"},
)
"""

POOL = """
from concurrent.futures import ThreadPoolExecutor
def pool(function, total, written, n_workers, report):
    with ThreadPoolExecutor(n_workers) as executor:
        list(executor.map(function, range(total)))
sys.modules["harness.data.conversion"]._each = pool
"""

LOOP = """
def loop(function, total, written, n_workers, report):
    for number in range(total):
        function(number)
sys.modules["harness.data.conversion"]._each = loop
"""

CONVERT = "convert(source, out, card)\n"

ANNDATA = """
import anndata
anndata.read_h5ad(source).write_zarr(out)
"""

ANNDATA_V3 = """
import anndata
anndata.settings.zarr_write_format = 3
anndata.read_h5ad(source).write_zarr(out)
"""

VARIANTS = {
    "harness": OURS + CONVERT,
    "anndata": ANNDATA,
    "anndata-v3": ANNDATA_V3,
    "harness-pool": OURS + POOL + CONVERT,  # the same, by a thread pool instead of Dask
    "harness-loop": OURS + LOOP + CONVERT,  # the same, one block after the other
}


def measure(program: str, source: Path, out: Path) -> dict[str, float]:
    """Run one variant in a fresh process and return what it took."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", "-c", HEAD + program + TAIL, str(source), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    shutil.rmtree(out)
    return json.loads(done.stdout.splitlines()[-1]) | {"size MB": size / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=N_CELLS)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    source = given.folder / f"screen{given.cells}.h5ad"
    if not source.exists():
        write_screen(source, given.cells)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in given.only}
    for _ in range(given.rounds):
        for name in given.only:
            found[name].append(measure(VARIANTS[name], source, given.folder / "out.zarr"))
            print(name, {k: round(v, 1) for k, v in found[name][-1].items()}, flush=True)
    print(f"\n| variant | {' | '.join(found[given.only[0]][0])} |\n|---|" + "---:|" * 4)
    for name, runs in found.items():
        cells = []
        for key in runs[0]:
            values = [run[key] for run in runs]
            cells.append(f"{statistics.median(values):.4g} ({min(values):.4g}–{max(values):.4g})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
