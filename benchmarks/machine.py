"""What a measurement was made on, for whoever reads the figures later."""

import os
import platform
from datetime import UTC, datetime


def machine(cores: str) -> str:
    """Processor, system, memory, Python and day; `cores` says how many of how many were used."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.machine()}, {platform.system()} {platform.release()}, {cores} of "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )
