"""The anchored score of the 2026 suite for several predictions of one truth, as a table.

Anchors are made of the truth alone and once, whatever the number of predictions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.errors import DataError
from harness.metrics import suite_named
from harness.scoring.anchors import SUITE
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.scoring.scores import Scores
    from harness.scoring.truth import PreparedTruth

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


def try_anchored(
    truth: PreparedTruth, scores: Mapping[str, Scores], out: str
) -> tuple[pd.DataFrame, str]:
    """Return the anchored scores, or an empty table and why there are none.

    Plain scores stand by themselves: a truth too small for anchors costs the scaled score alone.
    """
    try:
        return anchored_scores(truth, scores, out), ""
    except DataError as error:
        return pd.DataFrame(), str(error)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the anchored scores as Markdown, three decimals."""
    lines = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    for row in table.itertuples(index=False):
        cells = [row[0], *(f"{value:.3f}" for value in row[1:])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", NOTE, ""])
