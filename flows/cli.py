"""`consortia`: what a federation operator, a compliance officer and a newcomer type.

Prefect is imported only by the commands that need it, after its environment is set.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.contract_commands import contract_app, registry_app
from flows.commands.federation_commands import federation_app
from flows.commands.federation_options import HERE, Home
from flows.commands.lineage_command import lineage
from flows.commands.report_commands import report_app
from flows.commands.round_commands import round_app
from flows.commands.stack_commands import stack_app
from flows.commands.storage_commands import storage_app, tell_untried
from flows.commands.unlearn_commands import unlearn_app
from infra import command_values as values
from infra.backup.options import BackupFile, Out, PassphraseFile
from infra.terminal import plain_console, run_command_line, say, say_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(federation_app, name="federation")
app.add_typer(round_app, name="round")
app.add_typer(report_app, name="report")
app.add_typer(stack_app, name="stack")
app.add_typer(storage_app, name="storage")
app.add_typer(contract_app, name="contract")
app.add_typer(registry_app, name="registry")
app.add_typer(unlearn_app, name="unlearn")
app.command()(lineage)
console = plain_console()


@app.command()
def deploy(
    home: Home = HERE,
    register_only: Annotated[bool, typer.Option(help="Register and end.")] = False,
) -> None:
    """Register the federation's deployment with Prefect and run what it schedules."""
    from aggregator.coordinator import load_coordinator
    from aggregator.upkeep.storage_check import check_storage
    from flows.deployment.prefect_settings import use_prefect_of
    from infra.storage.probe import require_promises

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
    mode: Annotated[
        str,
        typer.Option(
            parser=values.trust_mode,
            metavar="MODE",
            help="auditable, or confidential: five institutions, of which one drops out.",
        ),
    ] = "auditable",
    personal: Annotated[
        bool, typer.Option(help="Then each institution makes an adapter of its own: minutes more.")
    ] = False,
) -> None:
    """Three institutions, two rounds, one machine: the whole product in a few minutes."""
    from flows.demo.driver import run_demo
    from flows.demo.scenario import SCENARIOS

    scenario = replace(SCENARIOS[mode], makes_own=personal)
    run_demo(state.resolve(), keep=keep, console=console, scenario=scenario)


def main() -> None:
    """Entry point."""
    run_command_line(app)


if __name__ == "__main__":
    main()
