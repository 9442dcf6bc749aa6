"""Counting and removing what a program itself has put below its home directory.

Guaranteed: no link is followed, neither to count nor to remove; a directory is gone at once under
its own name, and what a killed removal left is named so that the next one can finish it.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REMOVING = ".removing"
_LEFT_BY_A_KILL = re.compile(r"\..+\.\d+-\d+\.part")
"""A file that was being written aside, see `durable_files` and `blob_files` beside this one."""
PART_SECONDS = 86_400


@dataclass(frozen=True)
class DiskUsage:
    """How much lies somewhere; bytes of a file with several names count once."""

    files: int = 0
    size: int = 0

    def __add__(self, other: "DiskUsage") -> "DiskUsage":
        return DiskUsage(self.files + other.files, self.size + other.size)


@dataclass
class DiskCounter:
    """Counts files, each one once however many names it has among all that is counted."""

    _known: set[tuple[int, int]] = field(default_factory=set)

    def usage(self, path: Path) -> DiskUsage:
        """Of a file or of everything below a directory; nothing for what is not there."""
        try:
            found = path.lstat()
        except OSError:
            return DiskUsage()
        if stat.S_ISDIR(found.st_mode):
            return sum((self.usage(each) for each in own_entries(path)), DiskUsage())
        identity = (found.st_dev, found.st_ino)
        if identity in self._known:
            return DiskUsage()
        self._known.add(identity)
        return DiskUsage(1, found.st_size)


def own_entries(directory: Path) -> list[Path]:
    """What lies in a directory, sorted; nothing where it is absent, unreadable or a link."""
    if not is_own_directory(directory):
        return []
    try:
        return sorted(Path(entry.path) for entry in os.scandir(directory))
    except OSError:
        return []


def is_own_directory(path: Path) -> bool:
    """Whether this is a directory and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def is_own_file(path: Path) -> bool:
    """Whether this is a plain file and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def leads_through_no_link(home: Path, path: Path) -> bool:
    """Whether all directories between `home` and a path below it are directories and no links."""
    between = [parent for parent in path.parents if parent.is_relative_to(home)]
    return all(is_own_directory(parent) for parent in between if parent != home)


def usage_of_all(paths: Iterable[Path]) -> DiskUsage:
    """Of several files and directories together."""
    counter = DiskCounter()
    return sum((counter.usage(path) for path in paths), DiskUsage())


@dataclass(frozen=True)
class Removed:
    """What a removal freed, and what the system refused, in words; it went on with the rest."""

    usage: DiskUsage = DiskUsage()
    refused: tuple[str, ...] = ()


def remove_all(paths: Iterable[Path]) -> Removed:
    """Remove files and directories in this order; a link among them is left as it is."""
    counter, usage, refused = DiskCounter(), DiskUsage(), list[str]()
    for path in paths:
        counted = counter.usage(path)
        try:
            _remove(path)
        except OSError as error:
            refused.append(f"{path}: {error.strerror or type(error).__name__}")
        else:
            usage += counted
    return Removed(usage, tuple(refused))


def leftovers(directory: Path, now: float) -> Iterator[Path]:
    """What a killed removal left in a directory, and what a killed write left over a day ago.

    `now` is the machine's time in seconds since the epoch, as files have it.
    """
    for path in own_entries(directory):
        is_removal = path.name.startswith(".") and path.name.endswith(REMOVING)
        is_part = _LEFT_BY_A_KILL.fullmatch(path.name) is not None
        if is_removal or (is_part and _is_older(path, now - PART_SECONDS)):
            yield path


def _is_older(path: Path, instant: float) -> bool:
    """Whether a plain file was last written before an instant; not so when it is gone."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < instant


def _remove(path: Path) -> None:
    if is_own_file(path):
        path.unlink()
    elif is_own_directory(path):
        shutil.rmtree(_aside(path))


def _aside(path: Path) -> Path:
    """The directory under a name by which nobody looks for it."""
    if path.name.endswith(REMOVING):
        return path
    aside = path.with_name(f".{path.name}{REMOVING}")
    if is_own_directory(aside):
        shutil.rmtree(aside)
    path.rename(aside)
    return aside
