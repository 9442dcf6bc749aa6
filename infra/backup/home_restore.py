"""A home directory from its backup, looked at as a whole before anything is written.

Into a missing or empty directory goes what was unpacked beside it, in one step. In a directory that
is a home already nothing that was seen is lowered and no other file is written over: a mark becomes
the higher of the two, what is missing is put back, what differs is left and named. Either way the
home says that it was restored (`RESTORED_NAME`, written first), until its program has read in
storage what it signed since the backup; before that it signs nothing.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.wire_types import INSTANT_FORMAT
from infra.backup.backup_file import FOLDER_MODE, unpack_backup
from infra.backup.manifest import Manifest, Owner, Role, owner_of
from infra.disk.durable_files import disk_faults, keep_durably, sync_directory, write_durably

RESTORED_NAME = "restored.json"

Higher = Callable[[bytes, bytes], bytes]
"""Of the home's and the backup's mark the higher; raises ConsortiaError where neither is."""


@dataclass(frozen=True)
class Home:
    """What a restore has to know of the program whose home directory it is.

    `owner` is whose home it is already, None where it is missing or empty. `higher`: marks by path.
    `equal`: folders whose files never change. `whole`: folders whose folders are put back whole or
    not at all, because their files belong together. `check` raises ConsortiaError for what was
    unpacked and could not be used.
    """

    directory: Path
    role: Role
    owner: Owner | None
    check: Callable[[Path, Manifest], None]
    higher: Mapping[str, Higher]
    equal: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What a restore did, by path; what is `left` differs from the backup."""

    manifest: Manifest
    put_back: tuple[str, ...]
    raised: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def restore_home(file: Path, home: Home, now: datetime, passphrase: str | None = None) -> Restored:
    """Restore the backup `file`; raises ConsortiaError before anything was written."""
    directory = home.directory.resolve()
    with _beside(directory) as unpacked:
        manifest = unpack_backup(file, home.role, unpacked, passphrase)
        _require_owner(file, home.owner, manifest)
        home.check(unpacked, manifest)
        if home.owner is None:
            _moved(unpacked, directory, manifest, now)
            return Restored(manifest, tuple(kept.path for kept in manifest.files))
        merge = _compared(unpacked, directory, manifest, home)
        _merged(merge, unpacked, directory, now)
    return Restored(manifest, tuple(merge.put_back), tuple(merge.raised), tuple(merge.left))


def is_empty(directory: Path) -> bool:
    """Whether a home can be restored as a whole: nothing is there."""
    return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


def require_home(directory: Path, settings_name: str) -> None:
    """Raise ConsortiaError for a directory that has files, but not those of a home."""
    if not (directory / settings_name).exists():
        raise ConsortiaError(
            f"directory {directory}",
            expected=f"none, an empty one, or a home with {settings_name}",
            found="one with other files",
            action="choose another --home; nothing was restored",
        )


def is_restored(directory: Path) -> bool:
    """Whether what was signed since the backup has still to be read in storage."""
    return (directory / RESTORED_NAME).exists()


def require_reading(directory: Path, now: datetime) -> None:
    """Have a home's program read in storage what it has signed, before it signs anything."""
    text = json.dumps({"restored_at": now.strftime(INSTANT_FORMAT)})
    write_durably(directory / RESTORED_NAME, text.encode())


def caught_up(directory: Path) -> None:
    """What the home has seen is no less than what it has signed."""
    (directory / RESTORED_NAME).unlink(missing_ok=True)
    sync_directory(directory)


@dataclass
class _Merge:
    """What has to be written into a home that is there."""

    put_back: list[str] = field(default_factory=list)
    raised: dict[str, bytes] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


@contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    """A new folder on the same file system, which is gone afterwards."""
    parent = next(folder for folder in directory.parents if folder.is_dir())
    with disk_faults(parent, 0):
        folder = Path(tempfile.mkdtemp(prefix=f".{directory.name}.restore-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(unpacked: Path, directory: Path, manifest: Manifest, now: datetime) -> None:
    require_reading(unpacked, now)
    for folder in {path.parent for path in unpacked.rglob("*")}:
        sync_directory(folder)
    with disk_faults(directory, sum(kept.size for kept in manifest.files)):
        directory.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(directory)
        sync_directory(directory.parent)


def _compared(unpacked: Path, directory: Path, manifest: Manifest, home: Home) -> _Merge:
    """Every file of the backup against what is there; ConsortiaError where neither is higher."""
    merge = _Merge()
    for kept in manifest.files:
        there, higher = directory / kept.path, home.higher.get(kept.path)
        folder = "/".join(PurePosixPath(kept.path).parts[:2])
        belongs = kept.path.startswith(home.whole) and (directory / folder).exists()
        if not there.exists() and not belongs:
            merge.put_back.append(kept.path)
        elif there.exists() and artifact_of_file(there).digest == kept.digest:
            continue
        elif higher is not None:
            found = there.read_bytes()
            chosen = higher(found, (unpacked / kept.path).read_bytes())
            merge.raised |= {kept.path: chosen} if chosen != found else {}
        elif kept.path.startswith(home.equal):
            raise _not_comparable(there)
        else:
            merge.left.append(kept.path)
    return merge


def _merged(merge: _Merge, unpacked: Path, directory: Path, now: datetime) -> None:
    """In the opposite of the reading order: what a mark rests on before the mark."""
    require_reading(directory, now)
    for path in reversed(merge.put_back):
        (directory / path).parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        keep_durably(unpacked / path, directory / path)
    for path, data in merge.raised.items():
        write_durably(directory / path, data)


def _require_owner(file: Path, owner: Owner | None, manifest: Manifest) -> None:
    found = owner_of(manifest)
    if owner is not None and found != owner:
        raise ConsortiaError(
            f"backup {file}",
            expected=f"one of {owner}, whose home directory is there",
            found=f"one of {found}",
            action="take its own backup, or restore into another --home",
        )


def _not_comparable(path: Path) -> ConsortiaError:
    return ConsortiaError(
        f"{path} and its form in the backup",
        expected="one history, of which one of the two has seen more",
        found="two that contradict each other",
        action="restore into an empty directory, and find out which of the two homes is the "
        "federation's; nothing was restored",
    )
