"""The claims of an audit, as a person reads them."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.audit.claim import Claim
from infra.terminal import say

STYLES = {"pass": "green", "fail": "bold red", "not checked": "yellow"}


def show_claims(console: Console, claims: Sequence[Claim]) -> None:
    """One line for each, and the end of the command: exit 1 if any fails."""
    table = Table("claim", "outcome", "detail")
    for claim in claims:
        table.add_row(claim.name, Text(claim.outcome, STYLES[claim.outcome]), claim.detail)
    console.print(table)
    failed = [claim for claim in claims if claim.outcome == "fail"]
    say(console, f"{len(failed)} of {len(claims)} claims fail" if failed else "no claim fails")
    raise typer.Exit(1 if failed else 0)
