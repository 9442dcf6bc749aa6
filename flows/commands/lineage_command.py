"""`consortia lineage`: which rounds, silos, contracts and base model stand behind an adapter."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.federation_options import HERE, Home
from infra import command_values as values
from infra.terminal import plain_console, say

console = plain_console()


def lineage(
    digits: Annotated[
        str | None,
        typer.Argument(
            parser=values.digest_start, help="Its digest, or the first eight digits or more."
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(parser=values.existing_file, help="adapter_model.safetensors in its place."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: Home = HERE,
) -> None:
    """Show what stands behind a published adapter; without one, behind that in `published`."""
    from aggregator.coordinator import load_coordinator
    from aggregator.lineage.reading import read_lineage
    from data_contracts.adapters.peft_config import WEIGHTS_NAME
    from data_contracts.errors import FederationOperatorError
    from data_contracts.protocol.artifact import artifact_of_file
    from flows.commands.lineage_display import lineage_json, lineage_tree

    c = load_coordinator(home)
    file = adapter or c.published / WEIGHTS_NAME
    if digits is None and not file.is_file():
        raise FederationOperatorError(
            "lineage",
            expected="a published adapter",
            found=f"nothing in {c.published}",
            action="name its digest or its file",
        )
    found = read_lineage(c, digits or artifact_of_file(file).digest)
    if as_json:
        say(console, json.dumps(lineage_json(found), indent=2))
    else:
        console.print(lineage_tree(found))
