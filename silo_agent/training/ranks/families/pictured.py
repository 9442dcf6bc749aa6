"""The pictures of a sequence, of which each record is a picture with its caption.

They are the very bytes that the data gate has checked. Every rank has the sequences of a whole
step; a family opens pictures when they go through the model, so that each is opened by one rank.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.forms.image_text import CaptionedPicture
from data_contracts.dataset.forms.record_index import RecordIndex
from data_contracts.dataset.pictures.training_picture import training_picture
from silo_agent.training.ranks.packed_sequence import Origin

FILES_AT_A_TIME = 4
"""Whose records are known by their places in the file: 8 bytes a record."""


def pictures_of(origin: Origin, side: int) -> NDArray[np.uint8]:
    """The pictures of a sequence's records, uint8 (records x side x side x 3).

    Raises SiloOperatorError for a picture that is not what was checked.
    """
    return np.stack([training_picture(each.path, each.sha256, side) for each in records_of(origin)])


def records_of(origin: Origin) -> list[CaptionedPicture]:
    """The records of a sequence, in their order."""
    index = _index_of(origin.records)
    return [index.record(place) for place in origin.places]


@lru_cache(maxsize=FILES_AT_A_TIME)
def _index_of(records: Path) -> RecordIndex:
    """A job's files of records do not change while it runs: its fingerprint covers their bytes."""
    return RecordIndex(records)
