"""`silo-agent export --personal DIR`: the personal adapter for use in the institution."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import SiloOperatorError
from infra import command_values as values
from infra.terminal import plain_console, say
from silo_agent.command_options import HERE, Home
from silo_agent.config import load_config

console = plain_console()

Folder = Annotated[
    Path,
    typer.Option(
        "--personal", parser=values.directory, help="New folder for this silo's personal adapter."
    ),
]


def export(personal: Folder, home: Home = HERE) -> None:
    """Write this silo's newest personal adapter into a folder that plain PEFT loads; the agent may
    run. Nothing is sent anywhere.

    In a run with the rule shared_a that is the A of all with this silo's own B."""
    from silo_agent.personal.export import export_own, export_personal, newest_exported
    from silo_agent.personal.own_factors import OwnAdapter
    from silo_agent.personal.told import losses_words, made_for_words, own_words

    config = load_config(home)
    into = personal.expanduser().absolute()
    if into.resolve().is_relative_to(config.home):
        raise SiloOperatorError(
            "folder for the personal adapter",
            expected="one outside of the agent's home, in which only the agent writes",
            found=f"{into}",
            action="name another folder",
        )
    adapter = newest_exported(config.home)
    if adapter is None:
        raise SiloOperatorError(
            "personal adapter",
            expected="one that a round of this silo has made",
            found="none yet",
            action='set method = "dual" or "ditto" under [personal] in silo-agent.toml and take '
            "part in a round; one is made after each submission, or by `silo-agent personalise`. "
            "In a run with the rule shared_a take part in a round that is published, and have the "
            "agent look once after that",
        )
    try:
        if isinstance(adapter, OwnAdapter):
            export_own(adapter, into)
            words = own_words(adapter)
        else:
            export_personal(adapter, into)
            words = f"{made_for_words(adapter.facts)}: {losses_words(adapter.facts)}"
    except OSError as error:
        raise SiloOperatorError(
            "export of the personal adapter",
            expected=f"permission to read {into}, and files that stay while they are copied",
            found=error.strerror or type(error).__name__,
            action="give that permission, or try again where the agent has just pruned",
        ) from error
    say(console, words)
    say(console, f"written into {into}; read README.md there. It is made of this silo's records:")
    say(console, "keep it where they may be.")
