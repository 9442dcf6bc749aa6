"""Digests of files, remembered by path, size, times and inode.

A file that looks unchanged is not read again; the memory is as trustworthy as the disk that it
lies on. A file that changes while it is read is refused.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from infra.disk.durable_files import write_durably

MAX_CACHE_BYTES = 512 * 1024 * 1024
_STAMP = ("size", "mtime_ns", "ctime_ns", "inode", "device")


class FileDigests:
    """Remembers digests in `cache_file` (None: in this object only); `save` writes them down."""

    def __init__(self, cache_file: Path | None) -> None:
        self._cache_file = cache_file
        self._known = _read(cache_file)
        self._is_changed = False

    def artifact(self, path: Path) -> ArtifactRef:
        """SHA-256 and size; raises SiloOperatorError when the file changes while it is read."""
        key, before = str(path.resolve()), _stamp(path)
        known = self._known.get(key)
        if isinstance(known, dict) and _stamp_of(known) == before and _is_digest(known):
            return ArtifactRef(digest=known["sha256"], size=before["size"])
        artifact = artifact_of_file(path)
        if _stamp(path) != before:
            raise SiloOperatorError(
                str(path),
                expected="a file that stays as it is while it is read",
                found="one that changed",
                action="let nothing write it, then try again",
            )
        self._known[key] = {"sha256": artifact.digest, **before}
        self._is_changed = True
        return artifact

    def learn(self, path: Path, artifact: ArtifactRef) -> None:
        """Take a file that was hashed as it was written for what it is then."""
        self._known[str(path.resolve())] = {"sha256": artifact.digest, **_stamp(path)}
        self._is_changed = True

    def save(self) -> None:
        """Write down what was learned, in one step; what cannot be written is learned again."""
        if self._cache_file is None or not self._is_changed:
            return
        with suppress(ConsortiaError):
            text = json.dumps(self._known, sort_keys=True)
            write_durably(self._cache_file, text.encode())
            self._is_changed = False


def _stamp(path: Path) -> dict[str, int]:
    """What tells, without reading it, that a file is the one hashed before; times in ns.

    The time of the last change of the inode cannot be set back, as that of the content can.
    """
    status = path.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
        "device": status.st_dev,
    }


def _stamp_of(known: dict[str, Any]) -> dict[str, Any]:
    return {name: known.get(name) for name in _STAMP}


def _is_digest(known: dict[str, Any]) -> bool:
    digest = known.get("sha256")
    return isinstance(digest, str) and len(digest) == 64


def _read(cache_file: Path | None) -> dict[str, Any]:
    """The cache, or an empty one when it is absent or damaged: it can always be made again."""
    if cache_file is None:
        return {}
    try:
        if cache_file.stat().st_size > MAX_CACHE_BYTES:
            return {}
        cache = json.loads(cache_file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cache if isinstance(cache, dict) else {}
