"""The compiled loops beneath the rank test; `rank_test` calls them.

A value above zero becomes one key: the bits of the float above, the cell's label below. Floats
above zero sort as their bits do, so one sort of integers puts a gene's values in order, and ties in
order of label. The label of a control is 0: among equal values the controls come first. One scan
then needs no look ahead: when it meets a cell of group g it has counted all controls that lie below
or are tied, and how many are tied.

Zeros are never collected: how many there are follows from the sizes. Each context is a segment of
its own, since its cells are compared with its own controls only.

Values of float64 leave no room for a label. Their keys end in the place where the value is found,
and the scan looks up cells and their groups: once sorted, a gene serves any number of groupings.
"""

# Compiled loops take flat arrays, as many as they need, and numba infers their types.
# ruff: noqa: PLR0913
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np

from harness.kernels.jit import compiled

SHIFT = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)
MAGNITUDE = np.uint32(0x7FFFFFFF)
"""All bits but the sign: zero for both zeros."""


@compiled
def collect_dense(bits, first, last, segment, label, keys, places):
    """Pack the values above zero of columns `first` to `last` of a dense block.

    Parameters
    ----------
    bits
        (n_cells, width) uint32 view of the float32 values, which are not negative.
    segment, label
        (n_cells,) the context of each cell, -1 for none, and its label there.
    keys
        (size,) uint64, filled.
    places
        (n_segments, n_columns) int64: where in `keys` the next value of a context and column goes.
    """
    for i in range(bits.shape[0]):
        if segment[i] < 0:
            continue
        own, place = np.uint64(label[i]), places[segment[i]]
        for j in range(first, last):
            value = bits[i, j]
            at = place[j - first]
            # Written always and kept only if above zero: a branch here is a coin toss.
            keys[at] = (np.uint64(value) << SHIFT) | own
            place[j - first] = at + (value & MAGNITUDE != 0)


@compiled
def collect_rows(bits, indices, cursor, indptr, first, last, segment, label, keys, places):
    """Do as `collect_dense` for a matrix stored by rows, and move each row's cursor to `last`."""
    for i in range(cursor.size):
        k, stop = cursor[i], indptr[i + 1]
        if segment[i] < 0:
            while k < stop and indices[k] < last:
                k += 1
            cursor[i] = k
            continue
        own, place = np.uint64(label[i]), places[segment[i]]
        while k < stop and indices[k] < last:
            column = indices[k] - first
            at = place[column]
            keys[at] = (np.uint64(bits[k]) << SHIFT) | own
            place[column] = at + (bits[k] & MAGNITUDE != 0)
            k += 1
        cursor[i] = k


@compiled
def collect_columns(bits, indices, indptr, first, last, segment, label, keys, places):
    """Do as `collect_dense` for a matrix stored by columns."""
    alone = places.shape[0] == 1
    for j in range(first, last):
        at = places[0, j - first]
        for k in range(indptr[j], indptr[j + 1]):
            i = indices[k]
            part = segment[i]
            key = (np.uint64(bits[k]) << SHIFT) | np.uint64(label[i])
            if alone:  # the place stays in a register
                keys[at] = key
                at += (bits[k] & MAGNITUDE != 0) & (part == 0)
            elif part >= 0:
                keys[places[part, j - first]] = key
                places[part, j - first] += bits[k] & MAGNITUDE != 0
        if alone:
            places[0, j - first] = at


@compiled
def _span(keys):
    least, most = keys[0], keys[0]
    for i in range(keys.size):
        least = min(least, keys[i])
        most = max(most, keys[i])
    return least >> SHIFT, most >> SHIFT


@compiled
def _shorten(keys, least, label_bits, short):
    for i in range(keys.size):
        value = ((keys[i] >> SHIFT) - least) << label_bits
        short[i] = np.uint32(value | (keys[i] & LOW))


@compiled
def shorten(keys, short, lengths, bases, label_bits, lowest):
    """Fit each sequence of keys into 32 bits where its values span few enough.

    Half as wide, keys sort twice as fast.

    Parameters
    ----------
    keys, short
        (n_columns, capacity) uint64; the same as uint32, filled where that is possible.
    lengths, bases
        (n_columns, n_segments) and (n_segments,): keys `bases[s]` to `bases[s] + lengths[c, s]` of
        row c are one sequence.
    lowest
        (n_columns, n_segments) int64, filled: the lowest value's bits, -1 where it did not fit.
    """
    for column in range(lengths.shape[0]):
        for part in range(bases.size):
            base, n = bases[part], lengths[column, part]
            lowest[column, part] = 0
            if n == 0:
                continue
            own = keys[column, base : base + n]
            least, most = _span(own)
            if (most - least) >> (SHIFT - label_bits):
                lowest[column, part] = -1
            else:
                lowest[column, part] = np.int64(least)
                _shorten(own, least, label_bits, short[column, base : base + n])


@compiled
def scan(keys, n, shift, lowest, counts, sums):
    """Walk one segment's sorted keys and add up what each label's cells find.

    Parameters
    ----------
    keys, n
        The first `n` keys, sorted.
    shift, lowest
        Labels are the bits below `shift`; `lowest` is added to those above to give a float's bits.
    counts
        (n_labels, 3) int64, from zero: twice the number of controls below, plus those tied; cells
        seen; and the sum of 3t(t-1), where t is the cell's place among those tied with it, controls
        first. Such sums over t make t³ - t.
    sums
        (n_labels,) float64, from zero: the values.
    """
    mask = (ONE << shift) - ONE
    below, tied, run = 0, 0, 0
    last_value, last_key = ~np.uint64(0), ~np.uint64(0)
    for i in range(n):
        key = np.uint64(keys[i])
        value = key >> shift
        label = np.int64(key & mask)
        control = label == 0
        tied = (tied if value == last_value else 0) + control
        run = 1 + (run if key == last_key else 0)
        below += control
        place = tied + (0 if control else run)
        counts[label, 0] += 2 * below - tied
        counts[label, 1] += 1
        counts[label, 2] += 3 * place * (place - 1)
        sums[label] += np.float64(np.uint32(value + lowest).view(np.float32))
        last_value, last_key = value, key


@compiled
def conclude_one(found, control, size, control_size):
    """Return U and ties of a group, from what it and its control have in the counts of `scan`."""
    seen = np.float64(found[1])
    zeros, control_zeros = size - seen, np.float64(control_size - control[1])
    both = zeros + control_zeros
    u = 0.5 * found[0] + (seen + 0.5 * zeros) * control_zeros
    return u, np.float64(control[2] + found[2]) + both * (both * both - 1)


@compiled
def conclude(counts, sums, members, sizes, column, result):
    """Account for the zeros, which lie below every key and are tied with each other.

    Parameters
    ----------
    counts, sums
        (n_labels, 3) and (n_labels,) of `scan`.
    members
        (n_labels,) the group of each label.
    sizes
        (n_groups,) cells of each group.
    result
        Three arrays of (n_groups, width): sums, U, and ties. Controls get NaN and 0.
    """
    total, u, ties = result
    control_size = sizes[members[0]]
    for label in range(members.size):
        group = members[label]
        total[group, column] = sums[label]
        u[group, column], ties[group, column] = conclude_one(
            counts[label], counts[0], sizes[group], control_size
        )
    u[members[0], column], ties[members[0], column] = np.nan, 0.0


@compiled
def scan_tile(
    keys, short, lengths, bases, lowest, label_bits, members, starts, sizes, first, result
):
    """Scan every sequence of a tile, once sorted, and write the results of its columns.

    Parameters
    ----------
    keys, short, lengths, bases, lowest, label_bits
        As in `shorten`.
    members, starts
        The groups of all segments one after the other, and where each segment's begin and end.
    sizes
        (n_groups,) cells of each group.
    first
        The tile's first column in `result`.
    """
    most = 0
    for part in range(bases.size):
        most = max(most, starts[part + 1] - starts[part])
    counts, sums = np.empty((most, 3), np.int64), np.empty(most)
    for column in range(lengths.shape[0]):
        for part in range(bases.size):
            counts[:] = 0
            sums[:] = 0.0
            n, base = lengths[column, part], bases[part]
            if lowest[column, part] < 0:
                scan(keys[column, base:], n, SHIFT, np.uint64(0), counts, sums)
            else:
                least = np.uint64(lowest[column, part])
                scan(short[column, base:], n, label_bits, least, counts, sums)
            own = members[starts[part] : starts[part + 1]]
            conclude(counts, sums, own, sizes, first + column, result)


@compiled
def pack_doubles(entries, place_bits, keys, lengths, cuts):
    """Pack the values above zero of some columns of float64, which fit no key whole.

    Parameters
    ----------
    entries
        Values, rows, and where each column's begin and the last one's end.
    place_bits
        How many bits an entry's place in its column takes.
    keys
        (n_columns, capacity) uint64, filled: the upper bits of the value's distance from the
        column's lowest, as many as there is room for; and the place.
    lengths, cuts
        (n_columns,) filled: how many keys there are; how many bits of a value found no room.
    """
    values, _, starts = entries
    for column in range(lengths.size):
        own = values[starts[column] : starts[column + 1]]
        bits = own.view(np.uint64)
        least, most = ~np.uint64(0), np.uint64(0)
        for k in range(own.size):
            if own[k] > 0.0:
                least, most = min(least, bits[k]), max(most, bits[k])
        cut = np.uint64(0)
        while most > least and ((most - least) >> cut) >> (np.uint64(64) - place_bits):
            cut += ONE
        at = 0
        for k in range(own.size):
            if own[k] > 0.0:
                keys[column, at] = (((bits[k] - least) >> cut) << place_bits) | np.uint64(k)
                at += 1
        lengths[column], cuts[column] = at, cut


@compiled
def _settle(keys, values, place_bits):
    """Order neighbours whose keys have the same upper bits by all of their values' (Shell sort)."""
    mask, first = (ONE << place_bits) - ONE, 0
    for i in range(1, keys.size + 1):
        if i < keys.size and keys[i] >> place_bits == keys[first] >> place_bits:
            continue
        run, gap = keys[first:i], (i - first) // 2
        while gap > 0:
            for j in range(gap, run.size):
                key, at = run[j], j
                value = values[np.int64(key & mask)]
                while at >= gap and values[np.int64(run[at - gap] & mask)] > value:
                    run[at] = run[at - gap]
                    at -= gap
                run[at] = key
            gap //= 2
        first = i


@compiled
def _scan_cells(cells, values, codes, reference, counts, tied, sums):
    """Do as `scan`, for cells in order of their values, in any order where those are tied.

    Parameters
    ----------
    cells, values
        (n,) cells, and their values in ascending order.
    codes, reference
        As in `Groups`. Counts and sums are by group.
    tied
        (n_groups,) int64, zeros before and after: cells tied with each other.
    """
    first = 0
    while first < cells.size:
        value, stop = values[first], first + 1
        while stop < cells.size and values[stop] == value:
            stop += 1
        if stop - first == 1:
            code = codes[cells[first]]
            if code >= 0:
                counts[code, 0] += 2 * counts[reference[code], 1]
                counts[code, 1] += 1
                sums[code] += value
            first = stop
            continue
        for of_controls in (True, False):
            for i in range(first, stop):
                code = codes[cells[i]]
                if code < 0 or (reference[code] == code) != of_controls:
                    continue
                control = reference[code]
                tied[code] += 1
                place = tied[code] + (0 if of_controls else tied[control])
                counts[code, 0] += 2 * counts[control, 1] - tied[control]
                counts[code, 1] += 1
                counts[code, 2] += 3 * place * (place - 1)
                sums[code] += value
        for i in range(first, stop):
            tied[max(codes[cells[i]], 0)] = 0
        first = stop


@compiled
def scan_doubles(entries, place_bits, keys, lengths, cuts, groupings, first, result):
    """Scan columns of `pack_doubles`, their keys sorted, for several groupings of the cells.

    Parameters
    ----------
    groupings
        (n_groupings, n_cells) int32 and (n_groups,) int32, codes and references where the groups of
        all groupings are numbered on; (n_groups,) cells of each.
    first, result
        As in `scan_tile`, of the groups of all groupings.
    """
    values, rows, starts = entries
    codes, reference, sizes = groupings
    total, u, ties = result
    counts, tied = np.empty((sizes.size, 3), np.int64), np.zeros(sizes.size, np.int64)
    cells, ordered = np.empty(keys.shape[1], np.int32), np.empty(keys.shape[1])
    mask = (ONE << place_bits) - ONE
    for column in range(lengths.size):
        n, start = lengths[column], starts[column]
        own = keys[column, :n]
        if cuts[column]:
            _settle(own, values[start : starts[column + 1]], place_bits)
        for i in range(n):
            at = start + np.int64(own[i] & mask)
            cells[i], ordered[i] = rows[at], values[at]
        counts[:] = 0
        sums = np.zeros(sizes.size)
        for grouping in range(codes.shape[0]):
            _scan_cells(cells[:n], ordered[:n], codes[grouping], reference, counts, tied, sums)
        for group in range(sizes.size):
            control = reference[group]
            found = conclude_one(counts[group], counts[control], sizes[group], sizes[control])
            total[group, first + column] = sums[group]
            u[group, first + column], ties[group, first + column] = found
            if control == group:
                u[group, first + column], ties[group, first + column] = np.nan, 0.0
