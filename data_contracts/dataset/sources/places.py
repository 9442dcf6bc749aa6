"""Files below the silo's data root, after every link has been followed.

What is returned exists, is of the wanted kind and lies inside the root; a named pipe or a device
is not a file.
"""

import os
from pathlib import Path

from data_contracts.dataset.sources.data_source import DataUnavailableError


def file_below(root: Path, relative: str) -> Path:
    """The file at `relative`; raises DataUnavailableError."""
    path = _resolved(root, relative)
    if not path.is_file():
        raise DataUnavailableError(relative, "not a file")
    return path


def folder_below(root: Path, relative: str) -> Path:
    """The folder at `relative`; raises DataUnavailableError."""
    path = _resolved(root, relative)
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
