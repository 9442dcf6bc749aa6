"""`consortia storage ...`: what the storage promises, which rights it needs, and what it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from data_contracts.limits import MAX_ROUND
from flows.commands.federation_options import HERE, Home, Stack
from infra import command_values as values
from infra.terminal import plain_console, say

if TYPE_CHECKING:
    from aggregator.upkeep.storage_check import StorageCheck

PastRound = Annotated[
    int, typer.Option("--round", min=1, max=MAX_ROUND, help="A round that is over.")
]
PastRun = Annotated[
    str | None, typer.Option(parser=values.run_id, help="Its run; default: that of the settings.")
]
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
    from aggregator.upkeep.shredding import destroyed_keys
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
    for record in destroyed_keys(c, read_federation(c)):
        say(
            console,
            f"{record.run} round {record.round} attempt {record.attempt}: its identity was "
            f"destroyed on {record.issued_at:%Y-%m-%d}; what silos sent in it opens no more",
        )
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


@storage_app.command("shred")
def storage_shred_command(
    round_number: PastRound,
    home: Home = HERE,
    run: PastRun = None,
    yes: Annotated[bool, typer.Option("--yes", help="Destroy them; else only say which.")] = False,
) -> None:
    """Destroy the identities of a round's attempts: nobody opens its silos' adapters any more."""
    from aggregator.coordinator import load_coordinator
    from aggregator.feed.reading import read_federation
    from aggregator.upkeep.shredding import encrypted_attempts, shred_round

    c = load_coordinator(home)
    run, feed = run or c.settings.run, read_federation(c)
    if not yes:
        for plan, recipient in encrypted_attempts(c, feed, run, round_number):
            say(console, f"attempt {plan.record.attempt}: {recipient}")
        say(console, "would be destroyed (with --yes), for good.")
        return
    done = shred_round(c, feed, run, round_number)
    for record in done.records:
        found = "destroyed" if record.was_here else "not here any more"
        say(console, f"attempt {record.attempt}: {record.recipient} {found}")
    say(
        console,
        f"What silos sent in round {round_number} of {run} cannot be opened from this home; "
        f"{done.files} plain files of it were removed.",
        "Backups of the home from before still hold the identities: remove those too. A disk that",
        "copies on write, or a flash disk, may keep what was overwritten until it needs the room.",
    )


@storage_app.command("open")
def storage_open_command(
    round_number: PastRound,
    into: Annotated[
        Path, typer.Option(parser=values.directory, help="New folder for the plain adapters.")
    ],
    home: Home = HERE,
    run: PastRun = None,
    identity: Annotated[
        list[Path] | None,
        typer.Option(
            parser=values.existing_file,
            help="File of an age identity that is not in keys/; once for each.",
        ),
    ] = None,
) -> None:
    """Write the local adapters of a past round as plain files, verified, for an auditor."""
    from aggregator.coordinator import load_coordinator
    from aggregator.feed.reading import read_federation
    from aggregator.upkeep.opened_evidence import open_evidence
    from infra.encryption.identities import load_identity

    c = load_coordinator(home)
    place = (run or c.settings.run, round_number)
    given = tuple(load_identity(path) for path in identity or ())
    for opened in open_evidence(c, read_federation(c), place, into, given):
        say(console, f"{opened.silo:<24} {opened.adapter.digest}  {opened.path}")
    say(console, "These are adapters of single institutions: remove the folder when you are done.")


def tell_untried(check: "StorageCheck") -> None:
    """Say of which inboxes nothing is known yet."""
    for silo, why in sorted(check.untried.items()):
        say(console, f"inbox of {silo}: not tried, {why}")
