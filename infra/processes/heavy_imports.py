"""Importing large libraries (PyTorch, transformers, Great Expectations) a little quicker."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Make no garbage collection inside the block, and never look again at what it imported.

    These libraries make a great many objects and throw hardly any away; going through them over
    and over takes a good part of the time of their imports. Where everything was imported before,
    nothing is kept from the collector.
    """
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()
