"""Files below the silo's data root, after every link has been followed.

What is returned exists, is of the wanted kind and lies inside the root; a named pipe or a device
is not a file. Symbolic links are followed, as far as they stay inside the root. A file with a
second name (a hard link) may have that one outside of the root, and is refused unless the silo's
operator allows it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from data_contracts.dataset.sources.data_source import DataUnavailableError


@dataclass(frozen=True, slots=True)
class DataRoot:
    """The folder outside of which nothing is read; `hard_links` says whether files in it may have
    more than one name."""

    path: Path
    hard_links: bool = False


def data_root(root: Path | DataRoot) -> DataRoot:
    """`root`, by default without files of several names."""
    return root if isinstance(root, DataRoot) else DataRoot(root)


def file_below(root: DataRoot, relative: str) -> Path:
    """The file at `relative`; raises DataUnavailableError."""
    path = _resolved(root.path, relative)
    if not path.is_file():
        raise DataUnavailableError(relative, "not a file")
    if (fault := link_fault(path, root)) is not None:
        raise DataUnavailableError(relative, fault)
    return path


def link_fault(path: Path, root: DataRoot) -> str | None:
    """Why a file may not be read because of its names; raises OSError."""
    names = path.stat().st_nlink
    if names <= 1 or root.hard_links:
        return None
    return (
        f"a file with {names} names (hard links), of which some may lie outside the data root: copy"
        " it, or set data.allow_hard_links in silo-agent.toml"
    )


def folder_below(root: DataRoot, relative: str) -> Path:
    """The folder at `relative`; raises DataUnavailableError."""
    path = _resolved(root.path, relative)
    if not path.is_dir():
        raise DataUnavailableError(relative, "not a folder")
    return path


def _resolved(root: Path, relative: str) -> Path:
    try:
        real_root = os.path.realpath(root, strict=True)
        path = os.path.realpath(Path(real_root, relative), strict=True)
    except (OSError, ValueError) as error:
        reason = fault_reason(error)
    else:
        if path != real_root and Path(path).is_relative_to(real_root):
            return Path(path)
        reason = "it lies outside the data root"
    raise DataUnavailableError(relative, reason)


def described_fault(error: Exception, name: str) -> tuple[str, str]:
    """File and reason for the DataUnavailableError that takes the place of `error`.

    It is to be raised outside of the handler: an exception that carried `error` along would carry
    its message, which may quote a value.
    """
    if isinstance(error, DataUnavailableError):
        return error.file, error.reason
    return name, fault_reason(error)


def fault_reason(error: Exception) -> str:
    """What went wrong, without the message of `error`, which may quote a value."""
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, MemoryError):
        return "more memory needed than there is"
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be read: {os.strerror(error.errno)}"
    return f"damaged, or in a form that is not supported ({type(error).__name__})"
