"""`silo-agent`: what a silo operator types. Every fault ends in one message and a non-zero exit."""

import logging
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from data_contracts.dataset.contract import DataContract
from data_contracts.dsse import fingerprint
from data_contracts.errors import SiloOperatorError
from data_contracts.program_version import program_version
from data_contracts.records.status import Status
from infra import command_values as values
from infra.backup_options import BackupFile, Out, PassphraseFile
from infra.clock import SystemClock
from infra.home_restore import is_restored, require_reading
from infra.signing_keys import load_key
from infra.storage_probe import require_promises
from infra.terminal import COMMAND_INDENT, command_line, plain_console, run_command_line, say
from silo_agent.assembly import assemble_silo, contract_gate, own_inbox
from silo_agent.check_display import check_with_progress, print_view, show_page
from silo_agent.compression.residual_state import ErrorFeedback
from silo_agent.config import MAX_RANKS, Device, SiloConfig, load_config
from silo_agent.gate_outcome import GateOutcome
from silo_agent.kill_switch import KillSwitch
from silo_agent.loop import only_agent, run_agent, running_agent
from silo_agent.marks import forget_clock
from silo_agent.readiness import refusals
from silo_agent.readiness_display import show_items
from silo_agent.readiness_facts import look
from silo_agent.readiness_machine import machine
from silo_agent.readiness_papers import papers
from silo_agent.sent_adapter import STATE_DIRECTORY
from silo_agent.status_reporter import STATUS_NAME
from silo_agent.steward_view import steward_view
from silo_agent.storage_wait import probe_when_reachable
from silo_agent.templates import LocalModel

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = plain_console()
log = logging.getLogger("silo-agent")

Home = Annotated[
    Path,
    typer.Option(
        parser=values.directory, help="The agent's home directory.", envvar="SILO_AGENT_HOME"
    ),
]
HERE = Path()
STOP_WAIT_SECONDS = 60


def device_name(text: str) -> str:
    """Where a silo trains."""
    return str(values.parsed(Device, text.lower(), "cpu or cuda"))


@app.command()
def init(
    silo: Annotated[
        str,
        typer.Option(parser=values.silo_id, help="Id of this silo, as agreed with the operator."),
    ],
    federation: Annotated[
        str, typer.Option(parser=values.federation_id, help="Id of the federation.")
    ],
    endpoint_url: Annotated[
        str,
        typer.Option(parser=values.endpoint_url, help="S3 endpoint of the federation's storage."),
    ],
    home: Home = HERE,
    purpose: Annotated[
        str | None,
        typer.Option(
            parser=values.line, help="The federation's purpose, if this silo agrees to it."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            parser=values.model_directory,
            help="Directory of the base model that may be trained here.",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(parser=values.model_name, help="Its name; default: that of --model."),
    ] = None,
    model_licence: Annotated[
        str | None, typer.Option(parser=values.model_licence, help="SPDX id of its licence.")
    ] = None,
    device: Annotated[str, typer.Option(parser=device_name, help="cpu or cuda")] = "cpu",
    ranks: Annotated[int, typer.Option(min=1, max=MAX_RANKS, help="Training processes.")] = 2,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Where the network below is encrypted.")
    ] = False,
) -> None:
    """Create keys, configuration, a draft of the contract, a policy that refuses everything until
    it is edited, and NEXT-STEPS.md."""
    from silo_agent.new_home import NewSilo, create_home, require_new
    from silo_agent.next_steps import CHECKLIST_NAME, check_command

    if (model is None) != (not model_licence):
        raise typer.BadParameter("give --model and --model-licence together, or neither")
    values.require_private(endpoint_url, allow_plain_http=allow_plain_http)
    require_new(home)
    allowed = _local_model(model, model_name, model_licence) if model and model_licence else None
    new = NewSilo(
        silo, federation, endpoint_url, purpose or "", allowed, device, ranks, allow_plain_http
    )
    config, key = create_home(home, new)
    say(console, f"public key   {key.public_key_hex}")
    say(console, f"fingerprint  {fingerprint(key.public_key_hex)}")
    say(console, "Give the public key to the federation operator and compare the fingerprint.")
    say(console, f"Next: data, contract and policy, step by step in {config.home / CHECKLIST_NAME}")
    say(console, "What is there and what is missing is said by")
    say(console, COMMAND_INDENT + check_command(config))


def _local_model(path: Path, name: str | None, licence: str) -> LocalModel:
    from infra.model_files import model_digest

    path = path.resolve()
    return LocalModel(name or path.name, licence, model_digest(path), path)


@app.command()
def key(home: Home = HERE) -> None:
    """Print the public key that the federation operator adds this silo with."""
    config = load_config(home)
    say(console, load_key(config.path(config.keys.signing)).public_key_hex)


@app.command()
def accept(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=values.existing_directory,
            help="Folder that the federation operator handed over.",
        ),
    ],
    home: Home = HERE,
) -> None:
    """Put membership, storage credential and agreement where the agent looks for them."""
    from silo_agent.hand_over import accept_hand_over, fingerprints_of
    from silo_agent.next_steps import check_command, sign_command

    config = load_config(home)
    membership = accept_hand_over(config, folder)
    say(console, f"membership {membership.number} of {membership.federation}")
    for who, what in fingerprints_of(membership):
        say(console, f"{who:<12} {what}")
    say(console, "Compare these with the federation operator by telephone. Then sign, and check:")
    say(console, COMMAND_INDENT + sign_command(config))
    say(console, COMMAND_INDENT + check_command(config))


@app.command()
def check(
    home: Home = HERE,
    model: Annotated[
        Path | None,
        typer.Option(parser=values.model_directory, help="Print the digest of this model."),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data", help="The data contract alone, as its steward does.")
    ] = False,
    storage: Annotated[bool, typer.Option(help="Also probe the storage's promises.")] = True,
    open_page: Annotated[
        bool, typer.Option("--open", help="Write the steward's page and open it in a browser.")
    ] = False,
) -> None:
    """Say for everything that a round needs whether it is there, and what to do next; exit 1 if a
    round would be refused. Takes part in nothing."""
    if model is not None:
        from infra.model_files import model_digest

        say(console, model_digest(model))
        return
    config = load_config(home)
    if data:
        _require_passed(_check_data(config, open_page=open_page))
        return
    facts = look(config, SystemClock().now(), storage=storage)
    items = [*papers(facts), *machine(facts)]
    show_items(console, items)
    readable = isinstance(facts.contract, DataContract)
    outcome = _check_data(config, open_page=open_page) if readable else None
    if refused := refusals(items):
        broken = ["data contract"] if outcome is not None and not outcome.passed else []
        raise SiloOperatorError(
            "readiness of the silo",
            expected="everything that a round needs",
            found=f"missing or wrong: {', '.join([*refused, *broken])}",
            action="do what is named above as next, from the top; rounds are refused until then",
        )
    if outcome is not None:
        _require_passed(outcome)


def _check_data(config: SiloConfig, *, open_page: bool) -> GateOutcome:
    gate = contract_gate(config)
    outcome = check_with_progress(gate, console)
    view = steward_view(gate, outcome)
    print_view(view, console)
    if open_page:
        show_page(view, config.home, console)
    return outcome


def _require_passed(outcome: GateOutcome) -> None:
    if not outcome.passed:
        raise SiloOperatorError(
            "data contract",
            expected="every critical rule to hold",
            found=", ".join(
                o.rule for o in outcome.outcomes if not o.success and o.severity == "critical"
            ),
            action="correct the data or the contract; rounds are refused until then",
        )


@app.command()
def run(
    home: Home = HERE,
    once: Annotated[bool, typer.Option(help="End after one round.")] = False,
    clear_stop: Annotated[bool, typer.Option(help="Turn the kill switch off first.")] = False,
) -> None:
    """Take part in rounds until stopped."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="%H:%M:%S",
        handlers=[_log_handler()],
    )
    config = load_config(home)
    switch = KillSwitch(config.home)
    if clear_stop:
        switch.turn_off()
    if switch.is_on():
        clear = command_line("silo-agent", "run", "--clear-stop", "--home", config.home)
        raise SiloOperatorError(
            "kill switch",
            expected="off",
            found=f"{config.home}/STOP",
            action=f"run `{clear}` when the silo may take part again",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    silo = assemble_silo(home)
    found = probe_when_reachable(own_inbox(config), silo.clock, silo.is_stopped, role=config.silo)
    if found is not None:
        require_promises(found)
    log.info("agent of %s in %s: waiting for plans; Ctrl-C ends it", config.silo, config.federation)
    run_agent(silo, once=once)


def _log_handler() -> logging.Handler:
    """Pretty in a terminal, plain lines in a log file; libraries only when they warn."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda r: r.name == "silo-agent" or r.levelno >= logging.WARNING)
    return handler


@app.command()
def status(home: Home = HERE) -> None:
    """Show whether the agent runs and what it last did."""
    config = load_config(home)
    pid = running_agent(config.home)
    say(console, f"agent   {'runs as process ' + str(pid) if pid else 'does not run'}")
    say(console, f"version {program_version()}")
    say(console, f"switch  {'STOP' if KillSwitch(config.home).is_on() else 'off'}")
    if is_restored(config.home):
        say(console, "home    restored: what was signed since is read in storage first")
    path = config.home / STATUS_NAME
    if path.exists():
        shown = Status.model_validate_json(path.read_bytes())
        say(
            console,
            f"last    round {shown.round} attempt {shown.attempt}: {shown.progress}, "
            f"at {shown.issued_at:%Y-%m-%d %H:%M:%S} UTC",
        )


@app.command()
def stop(home: Home = HERE) -> None:
    """Turn the kill switch on: ends training at once, and but for that word nothing leaves."""
    config = load_config(home)
    KillSwitch(config.home).turn_on()
    deadline = time.monotonic() + STOP_WAIT_SECONDS
    while (pid := running_agent(config.home)) is not None:
        if time.monotonic() > deadline:
            raise SiloOperatorError(
                "agent",
                expected=f"an end within {STOP_WAIT_SECONDS} s",
                found=f"process {pid} still runs; nothing can leave it",
                action=f"kill {pid}",
            )
        time.sleep(0.2)
    say(console, "The agent has stopped; the kill switch stays on.")


@app.command()
def disk(
    home: Home = HERE,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the surplus; a running agent does so itself.")
    ] = False,
) -> None:
    """Show what lies in the agent's home, until when it stays, and what no round needs."""
    from silo_agent.disk_command import prune_disk, show_silo_disk

    silo = assemble_silo(home)
    if prune:
        say(console, prune_disk(silo))
    show_silo_disk(console, silo)


@app.command("forget-clock")
def forget_clock_command(home: Home = HERE) -> None:
    """Forget the latest instant that this machine's clock has shown, when that was wrong."""
    config = load_config(home)
    forgotten = forget_clock(config.home)
    say(console, f"forgotten  {forgotten:%Y-%m-%d %H:%M:%S} UTC" if forgotten else "none was kept")
    say(console, f"now        {SystemClock().now():%Y-%m-%d %H:%M:%S} UTC: compare it with a watch")


@app.command("reset-error-feedback")
def reset_error_feedback(
    run: Annotated[
        str, typer.Argument(parser=values.run_id, help="Run whose unsent residuals are forgotten.")
    ],
    home: Home = HERE,
) -> None:
    """Forget what compression left unsent, say after restoring a backup; the next round starts
    from none."""
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


@app.command()
def backup(out: Out, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Write what of the home cannot be made again into one new file; the agent may run."""
    from infra.backup_display import say_backup
    from silo_agent.backup import back_up_silo

    secret = values.passphrase(passphrase_file)
    say_backup(console, back_up_silo(load_config(home), out, SystemClock().now(), secret))


@app.command()
def restore(file: BackupFile, home: Home = HERE, passphrase_file: PassphraseFile = None) -> None:
    """Put a backup into a new home, or back into its own; what was seen is never lowered."""
    from infra.backup_display import say_restored
    from silo_agent.backup import restore_silo
    from silo_agent.next_steps import check_command

    secret = values.passphrase(passphrase_file)
    say_restored(console, restore_silo(file, home, SystemClock().now(), secret), home)
    say(console, "Never run it on two machines. The agent first reads in storage what it signed")
    say(console, "since then. What is there and what is missing is said by")
    say(console, COMMAND_INDENT + check_command(load_config(home)))


@app.command("catch-up")
def catch_up_command(home: Home = HERE) -> None:
    """Have the agent take over what this silo has signed on another machine, which has stopped for
    good: it reads that in storage before it signs anything."""
    config = load_config(home)
    with only_agent(config.home):
        require_reading(config.home, SystemClock().now())
    say(console, "The agent will read in storage what this silo has signed, then go on.")


def main() -> None:
    """Entry point."""
    run_command_line(app)


if __name__ == "__main__":
    main()
