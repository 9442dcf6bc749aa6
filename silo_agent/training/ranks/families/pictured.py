"""Sequences that carry pictures: each record of one is a picture with its caption.

Pictures are opened when a sequence is asked for, so that memory holds those of one step, and are
the very bytes that the data gate has checked.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.forms.image_text import CaptionedPicture
from data_contracts.dataset.forms.record_index import RecordIndex
from data_contracts.dataset.pictures.training_picture import training_picture
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence

FILES_AT_A_TIME = 4
"""Whose records are known by their places in the file: 8 bytes a record."""


@dataclass
class PicturedSequence(PackedSequence):
    """`pictures` of its records in their order, uint8 (records x side x side x 3)."""

    pictures: NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8))


def pictured(sequence: PackedSequence, origin: Origin, side: int) -> PicturedSequence:
    """`sequence` with the pictures of its captions, `side` pixels wide and high.

    Raises SiloOperatorError for a picture that is not what was checked.
    """
    pictures = [training_picture(each.path, each.sha256, side) for each in records_of(origin)]
    return PicturedSequence(
        sequence.token_ids, sequence.labels, sequence.positions, np.stack(pictures)
    )


def records_of(origin: Origin) -> list[CaptionedPicture]:
    """The records of a sequence, in their order."""
    index = _index_of(origin.records)
    return [index.record(place) for place in origin.places]


@lru_cache(maxsize=FILES_AT_A_TIME)
def _index_of(records: Path) -> RecordIndex:
    """A job's files of records do not change while it runs: its fingerprint covers their bytes."""
    return RecordIndex(records)
