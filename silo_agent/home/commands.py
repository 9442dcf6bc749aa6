"""`silo-agent disk | backup | restore ...`: what a home directory needs over the years."""

from typing import Annotated

import typer

from data_contracts.errors import SiloOperatorError
from infra import command_values as values
from infra.backup.home_restore import require_reading
from infra.backup.options import BackupFile, Out, PassphraseFile
from infra.clock import SystemClock
from infra.terminal import COMMAND_INDENT, command_line, plain_console, say
from silo_agent.assembly import assemble_silo
from silo_agent.command_options import HERE, Home
from silo_agent.compression.residual_state import ErrorFeedback
from silo_agent.compression.sent_adapter import STATE_DIRECTORY
from silo_agent.config import load_config
from silo_agent.federation.marks import forget_clock
from silo_agent.loop import only_agent, running_agent

home_app = typer.Typer()
console = plain_console()


@home_app.command()
def disk(
    home: Home = HERE,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the surplus; a running agent does so itself.")
    ] = False,
) -> None:
    """Show what lies in the agent's home, until when it stays, and what no round needs."""
    from silo_agent.home.disk_command import prune_disk, show_silo_disk

    silo = assemble_silo(home)
    if prune:
        say(console, prune_disk(silo))
    show_silo_disk(console, silo)


@home_app.command("forget-clock")
def forget_clock_command(home: Home = HERE) -> None:
    """Forget the latest instant that this machine's clock has shown, when that was wrong."""
    config = load_config(home)
    forgotten = forget_clock(config.home)
    say(console, f"forgotten  {forgotten:%Y-%m-%d %H:%M:%S} UTC" if forgotten else "none was kept")
    say(console, f"now        {SystemClock().now():%Y-%m-%d %H:%M:%S} UTC: compare it with a watch")


@home_app.command("reset-error-feedback")
def reset_error_feedback(
    run: Annotated[
        str, typer.Argument(parser=values.run_id, help="Run whose unsent residuals are forgotten.")
    ],
    home: Home = HERE,
) -> None:
    """Forget what compression left unsent; the next round starts from none. The agent does so by
    itself where what lies here is not what its last submission left, as after a restore."""
    config = load_config(home)
    if running_agent(config.home) is not None:
        raise SiloOperatorError(
            "error feedback",
            expected="an agent that does not run",
            found=f"process {running_agent(config.home)}",
            action=f"run `{command_line('silo-agent', 'stop', '--home', config.home)}` first",
        )
    ErrorFeedback(config.home / STATE_DIRECTORY, run).reset()
    say(console, f"The residuals of {run} are forgotten.")


@home_app.command()
def backup(out: Out, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Write what of the home cannot be made again into one new file; the agent may run."""
    from infra.backup.display import say_backup
    from silo_agent.home.backup import back_up_silo

    secret = values.passphrase(passphrase_file)
    say_backup(console, back_up_silo(load_config(home), out, SystemClock().now(), secret))


@home_app.command()
def restore(file: BackupFile, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Put a backup into a new home, or back into its own; what was seen is never lowered."""
    from infra.backup.display import say_restored
    from silo_agent.first_day.next_steps import check_command
    from silo_agent.home.backup import restore_silo

    secret = values.passphrase(passphrase_file)
    say_restored(console, restore_silo(file, home, SystemClock().now(), secret), home)
    say(console, "Never run it on two machines. The agent first reads in storage what it signed")
    say(console, "since then. What is there and what is missing is said by")
    say(console, COMMAND_INDENT + check_command(load_config(home)))


@home_app.command("catch-up")
def catch_up_command(home: Home = HERE) -> None:
    """Have the agent take over what this silo has signed on another machine, which has stopped for
    good: it reads that in storage before it signs anything."""
    config = load_config(home)
    with only_agent(config.home):
        require_reading(config.home, SystemClock().now())
    say(console, "The agent will read in storage what this silo has signed, then go on.")
