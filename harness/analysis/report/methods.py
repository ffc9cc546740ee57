"""What a report says in words: methods, provenance and failures, all from the runs' own files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from harness.analysis.statistics import DEFAULT, Bootstrap
from harness.analysis.trials import read_run
from harness.data import read_card
from harness.errors import HarnessError
from harness.metrics import registered_suites as known_suites

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from harness.analysis.results import Results

SPLITS = {
    "unseen-perturbation": "perturbations were dealt to folds, and those of a fold held out in "
    "every context",
    "few-shot-context": "one context per fold was held out, of whose perturbations a share was "
    "shown",
    "zero-shot-context": "one context per fold was held out, of which only controls were shown",
    "unseen-combination": "combinations were dealt to folds and held out; all single perturbations "
    "were shown",
    "listed": "pairs were assigned by name",
}


class ModelSummary(Protocol):
    """A registered model, as far as methods and citations speak of it."""

    @property
    def ceiling(self) -> bool:
        """Whether it is fitted to one half of the truth."""

    @property
    def description(self) -> str:
        """Its docstring."""


def methods(
    results: Results,
    suites: Sequence[str],
    models: Mapping[str, ModelSummary],
    bootstrap: Bootstrap = DEFAULT,
) -> list[str]:
    """Return the methods paragraph, a sentence or two per entry, of what ran."""
    done = results.trials[results.trials["state"] == "done"]
    said = [*_data(done), *_fits(done, models)]
    for name in suites:
        suite = known_suites().get(name)
        if suite is not None:
            said.append(
                f"Predictions were scored by the suite {name}, which reproduces {suite.oracle}"
                f"{f' ({suite.options})' if suite.options else ''}."
            )
    said.append(
        f"Scores were averaged over seeds and folds, then over held-out pairs. Intervals hold "
        f"{bootstrap.level:.0%} of {bootstrap.draws:,} bootstrap resamples of perturbations within "
        "each context and, where there are several, of seeds; differences and ranks were resampled "
        "together. Paired differences were tested by permutation of signs and by Wilcoxon's "
        "signed-rank test, with Holm's adjustment over a table."
    )
    versions = sorted({str(v) for v in done.get("harness", []) if isinstance(v, str)})
    said.append(f"All of it was run with {' '.join(['virtual-cell-harness', *versions])}.")
    return said


def _data(done: pd.DataFrame) -> Iterator[str]:
    names = ["dataset", "dataset_version", "split", "controls"]
    present = [name for name in names if name in done]
    for row in done[present].drop_duplicates().to_dict("records"):
        version = row.get("dataset_version")
        label = f"{row['dataset']}{f' (card version {version})' if version else ''}"
        split = str(row["split"])
        kind = next((text for name, text in SPLITS.items() if split.startswith(name)), "")
        held = f"On {label}, {kind or 'pairs were held out'} (split {split})."
        if row.get("controls") == "divided":
            held += (
                " Control cells were divided: models saw one half, and the truth was measured "
                "against the other."
            )
        yield held


def _fits(done: pd.DataFrame, known: Mapping[str, ModelSummary]) -> Iterator[str]:
    models = [str(name) for name in dict.fromkeys(done["model"])]
    seeds, folds = (sorted(done[name].dropna().unique().tolist()) for name in ("seed", "fold"))
    trained = [name for name in models if name not in known or not known[name].ceiling]
    ceilings = [name for name in models if name in known and known[name].ceiling]
    yield (
        f"{len(trained)} models ({', '.join(trained)}) were fitted in {len(done):,} trials: seeds "
        f"{_listed(seeds)}, folds {_listed(folds)}."
    )
    if ceilings:
        yield f"As a ceiling, {', '.join(ceilings)} predicts one half of the truth by the other."
    steps = sorted({str(step) for step in done.get("cells", []) if isinstance(step, str)})
    if steps:
        yield f"Predicted profiles were given cells by {' or '.join(steps)}."


def citations(
    results: Results, suites: Sequence[str], models: Mapping[str, ModelSummary]
) -> list[tuple[str, str]]:
    """Return what to cite: name and text, of datasets, models and reference scorers."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(str(name) for name in results.trials["dataset"]):
        try:
            found[name] = read_card(name).source.cite
        except HarnessError:
            continue  # a store or a simulated screen has no card of its own
    for name in dict.fromkeys(str(name) for name in results.trials["model"]):
        if name in models:
            found[name] = _paper(models[name].description)
    for name in suites:
        if name in known_suites():
            found[f"suite {name}"] = known_suites()[name].oracle
    return [(name, " ".join(text.split())) for name, text in found.items() if text]


def _paper(docstring: str) -> str:
    """Return the first sentence that names a year: where a model is from."""
    sentences = re.split(r"(?<=[.;])\s+|\n\n", docstring)
    return next((text.strip() for text in sentences if re.search(r"\b(19|20)\d\d\b", text)), "")


def provenance(results: Results) -> list[dict[str, Any]]:
    """Return of each run: folder, commit, versions, machine, start, trials by state."""
    rows = []
    for run in results.runs:
        said = read_run(run)
        states = results.trials.loc[results.trials["run"] == run, "state"].value_counts().to_dict()
        machine = said.get("machine", "")
        if isinstance(machine, dict):
            machine = ", ".join(f"{name} {value}" for name, value in machine.items())
        rows.append(
            {
                "run": run,
                "started": said.get("started", ""),
                "commit": said.get("commit", ""),
                "harness": said.get("harness", ""),
                "python": said.get("python", ""),
                "machine": str(machine),
                "packages": said.get("packages", said.get("versions", {})),
                "trials": ", ".join(f"{n} {state}" for state, n in states.items()),
            }
        )
    return rows


def failures(results: Results) -> list[dict[str, str]]:
    """Return each trial that is not done: what it is, its state, and what went wrong."""
    open_ones = results.trials[results.trials["state"] != "done"]
    names = ["trial", "model", "dataset", "split", "fold", "seed", "state", "cause", "error"]
    present = [name for name in names if name in open_ones]
    rows = open_ones[present].fillna("").astype(str)
    return [dict(zip(present, row, strict=True)) for row in rows.itertuples(index=False)]


def _listed(values: Sequence[Any]) -> str:
    whole = [int(value) for value in values]
    if len(whole) > 2 and whole == list(range(whole[0], whole[-1] + 1)):
        return f"{whole[0]} to {whole[-1]}"
    return ", ".join(str(value) for value in whole)
