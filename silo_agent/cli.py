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
from data_contracts.errors import SiloOperatorError
from infra import command_values as values
from infra.clock import SystemClock
from infra.storage.probe import require_promises
from infra.terminal import plain_console, run_command_line, say
from silo_agent.assembly import assemble_silo, own_inbox
from silo_agent.command_options import HERE, Home
from silo_agent.compare_command import compare
from silo_agent.config import SiloConfig, load_config
from silo_agent.federation.storage_wait import probe_when_reachable
from silo_agent.first_day.commands import accept, init, key
from silo_agent.gate.check_display import check_shown, require_passed
from silo_agent.gate.contract_gate import contract_gate
from silo_agent.gate.outcome import GateOutcome
from silo_agent.home.commands import home_app
from silo_agent.leaks.rules import too_few_fault
from silo_agent.loop import run_agent, running_agent
from silo_agent.metrics.chosen import require_metrics
from silo_agent.personal.commands import export
from silo_agent.personalise_command import personalise
from silo_agent.privacy_command import privacy
from silo_agent.readiness.base_model import judged_model
from silo_agent.readiness.checklist import refusals
from silo_agent.readiness.display import show_items
from silo_agent.readiness.facts import look
from silo_agent.readiness.machine import machine
from silo_agent.readiness.papers import papers
from silo_agent.readiness.plan_command import plan
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.watching.agent_view import said_lines, view_agent
from silo_agent.watching.follow import follow_agent
from silo_agent.watching.steward_figures import steward_figures

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = plain_console()
log = logging.getLogger("silo-agent")

for elsewhere in (init, key, accept, plan, personalise, export, privacy, compare):
    app.command()(elsewhere)

STOP_WAIT_SECONDS = 60


@app.command()
def check(
    home: Home = HERE,
    model: Annotated[
        Path | None,
        typer.Option(
            parser=values.model_directory, help="Judge this model alone, and print its digest."
        ),
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
        say(console, *judged_model(model))
        return
    config = load_config(home)
    if data:
        require_passed(_checked(config, open_page=open_page))
        return
    facts = look(config, SystemClock().now(), storage=storage)
    items = [*papers(facts), *machine(facts)]
    show_items(console, items)
    readable = isinstance(facts.contract, DataContract)
    outcome = _checked(config, open_page=open_page) if readable else None
    _require_ready(refusals(items), outcome)
    if outcome is None:
        return
    fault = too_few_fault(outcome.train_records, outcome.heldout_records, facts.policy.leak_check)
    if fault is not None:
        raise fault


def _checked(config: SiloConfig, *, open_page: bool) -> GateOutcome:
    figures = steward_figures(config.home)
    return check_shown(contract_gate(config), console, figures, open_page=open_page)


def _require_ready(refused: list[str], outcome: GateOutcome | None) -> None:
    if refused:
        broken = ["data contract"] if outcome is not None and not outcome.passed else []
        raise SiloOperatorError(
            "readiness of the silo",
            expected="everything that a round needs",
            found=f"missing or wrong: {', '.join([*refused, *broken])}",
            action="do what is named above as next, from the top; rounds are refused until then",
        )
    if outcome is not None:
        require_passed(outcome)


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
    if clear_stop:
        KillSwitch(config.home).turn_off()
    KillSwitch(config.home).require_off()
    require_metrics(config.metrics, with_port=running_agent(config.home) is None)
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
def status(
    home: Home = HERE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until Ctrl-C; the agent is left alone.")
    ] = False,
) -> None:
    """Show whether the agent runs, what it last did, and what its ranks hold in memory."""
    config = load_config(home)
    if watch:
        follow_agent(config.home, console, SystemClock())
    else:
        say(console, *said_lines(view_agent(config.home)))


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


app.add_typer(home_app)


def main() -> None:
    """Entry point."""
    run_command_line(app)


if __name__ == "__main__":
    main()
