"""The options of `backup` and `restore`, which the coordinator and the silos have alike."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from infra import command_values as values

Out = Annotated[Path, Argument(parser=values.file_to_write, help="New file to write.")]
BackupFile = Annotated[Path, Argument(parser=values.existing_file, help="File of a backup.")]
PassphraseFile = Annotated[
    Path | None,
    Option(
        parser=values.existing_file,
        help="File (mode 0600) whose first line encrypts the backup; keep it elsewhere.",
    ),
]
