"""Files that are either absent or complete, whatever happens while they are written."""

import os
from pathlib import Path

from data_contracts.errors import ConsortiaError


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write to a temporary name, fsync file and directory, then rename over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConsortiaError(
            f"writing {path}",
            expected=f"a writable disk with {len(data)} free bytes",
            found=error.strerror or str(error),
            action="free space or correct the permissions, then run the command again",
        ) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
