"""Results of pure functions of bytes that are kept: a record is read at every poll.

What is kept follows from the bytes alone.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

SMALL_BYTES = 16 * 1024
REMEMBERED_SMALL = 512
"""Most records are small, and a coordinator reads those of every silo at every look."""
REMEMBERED = 64
"""Documents whose parsed form is kept: a plan is read at every poll. What is kept follows from the
bytes alone; which keys may have signed is asked every time."""
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def remembered(
    function: Callable[Concatenate[bytes, _Given], _Result],
) -> Callable[Concatenate[bytes, _Given], _Result]:
    """Keep the last results of a pure function of bytes, many for small ones and few for others."""
    small, large = lru_cache(REMEMBERED_SMALL)(function), lru_cache(REMEMBERED)(function)

    @wraps(function)
    def call(data: bytes, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        return (small if len(data) <= SMALL_BYTES else large)(data, *args, **kwargs)  # type: ignore[arg-type]

    return call
