"""`silo-agent personalise`: this silo's own adapter for the newest published one, now."""

import signal
import sys
from contextlib import closing
from typing import Annotated

import typer

from data_contracts.errors import SiloOperatorError
from infra.terminal import COMMAND_INDENT, command_line, plain_console, say
from silo_agent.assembly import assemble_silo
from silo_agent.command_options import HERE, Home
from silo_agent.config import load_config
from silo_agent.loop import only_agent, running_agent
from silo_agent.personal.told import losses_words, made_for_words
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.steps.personalise_now import personalise_now

console = plain_console()

Steps = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="Training steps; default: as many as a round has."),
]


def personalise(home: Home = HERE, steps: Steps = None) -> None:
    """Train this silo's own adapter for the newest published one, while its agent does not run.
    What is allowed to be trained on is asked of the data contract as ever; nothing leaves."""
    config = load_config(home)
    KillSwitch(config.home).require_off()
    pid = running_agent(config.home)
    if pid is not None:
        raise SiloOperatorError(
            "personal adapter",
            expected="an agent that does not run meanwhile: one of them trains at a time",
            found=f"process {pid}",
            action="end it with Ctrl-C or where it is kept running, not by the kill switch, which "
            "ends every training; then try again, and start it again afterwards",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    silo = assemble_silo(config.home)
    with only_agent(config.home), silo.metrics, closing(silo.trainer):
        facts, is_new = personalise_now(silo, steps)
    say(console, f"{made_for_words(facts)}{'' if is_new else ', made before'}:")
    say(console, losses_words(facts))
    say(console, "It stays in this home. For use in the institution:")
    export = command_line("silo-agent", "export", "--personal", "own", "--home", config.home)
    say(console, COMMAND_INDENT + export)
