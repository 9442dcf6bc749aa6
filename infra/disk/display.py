"""What lies on a disk, as a person reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_contracts.shown_text import size_text
from infra.disk.own_files import DiskCounter, DiskUsage, own_entries


@dataclass(frozen=True)
class DiskPart:
    """A part of a home directory: paths below it, and until when what lies there stays."""

    name: str
    paths: tuple[str, ...]
    stays: str


def show_disk(console: Console, home: Path, parts: Sequence[DiskPart], surplus: DiskUsage) -> None:
    """A row for each part, one for the rest, and what would be removed now.

    A file of several names counts in the first part that has it.
    """
    table, counter, total = Table("what", "files", "size", "stays"), DiskCounter(), DiskUsage()
    for part in parts:
        usage = sum((counter.usage(home / path) for path in part.paths), DiskUsage())
        total += usage
        table.add_row(part.name, f"{usage.files:,}", size_text(usage.size), part.stays)
    rest = sum((counter.usage(path) for path in own_entries(home)), DiskUsage())
    total += rest
    table.add_row("everything else", f"{rest.files:,}", size_text(rest.size), "is never removed")
    table.add_row("all", f"{total.files:,}", size_text(total.size), "", style="bold")
    table.add_row("of it surplus", f"{surplus.files:,}", size_text(surplus.size), "goes")
    console.print(table)
