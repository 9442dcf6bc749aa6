"""`consortia contract` and `consortia registry`: what a data steward and a rights holder type."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.commands.federation_options import HERE
from infra import command_values as values
from infra.terminal import plain_console, say

contract_app = typer.Typer(no_args_is_help=True, help="Check, compare and sign data contracts.")
registry_app = typer.Typer(no_args_is_help=True, help="Make copyright registries from texts.")
console = plain_console()

ContractFile = Annotated[
    Path, typer.Argument(parser=values.existing_file, help="Data contract (ODCS YAML).")
]
MAX_DAYS = 36_500
EFFECT_STYLES = {"loosens": "bold red", "tightens": "green", "neither": "dim"}


@contract_app.command()
def lint(contract: ContractFile) -> None:
    """Read a contract as the gate would, and say in words what it allows."""
    from data_contracts.dataset.contract import load_contract
    from data_contracts.dataset.contract.summary import summary

    table = Table("term", "says", title=str(contract), title_justify="left")
    for term, says in summary(load_contract(contract)):
        table.add_row(term, says)
    console.print(table)
    say(console, "The contract is valid; it counts once silo and coordinator have signed it.")


@contract_app.command()
def diff(
    old: Annotated[
        Path, typer.Argument(parser=values.existing_file, help="The contract that was agreed to.")
    ],
    new: Annotated[
        Path,
        typer.Argument(parser=values.existing_file, help="The contract that should replace it."),
    ],
) -> None:
    """Say what changed and which changes loosen the contract; exit 1 if any does."""
    from data_contracts.dataset.contract import load_contract
    from data_contracts.dataset.contract.difference import difference

    changes = difference(load_contract(old), load_contract(new))
    if not changes:
        say(console, "No term changed.")
        return
    table = Table("term", "before", "after", "effect")
    for change in changes:
        effect = Text(change.effect, EFFECT_STYLES[change.effect])
        table.add_row(change.path, change.before, change.after, effect)
    console.print(table)
    loosened = sum(change.effect == "loosens" for change in changes)
    say(console, f"{loosened} of {len(changes)} changes loosen the contract")
    raise typer.Exit(1 if loosened else 0)


@contract_app.command()
def sign(
    contract: ContractFile,
    home: Annotated[
        Path,
        typer.Option(
            parser=values.existing_directory,
            help="Home directory of the federation, or of the silo's agent.",
        ),
    ] = HERE,
    silo: Annotated[
        str | None,
        typer.Option(parser=values.silo_id, help="Whose contract it is; at the federation only."),
    ] = None,
) -> None:
    """Sign a contract, as the silo or as the coordinator; the second signature puts it in force."""
    from flows.commands.next_steps import after_signing
    from flows.federation.contract_signing import put_into_hand_over, sign_contract

    agreement, signatures = sign_contract(contract, home, silo or "")
    hand_over = put_into_hand_over(agreement, home, silo or "")
    say(console, f"signed {agreement.resolve()}")
    say(console, *after_signing(signatures, agreement.resolve(), hand_over))


@registry_app.command("build")
def registry_build(
    texts: Annotated[
        list[Path],
        typer.Argument(parser=values.existing_file, help="Text files (UTF-8), a work each."),
    ],
    name: Annotated[
        str,
        typer.Option(
            parser=values.registry_name, help="Name of the registry, as contracts name it."
        ),
    ],
    rights_holder: Annotated[str, typer.Option(parser=values.line, help="Whose texts they are.")],
    federation: Annotated[
        str,
        typer.Option(parser=values.federation_id, help="Id of the federation that it is made for."),
    ],
    into: Annotated[
        Path, typer.Option(parser=values.directory, help="Directory for registry and keys.")
    ],
    days: Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Days until it expires.")] = 365,
) -> None:
    """Make a keyed registry of texts that must not be trained on; the texts stay where they are."""
    from flows.federation.registry_building import build_from_files

    built = build_from_files(texts, name, rights_holder, federation, into, timedelta(days=days))
    manifest = built.manifest.record
    tiles, width = manifest.tiles, manifest.words_per_tile
    say(console, f"tiles         {tiles} runs of {width} words, from {manifest.texts} texts")
    say(console, f"too short     {manifest.texts_without_tile} texts, which it cannot find")
    say(console, f"false finds   {manifest.error_rate * 100} % of runs that are not in it")
    say(console, f"expires       {manifest.expires_at:%Y-%m-%d}")
    say(console, f"signer        {built.signer}")
    say(console, f"Give {name}.manifest.json, {name}.bloom and {name}.key to the silos, and the")
    say(console, "signer to whoever writes their contracts. Never give the key to anybody else.")
