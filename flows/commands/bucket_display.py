"""What lies in buckets, as a person reads it."""

from datetime import datetime

from rich.console import Console
from rich.table import Column, Table

from aggregator.upkeep.storage_pruning import BucketTally, Need
from aggregator.upkeep.storage_room import StorageTally
from data_contracts.shown_text import size_text
from infra.terminal import say


def show_buckets(console: Console, tally: StorageTally) -> None:
    """One row for each kind and need in each bucket."""
    # Whoever looks for a bucket needs its whole name, however narrow the terminal is.
    bucket = Column("bucket", no_wrap=True)
    table = Table(bucket, "what", "objects", "size", "needed by", "at most until")
    for found in tally.buckets:
        for kind, need in sorted(found.rows, key=lambda row: (row[0], row[1].value)):
            table.add_row(found.bucket, *_cells(found, kind, need))
    console.print(table)
    for name in tally.absent:
        say(console, f"{name}: there is no such bucket")


def unneeded_text(tally: StorageTally) -> str:
    """How much nothing needs, in all buckets."""
    rows = [bucket.unneeded() for bucket in tally.buckets]
    return f"{sum(r.objects for r in rows):,} objects, {size_text(sum(r.size for r in rows))}"


def _cells(bucket: BucketTally, kind: str, need: Need) -> tuple[str, str, str, str, str]:
    row = bucket.rows[kind, need]
    return kind, f"{row.objects:,}", size_text(row.size), need.value, _date(row.until)


def _date(until: datetime | None) -> str:
    return "" if until is None else f"{until:%Y-%m-%d}"
