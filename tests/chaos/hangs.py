"""A limit on the time of one case, in the process's main thread."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

LIMIT_SECONDS = 5.0


@contextmanager
def no_hang(where: str) -> Iterator[None]:
    """Raises AssertionError with `where` for what takes longer, and for a crash."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{where}: no end within {LIMIT_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
