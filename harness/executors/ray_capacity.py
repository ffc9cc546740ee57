"""What the nodes of a Ray cluster have place for, and which calls wait for a node that is gone.

Ray leaves a call that no node can run pending for ever. What no node could run is refused before
the first call; but nodes also go in the midst of a run, and clusters replace them. So a call whose
needs no living node has in total is waited with for a declared time, and then given up.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from harness.executors.ray_workers import nodes, ray_resources
from harness.executors.resources import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.executors.resources import Resources

    Kind = tuple[tuple[str, float], ...]

LOOK_SECONDS = 2.0
"""How often, at most, Ray is asked which nodes there are; not while all calls are younger."""

MORE_MEMORY = 2
"""What a call killed for its memory gets on its second attempt, as a multiple."""

log = logging.getLogger("harness.cluster")


class Capacity:
    """Which needs no living node has in total, since when, and which of them are given up.

    Parameters
    ----------
    seconds
        How long such needs are waited with; None for ever, on a cluster that starts nodes.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._since: dict[Kind, float] = {}
        self._reasons: dict[Kind, str] = {}
        self._looked = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to `look`."""
        return self.seconds is not None and time.monotonic() - self._looked >= LOOK_SECONDS

    @property
    def any_lacking(self) -> bool:
        """Whether there were needs that no node had when last looked for."""
        return bool(self._since)

    def look(self, waiting: Iterable[Resources]) -> None:
        """Learn what there is now for the needs of calls that are not over.

        Needs that were given up are looked for further, so that calls go on once there is a node.
        """
        self._looked = now = time.monotonic()
        kinds = {_kind(need) for need in waiting} | self._reasons.keys()
        found = [node["Resources"] for node in nodes()]
        lacking = {kind for kind in kinds if not any(has(node, dict(kind)) for node in found)}
        for kind in kinds - lacking:
            if self._since.pop(kind, None) is not None:
                asked = _amounts(dict(kind), missing=False)
                log.warning("A node of the Ray cluster has %s again.", asked)
        self._since = {kind: since for kind, since in self._since.items() if kind in lacking}
        for kind in lacking - self._since.keys():
            self._since[kind] = now
            log.warning(
                "No node of the Ray cluster has %s any more; calls that need it wait for one, for "
                "%g s (wait_for_node_seconds).",
                _amounts(dict(kind), missing=False),
                self.seconds,
            )
        self._reasons = {
            kind: self._reasons.get(kind)
            or f"{what_there_is(dict(kind), found)} Waited {self.seconds:g} s for one "
            "(wait_for_node_seconds). Run the same job again once there is such a node: it does "
            "what is missing."
            for kind, since in self._since.items()
            if self.seconds is not None and now - since >= self.seconds
        }

    def given_up(self, need: Resources) -> str:
        """Return why a call with such needs is given up; nothing where it is not."""
        return self._reasons.get(_kind(need), "") if self._reasons else ""


def with_more_memory(needs: Resources) -> Resources:
    """Return the needs of a call that was killed for its memory, with twice as much of it.

    One that declared nothing asks for half of the largest node: it then has few neighbours. No more
    is asked for than a node has that can give the rest.
    """
    rest = {name: n for name, n in ray_resources(needs).items() if name != "memory"}
    found = [node["Resources"] for node in nodes()]
    fit = [node.get("memory", 0.0) for node in found if has(node, rest)]
    most = int(max(fit, default=0.0))
    asked = needs.memory_bytes * MORE_MEMORY if needs.memory_bytes else most // MORE_MEMORY
    return needs.with_memory(max(min(asked, most), needs.memory_bytes or 0))


def has(node: dict[str, float], asked: dict[str, float]) -> bool:
    """Whether a node has, in total, what is asked for."""
    return all(node.get(name, 0) >= number for name, number in asked.items())


def capacity_error(asked: dict[str, float], found: list[dict[str, float]]) -> str:
    """Say what was asked for, what there is, and what to do."""
    return (
        f"{what_there_is(asked, found)} Ask for less under `resources:` in the job, or run it "
        "where there is such a node; the file of a cluster that starts nodes as they are needed "
        "says `autoscaling: true`."
    )


def what_there_is(asked: dict[str, float], found: list[dict[str, float]]) -> str:
    """Say what was asked for, and what there is: nodes that are alike once, the largest first."""
    largest_first = sorted(
        found,
        key=lambda node: tuple(node.get(name, 0) for name in ("GPU", "CPU", "memory")),
        reverse=True,
    )
    kinds = Counter(_amounts(node) for node in largest_first)
    listed = "; ".join(f"{number} with {amounts}" for amounts, number in kinds.items())
    several = "s" * (len(found) != 1)
    return (
        f"No node of the Ray cluster has {_amounts(asked, missing=False)}, which one call of a "
        f"trial needs. Found {len(found)} node{several}, the largest first: {listed or 'none'}."
    )


def _kind(need: Resources) -> Kind:
    return tuple(sorted(ray_resources(need).items()))


def _amounts(resources: dict[str, float], *, missing: bool = True) -> str:
    """Write ``16 CPUs, 1 GPU, 60.0 GiB``; without `missing`, only what there is some of."""
    amounts = [
        f"{number:g} {name}{'' if number == 1 else 's'}"
        for name in ("CPU", "GPU")
        if (number := resources.get(name, 0)) or missing
    ]
    if memory := resources.get("memory", 0):
        amounts.append(f"{memory / 2**30:.1f} GiB")
    amounts += [
        f"{number:g} {name}"
        for name, number in resources.items()
        if name not in BUILT_IN and not name.startswith("node:")  # Ray's name of a node's address
    ]
    return ", ".join(amounts)
