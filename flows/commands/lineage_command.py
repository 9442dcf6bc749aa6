"""`consortia lineage`: which rounds, silos, contracts and base model stand behind an adapter."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.federation_options import HERE, Home
from infra.terminal import plain_console, say

console = plain_console()


def lineage(
    adapter: Annotated[
        str | None,
        typer.Argument(help="Its digest, or the first digits of it, or the file itself."),
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
    file = c.published / WEIGHTS_NAME if adapter is None else Path(adapter)
    if adapter is None and not file.is_file():
        raise FederationOperatorError(
            "lineage",
            expected="a published adapter",
            found=f"nothing in {c.published}",
            action="name its digest or its file",
        )
    digits = artifact_of_file(file).digest if file.is_file() else str(adapter)
    found = read_lineage(c, digits)
    if as_json:
        say(console, json.dumps(lineage_json(found), indent=2))
    else:
        console.print(lineage_tree(found))
