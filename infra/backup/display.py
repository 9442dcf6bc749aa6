"""What backup and restore tell whoever ran them."""

from pathlib import Path

from rich.console import Console

from infra.backup.home_backup import Backup
from infra.backup.home_restore import Restored
from infra.backup.manifest import Manifest, owner_of
from infra.terminal import say


def say_backup(console: Console, backup: Backup) -> None:
    """What was written, what a person has to keep besides, and who can read it."""
    files, size = backup.manifest.files, backup.file.stat().st_size
    say(console, f"written    {backup.file}: {len(files)} files, {size:,} bytes")
    for line in backup.left_out:
        say(console, f"not in it  {line}")
    if backup.is_encrypted:
        say(console, "It is encrypted; without the passphrase nobody can restore it.")
    else:
        say(console, "It holds PRIVATE KEYS in plain: whoever has it can sign as their owner.")
        say(console, "Keep it as the keys are kept, or give --passphrase-file.")


def say_restored(console: Console, restored: Restored, home: Path) -> None:
    """What of the home is from the backup now, and what is not."""
    say(console, f"restored   {home} from {_whose(restored.manifest)}")
    say(console, f"put back   {len(restored.put_back)} files")
    for path in restored.raised:
        say(console, f"raised     {path}: the backup had seen more")
    for path in restored.left:
        say(console, f"left       {path}: differs from the backup; move it away to have that one")


def _whose(manifest: Manifest) -> str:
    made = f"{manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"the backup of {owner_of(manifest)}, made on {made} by version {manifest.program}"
