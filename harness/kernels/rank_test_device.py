"""U, tie terms and sums of a block of genes by one sort of packed keys, with array functions alone.

What `rank_test_loops` does with compiled loops, for arrays of NumPy or CuPy, whichever made them: a
device has a fast sort of integers and no use for a loop. Every value above zero becomes one key of
64 bits,

    column and context · 32 bits of the value · label

(floats above zero sort as their bits do; values of float64 are replaced by their rank). One sort
puts all columns in order at once. Equal keys are then counted together, so that what follows runs
over distinct keys: many ties make it cheaper. The label of a control is 0, so the controls tied
with a value are the first key of its run. Zeros follow from the sizes and are never sorted.

Everything that decides U and ties is an integer below 2^53: they equal the loops' to the bit, on
any device. Sums are of float64 in another order, on a device in no fixed one: equal to about 1e-13.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels.backend import namespace_of

if TYPE_CHECKING:
    from harness.kernels.groups import Groups

VALUE_BITS = 32

BYTES_PER_KEY = 100
"""Most memory that a value above zero takes on its way (measured with NumPy: 66 of float32, 81 of
float64; a device's sort and scans take some more)."""

BYTES_PER_SLOT = 96
"""The same of one group in one column."""


@dataclass(frozen=True)
class Layout:
    """Groups of cells, as keys name them; arrays on the device where the values will be.

    Parameters
    ----------
    own
        (n_cells,) uint64: context and label of each cell at their places in the key.
    inside
        (n_cells,) bool: cells that are in a group; None where all are.
    part, label
        (n_groups,) int64: the context of each group, and its label there.
    sizes, n_controls
        (n_groups,) float64: cells of each group and of its control.
    is_control
        (n_groups,) bool.
    n_parts, n_labels
        How many contexts there are; the most labels of one.
    """

    own: Any
    inside: Any
    part: Any
    label: Any
    sizes: Any
    n_controls: Any
    is_control: Any
    n_parts: int
    n_labels: int

    @classmethod
    def of(cls, groups: Groups, xp: Any = np) -> Layout:
        """Return the layout of groups, for arrays of `xp`."""
        segments = groups.segments
        part, label = np.empty((2, groups.n_groups), np.int64)
        for number, members in enumerate(segments.members):
            part[members], label[members] = number, np.arange(len(members))
        n_labels = max(len(members) for members in segments.members)
        bits = _label_bits(n_labels)
        if len(segments.members) > 1 << (64 - VALUE_BITS - bits):
            raise ValueError(
                f"{groups.n_groups} groups in {len(segments.members)} contexts are "
                "more than a key of 64 bits can name."
            )
        inside = segments.segment >= 0
        context = np.where(inside, segments.segment, 0).astype(np.uint64)
        own = (context << np.uint64(VALUE_BITS + bits)) | segments.label.astype(np.uint64)
        sizes = groups.sizes().astype(np.float64)
        return cls(
            own=xp.asarray(own),
            inside=None if inside.all() else xp.asarray(inside),
            part=xp.asarray(part),
            label=xp.asarray(label),
            sizes=xp.asarray(sizes),
            n_controls=xp.asarray(sizes[groups.reference]),
            is_control=xp.asarray(groups.is_control),
            n_parts=len(segments.members),
            n_labels=n_labels,
        )

    @cached_property
    def label_bits(self) -> int:
        """How many bits of a key the label takes."""
        return _label_bits(self.n_labels)

    @property
    def most_columns(self) -> int:
        """How many columns the keys of one sort can tell apart."""
        return (1 << (64 - VALUE_BITS - self.label_bits)) // self.n_parts

    @property
    def bytes_per_column(self) -> int:
        """Most memory that a column takes, were all its values above zero."""
        slots = self.n_parts * self.n_labels
        return BYTES_PER_KEY * len(self.own) + BYTES_PER_SLOT * slots


def _label_bits(n_labels: int) -> int:
    return max(1, (n_labels - 1).bit_length())


@dataclass(frozen=True, slots=True)
class Keys:
    """The values above zero of some columns.

    Parameters
    ----------
    keys
        (n,) uint64, in any order.
    table
        The distinct values, where keys hold ranks; None where they hold the bits of float32.
    """

    keys: Any
    table: Any


def dense_keys(block: Any, layout: Layout) -> Keys:
    """Pack a dense block: (n_cells, width) of float32 or float64, none negative or NaN."""
    rows, columns = namespace_of(block).nonzero(block)
    return coordinate_keys(block[rows, columns], rows, columns, layout)


def compressed_keys(parts: tuple[Any, Any, Any], layout: Layout, *, by_rows: bool) -> Keys:
    """Pack a sparse block.

    Parameters
    ----------
    parts
        Values; their columns (rows, where stored by columns); where each row's (column's) begin
        and the last one's end.
    by_rows
        Whether the block is stored by rows.
    """
    values, minor, starts = parts
    xp = namespace_of(values)
    major = xp.searchsorted(starts[1:], xp.arange(values.size), side="right")
    rows, columns = (major, minor) if by_rows else (minor, major)
    return coordinate_keys(values, rows, columns, layout)


def coordinate_keys(values: Any, rows: Any, columns: Any, layout: Layout) -> Keys:
    """Pack values with their rows and columns: each (n,); zeros are dropped."""
    kept = values > 0
    if layout.inside is not None:
        kept &= layout.inside[rows]
    if not bool(kept.all()):
        values, rows, columns = values[kept], rows[kept], columns[kept]
    del kept
    shift = VALUE_BITS + layout.label_bits
    keys = layout.own[rows]
    keys += (columns.astype(np.uint64) * np.uint64(layout.n_parts)) << np.uint64(shift)
    bits, table = _ordered(values)
    keys += bits.astype(np.uint64) << np.uint64(layout.label_bits)
    return Keys(keys, table)


def _ordered(values: Any) -> tuple[Any, Any]:
    """Return numbers of 32 bits that are ordered as the values are; and a table of what they mean.

    float32 above zero is ordered as its bits are, and needs no table.
    """
    xp = namespace_of(values)
    if values.dtype == np.float32:
        return xp.ascontiguousarray(values).view(np.uint32), None
    if not values.size:
        return xp.zeros(0, np.uint32), values
    table, ranks = xp.unique(values, return_inverse=True)
    return ranks.reshape(-1), table


def key_statistics(packed: Keys, width: int, layout: Layout) -> tuple[Any, Any, Any]:
    """Return sums, U and ties of every group: each (n_groups, width) float64 on the device.

    Parameters
    ----------
    packed
        The values above zero. Its keys are sorted in place.
    width
        How many columns they are of.
    """
    xp = namespace_of(packed.keys)
    seen, twice, ties, sums = _tables(packed, width, layout)
    part, label = layout.part, layout.label
    controls = seen[:, :, 0]
    # Controls were counted from the first column on; those of the columns before do not lie below.
    earlier = (controls.ravel().cumsum() - controls.ravel()).reshape(controls.shape)
    found = seen[:, part, label]
    zeros, control_zeros = layout.sizes - found, layout.n_controls - controls[:, part]
    u = 0.5 * (twice[:, part, label] - 2 * earlier[:, part] * found)
    u += (found + 0.5 * zeros) * control_zeros
    both = zeros + control_zeros
    t = ties[:, part, 0] + ties[:, part, label] + both * (both * both - 1)
    u = xp.where(layout.is_control, np.nan, u)
    t = xp.where(layout.is_control, 0.0, t)
    return sums[:, part, label].T, u.T, t.T


def _tables(packed: Keys, width: int, layout: Layout) -> tuple[Any, Any, Any, Any]:
    """Sort, and add up for every column, context and label what its keys say.

    Each result is (width, n_parts, n_labels) float64: values above zero; twice the controls below
    plus those tied, counted from the first column on; t³ - t over tied values, without what the
    controls have among themselves; and sums.
    """
    xp = namespace_of(packed.keys)
    shape = (width, layout.n_parts, layout.n_labels)
    if not packed.keys.size:
        return (xp.zeros(shape), xp.zeros(shape), xp.zeros(shape), xp.zeros(shape))
    keys, count = _distinct(packed.keys)
    bits = np.uint64(layout.label_bits)
    label = keys & ((np.uint64(1) << bits) - np.uint64(1))
    slot = (keys >> np.uint64(VALUE_BITS + layout.label_bits)) * np.uint64(layout.n_labels) + label
    slot = slot.astype(np.int64)

    def total(weights: Any) -> Any:
        weights = weights.astype(np.float64)
        return xp.bincount(slot, weights, minlength=slot_count).reshape(shape)

    slot_count = int(np.prod(shape))
    is_control = label == 0
    del label
    keys >>= bits
    sums = total(_values(keys, packed.table) * count)
    controls = xp.where(is_control, count, 0)
    tied = _first_of_run(keys, controls)
    del keys
    below = xp.cumsum(controls)
    twice = total((2 * below - tied) * count)
    del below
    tied[is_control] = 0
    ties = total(_cubes(count + tied) - _cubes(tied))
    return total(count), twice, ties, sums


def _distinct(keys: Any) -> tuple[Any, Any]:
    """Sort keys in place; return the distinct ones, and how often each occurs."""
    xp = namespace_of(keys)
    keys.sort()
    starts = xp.flatnonzero(_changes(keys))
    count = xp.empty_like(starts)
    count[:-1] = starts[1:] - starts[:-1]
    count[-1] = keys.size - starts[-1]
    return keys[starts], count


def _changes(ordered: Any) -> Any:
    """Return where an array differs from its element before, the first included: (n,) bool."""
    changes = namespace_of(ordered).ones(ordered.size, bool)
    changes[1:] = ordered[1:] != ordered[:-1]
    return changes


def _first_of_run(ordered: Any, numbers: Any) -> Any:
    """Return for each element the number of the first element that equals it."""
    xp = namespace_of(ordered)
    changes = _changes(ordered)
    firsts = numbers[changes]
    return firsts[xp.cumsum(changes) - 1]


def _values(bits: Any, table: Any) -> Any:
    """Return the float64 values that keys without labels stand for."""
    low = bits.astype(np.uint32)  # drops the column
    return low.view(np.float32).astype(np.float64) if table is None else table[low]


def _cubes(number: Any) -> Any:
    return number * (number * number - 1)
