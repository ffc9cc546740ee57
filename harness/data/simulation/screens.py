"""Screens drawn with known effects, so that true answers exist; also without any download.

`simulate` writes a store, and beside it what is true of it: ``NAME.effects.parquet``, one row for
each gene whose mean a pair changes. Cells are drawn shard by shard, each cell from a stream of its
own, so memory does not grow with the screen and the result depends on neither threads nor blocks.
`simulate_effects` says how effects come about and which public data the numbers follow.

A job names a simulated screen ``sim:PRESET`` or ``sim:PRESET?seed=1&contexts=2``; it is made once
and kept in the cache.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from harness.data.dataset_names import parse_simulated
from harness.data.simulation.effects import Preset, draw_genome, generator
from harness.data.simulation.presets import (
    CONTROL,
    Changes,
    draw_perturbations,
    draw_screen,
    preset_with,
)
from harness.data.store import open_store
from harness.data.store_writer import StoreWriter
from harness.errors import DataError, DeclarationError, UnknownNameError
from harness.storage import exclusive_lock, paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.data.store import Store

VERSION = 1
"""Raise it whenever a preset and a seed would give other cells: it is the card's version too."""
MOST_THREADS = 4
"""Each holds a shard of the store, 80 MiB; the disk is busy with four."""
LISTED = (1 / 2, 1 / 6)
"""Shares of perturbations that the listed split trains on and validates with: 150, 50, 100."""


def simulate(
    preset: str,
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    **changes: Unpack[Changes],
) -> Store:
    """Write a simulated screen as a store, and its known effects beside it.

    Parameters
    ----------
    preset
        One of `presets`.
    path
        The store's name, ending in ``.zarr``; must not exist.
    progress
        Is called with the cells that are written and their number, after each shard.
    changes
        What to change of the preset, see `Changes`.
    """
    screen = draw_screen(preset_with(preset, **changes), seed)
    report = progress or (lambda *_: None)
    with StoreWriter(
        os.fspath(path),
        obs=screen.obs(),
        var=pd.DataFrame(index=pd.Index(screen.genome.names, dtype=object)),
        ranges=screen.ranges,
        dtype="float32",
        card=_card(preset, screen.preset, seed),
        scale="counts",
        control_label=CONTROL,
    ) as writer:

        def draw(shard: int) -> int:
            where = writer.shard_slice(shard)
            rows = screen.rows(where.start, where.stop)
            writer.write_shard(shard, rows)
            return len(rows)

        done = 0
        with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
            for n_cells in pool.map(draw, range(writer.n_shards)):
                done += n_cells
                report(done, screen.n_cells)
        content = io.BytesIO()
        screen.effects_frame().to_parquet(content, index=False)
        # before the store, whose presence then says that its effects are there too
        paths.write_atomic(effects_path(path), content.getvalue())
        return writer.finish()


def effects_path(store: str | os.PathLike[str]) -> str:
    """Return the path of a simulated store's known effects: ``NAME.effects.parquet``."""
    return os.fspath(store).rstrip("/").removesuffix(".zarr") + ".effects.parquet"


def known_effects(store: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the true effects in a simulated store, one row for each gene that a pair changes.

    Columns are context, perturbation, gene and log2_fold_change: of the mean count, at equal
    library factor, against control. The target's own knock-down is among them. Genes that are not
    listed do not change.
    """
    path = effects_path(store)
    if not paths.exists(path):
        raise DataError(
            f"{path}: not there. It is written beside a store by `harness simulate`, and has to be "
            "moved with it; other screens have no known effects."
        )
    return pd.read_parquet(io.BytesIO(paths.read_bytes(path)))


# --- cards --------------------------------------------------------------------------------------


def simulated_card(name: str) -> dict[str, Any]:
    """Return the card of a simulated screen by its ``sim:`` name, without making the screen."""
    parsed = parse_sim(name)
    preset, seed = parsed.pop("preset"), parsed.pop("seed", 0)
    return _card(preset, preset_with(preset, **parsed), seed)


def _card(name: str, preset: Preset, seed: int) -> dict[str, Any]:
    return {
        "name": f"sim-{name}",
        "version": VERSION,
        "title": preset.title,
        "organism": "none",
        "source": {
            "file": f"sim-{name}.zarr",
            "page": "https://doi.org/10.1016/j.cell.2022.05.013",
            "license": "CC0-1.0",
            "cite": f"Simulated by `harness simulate {name} --seed {seed}`; sizes of effects after "
            "Replogle et al., Cell 2022.",
        },
        "columns": {"perturbation": "target_gene", "context": "context", "batch": "batch"},
        "control_label": CONTROL,
        "combination_separator": "+" if preset.combinations else None,
        "expression": {"layer": "X", "scale": "counts"},
        "splits": _splits(preset, seed),
    }


def _splits(preset: Preset, seed: int) -> dict[str, dict[str, Any]]:
    """Return every kind of split that the screen is large enough for."""
    kinds: dict[str, dict[str, Any]] = {}
    n_perturbations = preset.perturbations + preset.combinations
    if n_perturbations >= 2:
        kinds["unseen-perturbation"] = {"folds": min(5, n_perturbations)}
    if preset.contexts >= 2:
        kinds["few-shot-context"] = {"shown": 0.5}
        kinds["zero-shot-context"] = {}
    if preset.combinations >= 2:
        kinds["unseen-combination"] = {"folds": min(5, preset.combinations)}
    if preset.perturbations >= 6:
        kinds["listed"] = _listed(preset, seed)
    return {kind: {"kind": kind, **split} for kind, split in kinds.items()}


def _listed(preset: Preset, seed: int) -> dict[str, list[str]]:
    """Deal the perturbations to sides as the challenge did; combinations are trained on."""
    genome = draw_genome(preset.genes, preset.programs, seed)
    singles, combined = draw_perturbations(preset, genome, seed)
    dealt = [str(name) for name in generator(seed, "listed").permutation(singles)]
    stop = round(LISTED[0] * len(dealt))
    last = stop + round(LISTED[1] * len(dealt))
    return {
        "train": sorted(dealt[:stop]) + ["+".join(pair) for pair in combined],
        "validation": sorted(dealt[stop:last]),
        "test": sorted(dealt[last:]),
    }


# --- names of simulated screens -----------------------------------------------------------------


def simulation_options() -> dict[str, Parameter]:
    """Return the options that may follow the question mark of ``sim:small?seed=3``, by name."""
    kinds = {"seed": int, **dict.fromkeys(Changes.__optional_keys__, int), "shared": float}
    return {
        name: Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind)
        for name, kind in sorted(kinds.items())
    }


def parse_sim(name: str) -> dict[str, Any]:
    """Return the arguments for `simulate`: preset, and those options that are given.

    Raises
    ------
    UnknownNameError
        No such preset or option.
    DeclarationError
        A name that is not of this form, or a value that no screen can have.
    """
    try:
        simulated = parse_simulated(name)
    except ValueError as error:
        raise DeclarationError(str(error)) from error
    if simulated is None:
        raise DeclarationError(
            f"{name!r} does not name a simulated screen. Expected a name such as 'sim:tiny?seed=1'."
        )
    known, given = simulation_options(), dict(simulated.options)
    for option, value in given.items():
        if option not in known:
            raise UnknownNameError("simulation option", option, tuple(known))
        wanted = known[option].annotation
        if not isinstance(value, int if wanted is int else (int, float)):
            kind = "a whole number" if wanted is int else "a number"
            raise DeclarationError(f"{name}: {option} is {value!r}, expected {kind}.")
    seed = given.get("seed", 0)
    changes = {option: value for option, value in given.items() if option != "seed"}
    try:
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}, expected 0 or more.")
        preset_with(simulated.preset, **changes)  # type: ignore[arg-type]  # checked above
    except ValueError as error:
        raise DeclarationError(f"{name}: {error}") from error
    return {"preset": simulated.preset, **given}


def simulated_store(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Return a simulated screen by its ``sim:`` name, from the cache or made there now.

    Processes that ask for the same screen at once wait for the one that makes it. What a killed
    process left half-made is removed.

    Parameters
    ----------
    folder
        Where screens are kept; by default among the stores in the cache.
    progress
        As for `simulate`; not called where the screen is there already.
    """
    parsed = parse_sim(name)
    cache = Path(folder) if folder is not None else paths.cache_folder() / "stores"
    cache.mkdir(parents=True, exist_ok=True)
    given = sorted(f"{key}={value}" for key, value in parsed.items() if key != "preset")
    chosen = [text for text in given if text != "seed=0"]
    path = cache / ("-".join(["sim", parsed["preset"], *chosen, f"v{VERSION}"]) + ".zarr")
    with exclusive_lock(cache / f".{path.name}.lock"):
        if not path.exists():
            for leftover in cache.glob(f".{path.name}.*.partial"):
                paths.remove(str(leftover))
            simulate(parsed.pop("preset"), path, progress=progress, **parsed)
    return open_store(path)
