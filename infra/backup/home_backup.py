"""A backup of a home directory, whoever's it is, taken while its program may run.

Every file of a home is replaced as a whole by whoever writes it, so one that is open stays as it
was. They are opened in an order that is safe: what was seen first, so that everything it rests on
is at least as new, and keys last.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.backup.backup_file import write_backup
from infra.backup.manifest import Manifest, Owner, manifest_of

MAX_READINGS = 5


@dataclass(frozen=True)
class Kept:
    """What of a home directory is kept: paths in reading order, and what is not, in words."""

    paths: tuple[Path, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Backup:
    """A backup that was written, and what a person has to keep besides."""

    file: Path
    manifest: Manifest
    left_out: tuple[str, ...]
    is_encrypted: bool


def back_up_home(
    home: Path,
    owner: Owner,
    list_kept: Callable[[], Kept],
    out: Path,
    now: datetime,
    passphrase: str | None = None,
) -> Backup:
    """Write the files that `list_kept` names to `out`, encrypted where there is a passphrase.

    One that goes meanwhile has everything listed and opened again. Raises ConsortiaError.
    """
    home = home.resolve()
    with ExitStack() as stack:
        kept, files = _opened(home, list_kept, stack)
        manifest = manifest_of(owner, now, files)
        write_backup(out, manifest, [file for _, file in files], passphrase)
    return Backup(out, manifest, kept.left_out, passphrase is not None)


def kept_in(home: Path, paths: Iterable[Path]) -> Kept:
    """Those of `paths` that lie in `home`; others are named as left out, missing ones are not."""
    inside, outside = [], []
    for path in dict.fromkeys(Path(os.path.normpath(home / path)) for path in paths):
        if not path.exists():
            continue
        if path.is_relative_to(home):
            inside.append(path)
        else:
            outside.append(f"{path}: it lies outside the home directory")
    return Kept(tuple(inside), tuple(outside))


def files_below(directory: Path, pattern: str = "*") -> list[Path]:
    """Every file below a directory whose name fits, in order; half-written ones are none."""
    found = (path for path in directory.rglob(pattern) if path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _opened(
    home: Path, list_kept: Callable[[], Kept], stack: ExitStack
) -> tuple[Kept, list[tuple[str, BufferedReader]]]:
    for _ in range(MAX_READINGS):
        kept, reading = list_kept(), ExitStack()
        try:
            files = [
                (path.relative_to(home).as_posix(), reading.enter_context(path.open("rb")))
                for path in kept.paths
            ]
        except FileNotFoundError:
            reading.close()
            continue
        stack.push(reading)
        return kept, list(files)
    raise ConsortiaError(
        f"backup of {home}",
        expected="files that stay while they are opened",
        found=f"ones that went, {MAX_READINGS} times",
        action="stop the program that runs there, and make the backup again",
    )
