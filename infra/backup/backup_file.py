"""One file that holds files of a home directory, and a manifest with the digest of each.

It is a tar archive of one form only: the manifest first, then its files in its order, every header
the one that follows from name and size. A reader knows each byte but the files' own before it reads
it, so that links, devices, paths that lead elsewhere and anything added are never interpreted. The
same files and manifest give the same bytes; with a passphrase they are encrypted as a whole.
"""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import digest_of_bytes
from infra.backup.manifest import KeptFile, Manifest, Role, damaged, manifest_in, require_ours
from infra.backup.sealed_file import (
    MAGIC,
    ByteSink,
    ByteSource,
    PlainSink,
    SealingSink,
    UnsealingSource,
)
from infra.disk.durable_files import PRIVATE_MODE, new_file, private_file

MANIFEST_NAME = re.compile(r"manifest-[0-9a-f]{64}\.json")
"""With the digest of its own bytes."""
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
END = bytes(2 * tarfile.BLOCKSIZE)
FOLDER_MODE = 0o700


def write_backup(
    out: Path, manifest: Manifest, files: Sequence[BufferedReader], passphrase: str | None
) -> None:
    """Write `files`, those of the manifest in its order, to the new file `out`, mode 0600.

    Either it is there and whole, or it is not there. Raises ConsortiaError where `out` exists.
    """
    with new_file(out) as target:
        sink = SealingSink(target, passphrase) if passphrase else PlainSink(target)
        text = manifest.model_dump_json(indent=1).encode()
        sink.write(_header(_manifest_name(text), len(text)) + text + _padding(len(text)))
        for kept, file in zip(manifest.files, files, strict=True):
            _copy_in(sink, kept, file)
        sink.write(END)
        sink.finish()


def unpack_backup(file: Path, role: Role, into: Path, passphrase: str | None) -> Manifest:
    """Write a backup's files below `into`, an empty folder; returns its manifest.

    Raises ConsortiaError for anything but an undamaged backup of this role, written by this
    version or an earlier one; what was written until then is the caller's to remove.
    """
    with file.open("rb") as opened:
        source = _source(file, opened, passphrase)
        manifest = _manifest(file, source)
        require_ours(file, manifest, role)
        for kept in manifest.files:
            _copy_out(file, source, kept, into)
        if source.read(len(END) + 1) != END:
            raise damaged(file, "more or less behind the last file")
    return manifest


def _copy_in(sink: ByteSink, kept: KeptFile, file: BufferedReader) -> None:
    file.seek(0)
    sink.write(_header(kept.path, kept.size))
    left = kept.size
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        sink.write(chunk)
        left -= len(chunk)
    if left:
        raise ConsortiaError(
            kept.path,
            expected=f"{kept.size} bytes, as when it was looked at",
            found="fewer",
            action="let nobody edit the home directory meanwhile, and make the backup again",
        )
    sink.write(_padding(kept.size))


def _copy_out(file: Path, source: ByteSource, kept: KeptFile, into: Path) -> None:
    header = _header(kept.path, kept.size)
    if source.read(len(header)) != header:
        raise damaged(file, f"something else in place of {kept.path}")
    path = into / kept.path
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    with private_file(path) as target:
        digest, left = hashlib.sha256(), kept.size
        while left and (chunk := source.read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            target.write(chunk)
            left -= len(chunk)
    padding = _padding(kept.size)
    if digest.hexdigest() != kept.digest or source.read(len(padding)) != padding:
        raise damaged(file, f"other bytes in {kept.path}")


def _source(file: Path, opened: BinaryIO, passphrase: str | None) -> ByteSource:
    is_sealed = opened.read(len(MAGIC)) == MAGIC
    if is_sealed and passphrase:
        return UnsealingSource(opened, passphrase)
    if is_sealed or passphrase:
        raise ConsortiaError(
            f"backup {file}",
            expected="a passphrase for one that is encrypted, and none for another",
            found="an encrypted one and none" if is_sealed else "a passphrase, and a plain file",
            action="give --passphrase-file"
            if is_sealed
            else "find out why it is not encrypted; if that is right, leave --passphrase-file out",
        )
    opened.seek(0)
    return opened


def _manifest(file: Path, source: ByteSource) -> Manifest:
    header = source.read(tarfile.BLOCKSIZE)
    try:
        claimed = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        raise damaged(file, "no manifest at its beginning") from None
    name, size = claimed.name, claimed.size
    if not MANIFEST_NAME.fullmatch(name) or not 0 < size <= MAX_MANIFEST_BYTES:
        raise damaged(file, "no manifest at its beginning")
    text, padding = source.read(size), _padding(size)
    is_whole = name == _manifest_name(text) and header == _header(name, size)
    if not is_whole or source.read(len(padding)) != padding:
        raise damaged(file, "another manifest than was written")
    return manifest_in(file, text)


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, PRIVATE_MODE
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _manifest_name(text: bytes) -> str:
    return f"manifest-{digest_of_bytes(text)}.json"
