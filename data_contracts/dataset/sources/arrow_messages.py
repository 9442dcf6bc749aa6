"""Columns of lists of messages in Arrow: which types they have, and how much their rows hold.

A message counts for what it takes as a Python object besides its text, so that a row of a million
empty ones is as much too long as one of a million letters.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES

BYTES_OF_A_VALUE = 64
"""Counted for every message, and for every value of it that is no text."""

MOST_VALUES = MAX_EXAMPLE_BYTES // BYTES_OF_A_VALUE
"""A list of more is too long for an example, whatever is in it."""

Sizes = NDArray[np.int64]

_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)

_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def is_list_of_messages(kind: Any) -> bool:
    """Whether values of this type can be lists of messages."""
    return _is_list(kind) and pa.types.is_struct(kind.value_type) and _is_measured(kind)


def holds_binary(kind: Any) -> bool:
    """Whether any value in a list of messages of this type is of a binary type."""
    if _is_list(kind):
        return holds_binary(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_binary(kind.field(place).type) for place in range(kind.num_fields))
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_type(stored) for is_type in _BINARY)


def row_sizes(array: Any, text_sizes: Callable[[Any], Any]) -> Sizes:
    """Bytes of every value of an array of such a type; `text_sizes` measures one without lists."""
    if _is_list(array.type):
        lengths = _counts(array.value_lengths())
        if (lengths > MOST_VALUES).any():
            # Their text does not matter, and measuring it takes many times what it says.
            return BYTES_OF_A_VALUE * lengths + _without_longest(array, lengths, text_sizes)
        ends = np.cumsum(lengths)
        inside = np.concatenate(([0], np.cumsum(row_sizes(array.flatten(), text_sizes))))
        sizes: Sizes = inside[ends] - inside[ends - lengths] + BYTES_OF_A_VALUE * lengths
        return sizes
    if pa.types.is_struct(array.type):
        total = np.zeros(len(array), np.int64)
        for member in array.flatten():
            total += row_sizes(member, text_sizes)
        return total
    measured = text_sizes(array)
    return np.full(len(array), BYTES_OF_A_VALUE) if measured is None else _counts(measured)


def _without_longest(array: Any, lengths: Sizes, text_sizes: Callable[[Any], Any]) -> Sizes:
    """Sizes of what is in the lists that are not too long; 0 for the others."""
    sizes = np.zeros(len(array), np.int64)
    short = np.flatnonzero(lengths <= MOST_VALUES)
    if len(short):
        sizes[short] = row_sizes(array.take(short), text_sizes) - BYTES_OF_A_VALUE * lengths[short]
    return sizes


def _counts(array: Any) -> Sizes:
    counts: Sizes = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return counts


def _is_list(kind: Any) -> bool:
    return any(is_type(kind) for is_type in _LISTS)


def _is_measured(kind: Any) -> bool:
    """Whether all that is in it is; maps and unions are not."""
    if _is_list(kind):
        return _is_measured(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_measured(kind.field(place).type) for place in range(kind.num_fields))
    return not pa.types.is_nested(kind)
