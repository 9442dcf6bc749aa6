"""Any record of a file of training records by its number, without the file in memory.

One pass finds where each record begins, 8 bytes a record; a record is read when it is asked for, by
opening the file anew, so an index can be forked and pickled with whoever reads in parallel.
"""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.forms.lines import form_of_file, record_in


class RecordIndex:
    """The records of the file at `path`, all of one form; empty lines are none.

    Raises DataStewardError where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._form_name = form_of_file(path).name
        self._places = _places(path)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def form(self) -> Form:
        """What its records are."""
        return FORMS[self._form_name]

    def record(self, number: int) -> Any:
        """The record of this number, counted from 0, as its form reads it.

        Raises IndexError beyond the last, and DataStewardError for a line that is none.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        with self.path.open("rb") as file:
            file.seek(int(self._places[number]))
            line = file.readline()
        return record_in(self.path.name, number + 1, line, self.form)


def _places(path: Path) -> npt.NDArray[np.uint64]:
    """Where each record begins, in bytes."""
    places, place = array("Q"), 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                places.append(place)
            place += len(line)
    return np.frombuffer(places, dtype=np.uint64)
