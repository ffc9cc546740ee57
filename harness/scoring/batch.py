"""Score files of predictions against one truth: no job, no trials, what `harness score` does.

The truth is read once. A prediction that cannot be scored is reported and the others go on; what
is written is written whole, and only for predictions that were scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.errors import DataError, HarnessError
from harness.metrics import suite_named
from harness.scoring.anchors import SUITE
from harness.scoring.options import ScoringOptions
from harness.scoring.scorer import Scorer, chosen_suites, prediction_name
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from harness.scoring.scores import Scores
    from harness.scoring.truth import PreparedTruth


@dataclass(slots=True)
class Batch:
    """What came of scoring several predictions.

    Attributes
    ----------
    scores
        By prediction, in the order given.
    failures
        Why a prediction could not be scored, by its path.
    frame
        All scores, with the column ``prediction``.
    anchored, not_anchored
        The 2026 suite's scores between its anchors, predictions as rows; or why there are none.
    ends
        By suite, the anchors themselves, or why there are none.
    """

    scores: dict[str, Scores] = field(default_factory=dict)
    failures: dict[str, HarnessError] = field(default_factory=dict)
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    anchored: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_anchored: str = ""
    ends: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What to score by, and how to read the files.

    Attributes
    ----------
    suites, metrics
        Suites, and instead of their own metrics these.
    baseline
        A prediction that combined scores are measured from; it is scored too.
    options
        How files are read.
    reference
        A folder or URL where the truth's part of scores is kept, and looked for.
    centre
        A table of reference profiles that effects are centred on; see `harness.scoring.centre`.
    de_truth, de_predictions
        Tables of differential expression to take in place of the rank test; of predictions, by path
        as given, those that have one.
    """

    suites: Sequence[str] = ("vcc2025",)
    metrics: Sequence[str] | None = None
    baseline: str | None = None
    options: ScoringOptions = field(default_factory=ScoringOptions)
    reference: str | None = None
    centre: str | None = None
    de_truth: str | None = None
    de_predictions: Mapping[str, str] = field(default_factory=dict)

    @property
    def baseline_name(self) -> str | None:
        """What the baseline is called."""
        return None if self.baseline is None else prediction_name(self.baseline)


def score_files(
    truth: str,
    predictions: Sequence[str],
    out: str,
    request: Request,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Batch:
    """Score predictions, and write ``OUT/scores.parquet`` and each one's CSVs.

    Parameters
    ----------
    truth, predictions
        Paths of .h5ad or .zarr files, or stores.
    out
        The folder to write to.
    report
        Called with the number of predictions done, and of all.

    Raises
    ------
    DataError
        The truth cannot be read, or two predictions have one name.
    """
    chosen = chosen_suites(list(request.suites), request.metrics)  # unknown names before reading
    request = replace(request, suites=[suite.name for suite, _ in chosen])
    files = _named([*predictions, *([request.baseline] if request.baseline else [])])
    if not files:
        raise DataError("No prediction is named. Expected one file or several. Name them.")
    paths.check_writable(out)
    scorer = Scorer(
        truth,
        request.suites,
        request.options,
        metrics=request.metrics,
        reference=request.reference,
        de_table=request.de_truth,
        centre=request.centre,
    )
    prepared = scorer.truth(request.options.scale)
    batch = Batch()
    first = sorted(files, key=lambda name: name != request.baseline_name)
    for done, name in enumerate(first):
        report(done, len(files))
        path, earlier = files[name], paths.join(out, name)
        try:
            batch.scores[name] = scorer.score(path, de_table=request.de_predictions.get(path))
        except (HarnessError, OSError) as error:
            failure = error if isinstance(error, HarnessError) else DataError(f"{path}: {error}")
            if name == request.baseline_name:  # without it the whole batch has no meaning
                raise failure from error
            if paths.exists(earlier):
                failure = DataError(
                    f"{failure} What is in {earlier} was scored by an earlier call: do not take it "
                    "for this one's."
                )
            batch.failures[path] = failure
        else:
            writing(out, partial(batch.scores[name].write, out))
    report(len(files), len(files))
    batch.scores = {name: batch.scores[name] for name in files if name in batch.scores}
    writing(out, lambda: _write_all(prepared, batch, out, request))
    return batch


def _write_all(truth: PreparedTruth, batch: Batch, out: str, request: Request) -> None:
    if not batch.scores:
        return
    if SUITE in request.suites and request.metrics is None:
        try:
            batch.anchored = anchored_scores(truth, batch.scores, out)
        except DataError as error:  # plain scores stand by themselves
            batch.not_anchored = str(error)
        batch.ends = {SUITE: batch.not_anchored or truth.ends[0]}
    frames = [scores.frame.assign(prediction=name) for name, scores in batch.scores.items()]
    batch.frame = pd.concat(frames, ignore_index=True)
    batch.frame.insert(0, "prediction", batch.frame.pop("prediction"))
    buffer = BytesIO()
    batch.frame.to_parquet(buffer, index=False)
    paths.write_atomic(paths.join(out, "scores.parquet"), buffer.getvalue())


def writing(out: str, write: Callable[[], object]) -> None:
    """Write results; a full disk or a folder that cannot be written to is named."""
    try:
        write()
    except OSError as error:
        if isinstance(error, HarnessError):
            raise
        raise DataError(
            f"{out}: the results cannot be written ({error}). Name a folder that can be written "
            "to, on a disk with room."
        ) from error


def _named(files: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in files:
        name = prediction_name(file)
        earlier = named.setdefault(name, file)
        remote = paths.is_remote(earlier) or paths.is_remote(file)
        if earlier != file and (remote or Path(earlier).resolve() != Path(file).resolve()):
            raise DataError(
                f"{earlier} and {file} would both be written as {name!r}. Rename one: a "
                "prediction is called by its file's name."
            )
    return named


NOTE = (
    "0 is the mean response, 1 a replicate (halves of the truth against each other, five seeded "
    "splits); a context's score is the mean of its members, `score` the mean over contexts."
)


def anchored_scores(truth: PreparedTruth, scores: Mapping[str, Scores], out: str) -> pd.DataFrame:
    """Place predictions between the truth's anchors, and write ``<prediction>/vcc2026/score.csv``.

    Parameters
    ----------
    truth
        What the predictions were scored against, as counts.
    scores
        By prediction; every member of the suite.
    out
        The folder of results; gets ``anchors.csv`` too, with the value of every split.

    Returns
    -------
    Rows of predictions, best first: score, then each member's mean over contexts.

    Raises
    ------
    DataError
        The truth gives no anchors, or a member was not scored.
    """
    made = truth.anchors(suite_named(SUITE).metrics)
    ends = made.splits.merge(
        made.baseline.rename(columns={"value": "baseline"}), on=["context", "metric"], how="left"
    )
    paths.write_atomic(paths.join(out, "anchors.csv"), ends.to_csv(index=False))
    rows = {}
    for name, found in scores.items():
        placed = made.score(found.by_context(SUITE))
        text = placed.members.to_csv(index=False)
        paths.write_atomic(paths.join(out, name, SUITE, "score.csv"), text)
        members = placed.members.groupby("metric", sort=False)["scaled"].mean()
        rows[name] = {"score": placed.score, **members}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("prediction")
    return table.sort_values("score", ascending=False).reset_index()


def as_markdown(table: pd.DataFrame) -> str:
    """Return the anchored scores as Markdown, three decimals."""
    lines = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    for row in table.itertuples(index=False):
        cells = [row[0], *(f"{value:.3f}" for value in row[1:])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", NOTE, ""])
