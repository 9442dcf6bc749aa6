"""`consortia stack ...`: the embedded storage and Prefect, and who has to follow their ports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_contracts.limits import HIGHEST_PORT
from flows.commands.federation_options import HERE, Home
from infra import command_values as values
from infra.terminal import plain_console, say, say_command

if TYPE_CHECKING:
    from infra.stack.stack_ports import StackPorts

stack_app = typer.Typer(no_args_is_help=True, help="Embedded storage and Prefect, on loopback.")
console = plain_console()

State = Annotated[Path, typer.Option(parser=values.existing_directory, help="As given to start.")]


@stack_app.command("start")
def stack_start(
    state: Annotated[
        Path, typer.Option(parser=values.directory, help="Where the stack keeps its data.")
    ],
    s3_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=HIGHEST_PORT,
            help="S3 port; default: that of the last start, else 8333. 0: any free one.",
        ),
    ] = None,
    prefect_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=HIGHEST_PORT,
            help="Prefect port; default: that of the last start, else 4200. 0: any.",
        ),
    ] = None,
) -> None:
    """Start SeaweedFS and a Prefect server on loopback and leave them running."""
    from infra.stack.local_stack import auth_path, start_stack
    from infra.stack.stack_ports import ports_for, remembered_ports

    state = state.resolve()
    before, wanted = remembered_ports(state), ports_for(state, s3_port, prefect_port)
    storage, prefect = start_stack(state, wanted.s3, wanted.prefect, keep=True)
    say(console, f"S3       {storage.endpoint_url}")
    say(console, f"Prefect  {prefect.ui_url} (log in with the text of {auth_path(state)})")
    _tell_followers(state, before, remembered_ports(state))
    say(console, "Stop it with")
    say_command(console, "consortia", "stack", "stop", "--state", state)


def _tell_followers(state: Path, before: "StackPorts | None", now: "StackPorts | None") -> None:
    """After a start on other ports, say which files hold the old ones."""
    if before is None or now is None or before == now:
        return
    say(console, "The ports are others than at the last start. Each federation of this stack needs")
    say_command(console, "consortia", "stack", "use", "--state", state, "--home", "HOME")
    say(console, "and the silo-agent.toml of each of its silos, under [storage]:")
    say(console, f'  endpoint_url = "{now.endpoint_url}"')


@stack_app.command("stop")
def stack_stop(state: State) -> None:
    """Stop every process that was started with this state directory, and no other."""
    from infra.stack.local_stack import stop_recorded

    stopped = stop_recorded(state.resolve())
    say(console, f"stopped: {', '.join(stopped) or 'nothing was running'}")


@stack_app.command("use")
def stack_use(state: State, home: Home = HERE) -> None:
    """Write the stack's addresses and password file into a federation's settings."""
    from flows.federation.stack_settings import use_stack

    for line in use_stack(home, state):
        say(console, line)


@stack_app.command("rotate")
def stack_rotate(
    who: Annotated[
        str, typer.Argument(parser=values.role, help="`coordinator`, or the id of a silo.")
    ],
    state: State,
    home: Home = HERE,
    revoke_old: Annotated[
        bool, typer.Option("--revoke-old", help="End the credential before the newest one.")
    ] = False,
) -> None:
    """Change a storage credential without a stop: a new one beside the old, then --revoke-old."""
    from flows.federation.stack_rotation import revoke, rotate

    step = revoke if revoke_old else rotate
    say(console, *step(home.resolve(), state.resolve(), who))
