"""`consortia`: what a federation operator, a compliance officer and a newcomer type.

Prefect is imported only by the commands that need it, after its environment is set.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from data_contracts.limits import MAX_ROUND
from flows.commands.contract_commands import contract_app, registry_app
from flows.commands.federation_commands import federation_app
from flows.commands.federation_options import Home
from flows.commands.stack_commands import stack_app
from flows.commands.storage_commands import storage_app, tell_untried
from infra import command_values as values
from infra.backup.options import BackupFile, Out, PassphraseFile
from infra.terminal import plain_console, run_command_line, say, say_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
round_app = typer.Typer(no_args_is_help=True, help="Start, follow and abort rounds.")
report_app = typer.Typer(no_args_is_help=True, help="Verify and export round reports.")
app.add_typer(federation_app, name="federation")
app.add_typer(round_app, name="round")
app.add_typer(report_app, name="report")
app.add_typer(stack_app, name="stack")
app.add_typer(storage_app, name="storage")
app.add_typer(contract_app, name="contract")
app.add_typer(registry_app, name="registry")
console = plain_console()

HERE = Path()
MAX_SEQUENCES = 1_000_000


@app.command()
def deploy(
    home: Home = HERE,
    register_only: Annotated[bool, typer.Option(help="Register and end.")] = False,
) -> None:
    """Register the federation's deployment with Prefect and run what it schedules."""
    from aggregator.coordinator import load_coordinator
    from aggregator.upkeep.storage_check import check_storage
    from flows.deployment.prefect_settings import use_prefect_of
    from infra.storage.storage_probe import require_promises

    coordinator = load_coordinator(home)
    settings = coordinator.settings
    check = check_storage(coordinator)
    for outcome in check.outcomes:
        require_promises(outcome)
    tell_untried(check)
    use_prefect_of(settings)
    from flows.deployment.deployments import deployment_name, register, serve_rounds

    name = deployment_name(settings)
    if register_only:
        registered = register(settings)
        say(console, *registered.schedule_lines, f"registered {name} as {registered.id}")
        return
    serving = f"serving {name}; Ctrl-C ends it, the schedule stays"
    serve_rounds(
        settings, lambda lines: say(console, *lines, serving), lambda line: say(console, line)
    )


@round_app.command("start")
def round_start(
    home: Home = HERE,
    until_round: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_ROUND, help="Last round to run; default is one round."),
    ] = None,
) -> None:
    """Ask Prefect for rounds now; needs `consortia deploy` to be running."""
    from aggregator.settings.federation import load_settings
    from flows.deployment.prefect_settings import use_prefect_of
    from flows.round.round_operations import require_place_for_copies

    settings = load_settings(home)
    use_prefect_of(settings)
    require_place_for_copies(settings)
    from flows.commands.next_steps import after_round_start
    from flows.deployment.deployments import start_rounds
    from flows.round.round_waiting import next_round_number

    number = next_round_number(home)
    run = start_rounds(settings, until_round)
    say(console, f"flow run {run}")
    say(console, *after_round_start(settings, number, run))


@round_app.command("status")
def round_status(home: Home = HERE) -> None:
    """Show the newest round once, or what the first one waits for."""
    from aggregator.coordinator import load_coordinator
    from flows.round.round_waiting import what_is_waited_for
    from flows.round.round_watch import render_round, view_round

    coordinator = load_coordinator(home)
    view = view_round(coordinator)
    if view.plan is None:
        say(console, *what_is_waited_for(coordinator))
    else:
        console.print(render_round(view))


@round_app.command("watch")
def round_watch(
    home: Home = HERE,
    round_number: Annotated[
        int | None,
        typer.Option("--round", min=1, max=MAX_ROUND, help="Round to follow; default: the newest."),
    ] = None,
) -> None:
    """Follow a round until it is reported; before its plan, say what it waits for."""
    from aggregator.coordinator import load_coordinator
    from flows.round.round_follow import follow_round

    follow_round(load_coordinator(home), console, round_number)


@round_app.command("abort")
def round_abort(
    reason: Annotated[
        str, typer.Option(parser=values.line, help="Why; it is signed and every silo reads it.")
    ],
    home: Home = HERE,
) -> None:
    """End the newest attempt without a model; a retry is the next attempt."""
    from aggregator.coordinator import load_coordinator
    from flows.round.round_operations import abort_newest

    say(console, f"aborted: {abort_newest(load_coordinator(home), reason)}")


@round_app.command("go-on")
def round_go_on(home: Home = HERE) -> None:
    """Stop waiting for silos that have not answered; needs the plan's quorum of those that have."""
    from aggregator.coordinator import load_coordinator
    from flows.round.round_operations import stop_waiting

    say(console, stop_waiting(load_coordinator(home)))


@round_app.command("contributions")
def round_contributions(
    round_number: Annotated[
        int, typer.Argument(min=1, max=MAX_ROUND, help="A round that was closed.")
    ],
    public: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="Measure here, on JSONL with `prompt` and `answer`.",
        ),
    ] = None,
    by_silos: Annotated[
        bool, typer.Option("--by-silos", help="Silos measure, if all share their adapters.")
    ] = False,
    home: Home = HERE,
    exact: Annotated[bool, typer.Option(help="Shapley values, up to 10 silos.")] = False,
    sequences: Annotated[
        int, typer.Option(min=1, max=MAX_SEQUENCES, help="Packed sequences of --public.")
    ] = 64,
    wait: Annotated[
        float, typer.Option(parser=values.wait_seconds, help="Seconds to wait for the silos.")
    ] = 0,
    answer_minutes: Annotated[
        float | None,
        typer.Option(
            parser=values.answer_minutes, help="Silos' time to answer; default: to evaluate."
        ),
    ] = None,
) -> None:
    """What each silo contributed to a round, with intervals; leave-one-out unless --exact."""
    from aggregator.contribution.by_silos import Question, Waiting, contributions_by_silos
    from aggregator.contribution.result import Contributions
    from aggregator.coordinator import load_coordinator
    from flows.round.contribution import PublicSet, contributions
    from flows.round.contribution_view import render_contributions

    if by_silos == (public is not None):
        raise typer.BadParameter("give either --public FILE or --by-silos")
    c = load_coordinator(home)
    found: Contributions | Waiting
    if public is not None:
        found = contributions(c, round_number, PublicSet(public, sequences), exact=exact)
    else:
        minutes = answer_minutes or c.settings.round.evaluate_minutes
        question = Question(round_number, exact=exact, answer_within=timedelta(minutes=minutes))
        found = contributions_by_silos(c, question, timedelta(seconds=wait))
    console.print(render_contributions(found))


@report_app.command("verify")
def report_verify(
    file: Annotated[
        Path,
        typer.Argument(parser=values.existing_file, help="Report as JSON, HTML page or archive."),
    ],
    trust: Annotated[
        Path,
        typer.Option(parser=values.existing_file, help="Membership file, obtained out of band."),
    ],
    adapter: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="adapter_model.safetensors to check against the report.",
        ),
    ] = None,
) -> None:
    """Check a report offline: one line per claim, exit 1 if any fails."""
    from aggregator.audit.report_audit import audit
    from aggregator.report.files import read_report_file
    from data_contracts.protocol.trust_anchor import load_trust_anchor

    report = read_report_file(file)
    claims = audit(report.bundle, load_trust_anchor(trust), adapter, report.page)
    styles = {"pass": "green", "fail": "bold red", "not checked": "yellow"}
    table = Table("claim", "outcome", "detail")
    for claim in claims:
        table.add_row(claim.name, Text(claim.outcome, styles[claim.outcome]), claim.detail)
    console.print(table)
    failed = [claim for claim in claims if claim.outcome == "fail"]
    say(console, f"{len(failed)} of {len(claims)} claims fail" if failed else "no claim fails")
    raise typer.Exit(1 if failed else 0)


@report_app.command("export")
def report_export(
    file: Annotated[
        Path, typer.Argument(parser=values.existing_file, help="Report as JSON or HTML page.")
    ],
    into: Annotated[Path, typer.Option(parser=values.file_to_write, help="Archive to write.")],
) -> None:
    """Pack a round's records into one archive."""
    from flows.round.round_operations import export_report

    export_report(file, into)
    say(console, f"written {into}")


@app.command()
def backup(out: Out, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Write what of the home cannot be made again into one new file; rounds may run."""
    from aggregator.settings.federation import load_settings
    from aggregator.upkeep.backup import back_up_coordinator
    from infra.backup.display import say_backup
    from infra.clock import SystemClock

    secret = values.passphrase(passphrase_file)
    say_backup(console, back_up_coordinator(load_settings(home), out, SystemClock().now(), secret))


@app.command()
def restore(file: BackupFile, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Put a backup into a new home, or back into its own; what was seen is never lowered."""
    from aggregator.upkeep.backup import restore_coordinator
    from infra.backup.display import say_restored
    from infra.clock import SystemClock

    secret = values.passphrase(passphrase_file)
    say_restored(console, restore_coordinator(file, home, SystemClock().now(), secret), home)
    say(console, "Never run it on two machines. How far rounds had come is read in storage by")
    say_command(console, "consortia", "round", "status", "--home", home.resolve())


@app.command()
def demo(
    state: Annotated[
        Path, typer.Option(parser=values.directory, help="Everything the demo writes.")
    ] = Path(".consortia"),
    keep: Annotated[bool, typer.Option(help="Leave storage, Prefect and agents up.")] = False,
) -> None:
    """Three institutions, two rounds, one machine: the whole product in a few minutes."""
    from flows.demo.driver import run_demo

    run_demo(state.resolve(), keep=keep, console=console)


def main() -> None:
    """Entry point."""
    run_command_line(app)


if __name__ == "__main__":
    main()
