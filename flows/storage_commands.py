"""`consortia storage ...`: what the federation's storage promises, and the rights that it needs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.federation_options import Home
from infra import command_values as values
from infra.terminal import plain_console, say

if TYPE_CHECKING:
    from aggregator.storage_check import StorageCheck

storage_app = typer.Typer(no_args_is_help=True, help="Try what the storage promises; its rights.")
console = plain_console()

HERE = Path()


@storage_app.command("check")
def storage_check(home: Home = HERE) -> None:
    """Try every promise, as the coordinator; each silo tries its own with `silo-agent check`."""
    from aggregator.coordinator import load_coordinator
    from aggregator.storage_check import check_storage
    from infra.storage_probe import require_promises

    check = check_storage(load_coordinator(home))
    table = Table("bucket", "promise", "seen")
    for outcome in check.outcomes:
        for item in outcome.checks:
            seen = Text("held") if item.held else Text("broken", "bold red") + f": {item.detail}"
            table.add_row(outcome.bucket, item.promise, seen)
    console.print(table)
    tell_untried(check)
    for outcome in check.outcomes:
        require_promises(outcome)


@storage_app.command("policy")
def storage_policy(
    who: Annotated[
        str, typer.Argument(parser=values.role, help="`coordinator`, or the id of a silo.")
    ],
    home: Home = HERE,
    federation: Annotated[
        str | None,
        typer.Option(
            parser=values.federation_id,
            help="Id of a federation that is not founded yet; needs no home.",
        ),
    ] = None,
) -> None:
    """Print the IAM policy that a credential needs, for AWS S3 or a store that has IAM."""
    from aggregator.settings import load_settings
    from infra.storage_policies import coordinator_policy, silo_policy

    federation = federation or load_settings(home).federation
    policy = (
        coordinator_policy(federation) if who == "coordinator" else silo_policy(federation, who)
    )
    say(console, policy)


def tell_untried(check: "StorageCheck") -> None:
    """Say of which inboxes nothing is known yet."""
    for silo, why in sorted(check.untried.items()):
        say(console, f"inbox of {silo}: not tried, {why}")
