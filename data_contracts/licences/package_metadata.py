"""The metadata that a package ships, read as data: nothing is imported, run or unpacked.

An archive is untrusted: its size, the number of bytes that are decompressed and the size of the
one file that is read are capped, names inside it are only compared, and whatever is wrong with it
is a DataStewardError that names the archive and quotes nothing from it.
"""

import gzip
import re
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

import yaml

from data_contracts.errors import DataStewardError

MAX_ARCHIVE_BYTES = 512 * 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
"""Decompressed bytes of a .tgz that are read in search of its package.json."""

_WHEEL_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
# npm strips the first folder whatever its name is; almost always it is `package`.
_NPM_METADATA = re.compile(r"[^/]+/package\.json")
_FRONT_MATTER = re.compile(rb"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


def wheel_metadata(path: Path) -> bytes:
    """Bytes of the METADATA file of a wheel."""
    _check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if _WHEEL_METADATA.fullmatch(name)]
            if len(names) != 1:
                raise unreadable(path, "one *.dist-info/METADATA", f"{len(names)} of them")
            with archive.open(names[0]) as member:
                return _limited(path, member)
    except DataStewardError:
        raise
    except Exception as error:  # Readers of untrusted archives raise whatever they trip over.
        raise unreadable(path, "a wheel", type(error).__name__) from None


def npm_metadata(path: Path) -> bytes:
    """Bytes of the first package.json at the top of an npm tarball."""
    _check_size(path)
    try:
        with _CappedGzip(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            for member in tar:
                file = tar.extractfile(member) if _NPM_METADATA.fullmatch(member.name) else None
                if file is not None:
                    return _limited(path, file)
    except DataStewardError:
        raise
    except Exception as error:
        raise unreadable(path, "an npm tarball", type(error).__name__) from None
    raise unreadable(path, "a package.json in its top folder", "none")


def card_metadata(path: Path) -> Any:
    """The YAML front matter of a Markdown file, such as a data set card."""
    try:
        with path.open("rb") as file:
            front = _FRONT_MATTER.match(_limited(path, file))
    except OSError as error:
        raise unreadable(path, "a readable file", error.strerror or "another fault") from None
    if front is None:
        raise unreadable(path, "YAML front matter between two lines of ---", "none")
    try:
        text = front.group(1).decode("utf-8")
        # An alias can multiply what is small on disk.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.SafeLoader)):
            raise unreadable(path, "front matter without aliases", "an alias")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise unreadable(path, "plain YAML front matter", "something else") from None


def unreadable(path: Path, expected: str, found: str) -> DataStewardError:
    """The fault of a package that cannot be read; `found` must quote nothing from inside it."""
    return DataStewardError(
        f"package {ascii(path.name)[1:-1][:120]}",
        expected=expected,
        found=found,
        action="fetch the package again, or state no package for this data set",
    )


class _CappedGzip(gzip.GzipFile):
    """A gzip file that ends with a fault after MAX_UNPACKED_BYTES."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._left = MAX_UNPACKED_BYTES

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        data = super().read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("more unpacked bytes than the limit")
        return data


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, "a readable file", error.strerror or "another fault") from None
    if size > MAX_ARCHIVE_BYTES:
        raise unreadable(path, f"at most {MAX_ARCHIVE_BYTES} bytes", "more")


def _limited(path: Path, file: IO[bytes]) -> bytes:
    data = file.read(MAX_METADATA_BYTES + 1)
    if len(data) > MAX_METADATA_BYTES:
        raise unreadable(path, f"metadata of at most {MAX_METADATA_BYTES} bytes", "more")
    return data
