"""`consortia storage ...`: what the storage promises, which rights it needs, and what it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.federation_options import HERE, Home, Stack
from infra import command_values as values
from infra.terminal import plain_console, say

if TYPE_CHECKING:
    from aggregator.upkeep.storage_check import StorageCheck

storage_app = typer.Typer(no_args_is_help=True, help="What the storage promises, needs and holds.")
console = plain_console()


@storage_app.command("check")
def storage_check(home: Home = HERE) -> None:
    """Try every promise, as the coordinator; each silo tries its own with `silo-agent check`."""
    from aggregator.coordinator import load_coordinator
    from aggregator.upkeep.storage_check import check_storage
    from infra.storage.probe import require_promises

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
    from aggregator.settings.federation import load_settings
    from infra.storage.policies import coordinator_policy, silo_policy

    federation = federation or load_settings(home).federation
    policy = (
        coordinator_policy(federation) if who == "coordinator" else silo_policy(federation, who)
    )
    say(console, policy)


@storage_app.command("prune-policy")
def storage_prune_policy(home: Home = HERE) -> None:
    """Print the IAM policy of the credential that `storage prune` is given."""
    from aggregator.settings.federation import load_settings
    from infra.storage.policies import pruning_policy

    say(console, pruning_policy(load_settings(home).federation))


@storage_app.command("usage")
def storage_usage_command(home: Home = HERE) -> None:
    """What the coordinator's disk and each bucket hold, and who needs it until when."""
    from aggregator.coordinator import load_coordinator
    from aggregator.feed.reading import read_federation
    from aggregator.upkeep.disk_pruning import surplus
    from aggregator.upkeep.storage_room import storage_usage
    from flows.commands.bucket_display import show_buckets
    from flows.federation.storage_pruning import COORDINATOR_DISK, coordinators_view
    from infra.disk.display import show_disk
    from infra.disk.own_files import usage_of_all

    c = load_coordinator(home)
    goes = usage_of_all(surplus(c, read_federation(c)))
    show_disk(console, c.settings.home, COORDINATOR_DISK, goes)
    tally = storage_usage(c, coordinators_view(c))
    show_buckets(console, tally)
    say(
        console, "Earlier versions are not counted here; `consortia storage prune` counts them too."
    )


@storage_app.command("prune")
def storage_prune_command(
    home: Home = HERE,
    credentials: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="File of a storage operator, with access_key and secret_key; it is not kept.",
        ),
    ] = None,
    stack: Stack = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else only say what.")] = False,
) -> None:
    """Say what no record needs, on this disk and in the buckets; with --yes remove it."""
    from aggregator.coordinator import load_coordinator
    from aggregator.feed.reading import read_federation
    from aggregator.upkeep.disk_pruning import prune_workspace, surplus
    from aggregator.upkeep.storage_room import prune_storage
    from data_contracts.shown_text import size_text
    from flows.commands.bucket_display import show_buckets, unneeded_text
    from flows.federation.storage_pruning import operators_view
    from infra.disk.own_files import usage_of_all

    c = load_coordinator(home)
    opened, feed = operators_view(c, credentials, stack), read_federation(c)
    goes = prune_workspace(c, feed).usage if yes else usage_of_all(surplus(c, feed))
    tally = prune_storage(c, opened, is_trial=not yes)
    show_buckets(console, tally)
    word = "removed" if yes else "would be removed (with --yes)"
    say(console, f"{word}: in storage {unneeded_text(tally)}")
    say(console, f"{word}: on this disk {goes.files:,} files, {size_text(goes.size)}")


def tell_untried(check: "StorageCheck") -> None:
    """Say of which inboxes nothing is known yet."""
    for silo, why in sorted(check.untried.items()):
        say(console, f"inbox of {silo}: not tried, {why}")
