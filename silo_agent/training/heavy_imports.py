"""Importing PyTorch, transformers, PEFT and DeepSpeed, a little quicker."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Make no garbage collection inside the block, and never look again at what it made.

    These libraries make a great many objects and throw hardly any away; going through them over
    and over takes a good part of the time of their imports.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
