"""Files that are either absent or complete, whatever happens while they are written."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from data_contracts.errors import ConsortiaError

PRIVATE_MODE = 0o600


def write_durably(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write to a temporary name, fsync file and directory, then rename over `path`."""
    with aside(path, len(data)) as temporary, _synced_file(temporary, os.O_TRUNC, mode) as file:
        file.write(data)


def keep_durably(source: Path, path: Path) -> None:
    """Make `path` a second name of the file `source`, or a copy on another file system; synced.

    For a file that is replaced as a whole if ever, and never written again in place.
    """
    if path.exists() and path.samefile(source):
        return
    with aside(path, source.stat().st_size) as temporary:
        _linked_or_copied(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file, mode 0600, that takes the name `path` whole and synced when the block ends.

    Raises ConsortiaError where there is one of that name: nothing is written over.
    """
    _require_free(path)
    with aside(path, 0) as temporary:
        with _synced_file(temporary, os.O_TRUNC, PRIVATE_MODE) as file:
            yield file
        _require_free(path)


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file, mode 0600, that takes its name at once and is synced when the block ends.

    Raises FileExistsError where there is one of that name, and OSError.
    """
    with _synced_file(path, os.O_EXCL, PRIVATE_MODE) as file:
        yield file


@contextmanager
def aside(path: Path, size: int, *, is_synced: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends.

    What is written there is for the block to sync. Raises ConsortiaError as `disk_faults`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    with disk_faults(path, size):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
            if is_synced:
                sync_directory(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def disk_faults(path: Path, size: int) -> Iterator[None]:
    """What the disk refuses inside the block becomes a ConsortiaError about writing `path`."""
    try:
        yield
    except OSError as error:
        raise ConsortiaError(
            f"writing {path}",
            expected=f"a writable disk with {size} free bytes",
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


def _require_free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ConsortiaError(
            str(path),
            expected="no file of that name yet",
            found="one",
            action="give another name, or move that one away",
        )


def _linked_or_copied(source: Path, temporary: Path) -> None:
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
        temporary.chmod(PRIVATE_MODE)


@contextmanager
def _synced_file(path: Path, flag: int, mode: int) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, mode)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
