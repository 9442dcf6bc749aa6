"""The option that nearly every `silo-agent` command has."""

from pathlib import Path
from typing import Annotated

import typer

from infra import command_values as values

Home = Annotated[
    Path,
    typer.Option(
        parser=values.directory, help="The agent's home directory.", envvar="SILO_AGENT_HOME"
    ),
]
HERE = Path()
