"""Which group each cell is in, and which group each group is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, slots=True)
class Segments:
    """Groups by the control that they share: one segment each, the control its first member.

    Parameters
    ----------
    segment, label
        (n_cells,) int32: the segment of each cell, -1 for none; its place there, 0 for controls.
    members
        For each segment the groups in it, in order of their labels.
    n_cells
        (n_segments,) cells of each segment.
    """

    segment: np.ndarray
    label: np.ndarray
    members: tuple[np.ndarray, ...]
    n_cells: np.ndarray


@dataclass(frozen=True)
class Groups:
    """Cells in groups, each with a reference group; the controls of a context are their own.

    Parameters
    ----------
    codes
        (n_cells,) int32: the group of each cell; -1 for a cell in no group.
    reference
        (n_groups,) int32: the group that each group is tested against. A group that refers to
        itself is a control; every reference is one.
    """

    codes: np.ndarray
    reference: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", np.ascontiguousarray(self.codes, dtype=np.int32))
        object.__setattr__(self, "reference", np.ascontiguousarray(self.reference, dtype=np.int32))
        if not np.array_equal(self.reference[self.reference], self.reference):
            raise ValueError("reference must point at groups that refer to themselves.")
        if self.codes.size and not -1 <= self.codes.min() <= self.codes.max() < self.n_groups:
            raise ValueError(f"codes must lie in [-1, {self.n_groups}).")

    @property
    def n_cells(self) -> int:
        """The number of cells, those in no group included."""
        return len(self.codes)

    @property
    def n_groups(self) -> int:
        """The number of groups, controls included."""
        return len(self.reference)

    @property
    def is_control(self) -> np.ndarray:
        """(n_groups,) bool: which groups refer to themselves."""
        own: np.ndarray = self.reference == np.arange(self.n_groups)
        return own

    def sizes(self) -> np.ndarray:
        """Return the number of cells in each group: (n_groups,) int64."""
        return np.bincount(self.codes[self.codes >= 0], minlength=self.n_groups)

    @cached_property
    def segments(self) -> Segments:
        """The groups by the control that they share."""
        segment, label = (np.zeros(self.n_groups + 1, np.int32) for _ in range(2))
        members = []
        for number, control in enumerate(np.flatnonzero(self.is_control)):
            found = np.flatnonzero(self.reference == control)
            ordered = np.concatenate([[control], found[found != control]])
            segment[ordered], label[ordered] = number, np.arange(len(ordered))
            members.append(ordered)
        segment[-1] = -1  # where code -1 looks
        cells = segment[self.codes]
        counted = np.bincount(cells[cells >= 0], minlength=len(members))
        return Segments(cells, label[self.codes], tuple(members), counted)
