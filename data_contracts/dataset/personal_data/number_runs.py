"""Where in a long text telephone numbers can be, so that phonenumbers reads no more of it.

phonenumbers takes a tenth of a millisecond and more for every character among numbers, in every
record. Of a text longer than WHOLE_TEXT only runs of digits, and of what may stand between them in
a telephone number, are read, with some of what surrounds them, and the same run once. Of one record
PHONE_CHARACTERS are read; whoever reads then says that the text is not decided.
"""

import re
from collections.abc import Iterator

WHOLE_TEXT = 4096
PHONE_CHARACTERS = 8192
"""About a second of phonenumbers on one core."""

_RUN = re.compile(r"[0-9+(][0-9 ()./\[\]~xX+\-\u2014\u2015\u2053\u223c\u30fc\n]+")
_FIVE_DIGITS = re.compile(r"(?:[0-9][^0-9]{0,4}){4}[0-9]")
_AROUND = 24
_WINDOW = 256
_OVERLAP = 64
"""More characters than a telephone number has, with what stands between its digits."""


def number_runs(text: str) -> Iterator[str]:
    """The whole of a text of up to WHOLE_TEXT characters, else the parts that hold numbers."""
    if len(text) <= WHOLE_TEXT:
        yield text
        return
    seen = set[str]()
    for run in _RUN.finditer(text):
        if _FIVE_DIGITS.search(run[0]) is None:
            continue
        begin, end = max(0, run.start() - _AROUND), run.end() + _AROUND
        for place in range(begin, min(end, len(text)), _WINDOW - _OVERLAP):
            window = text[place : min(place + _WINDOW, end)]
            if window not in seen:
                seen.add(window)
                yield window
