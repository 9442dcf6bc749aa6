"""`silo-agent init | key | accept`: what a silo operator types once, before the first round."""

from pathlib import Path
from typing import Annotated

import typer

from data_contracts.protocol.dsse import fingerprint
from infra import command_values as values
from infra.encryption.identities import Identity, load_identity, rotate_identity
from infra.signing_keys import SigningKey, load_key
from infra.terminal import COMMAND_INDENT, plain_console, say
from silo_agent.command_options import HERE, Home
from silo_agent.config import MAX_RANKS, Device, SiloConfig, load_config
from silo_agent.first_day.templates import LocalModel

console = plain_console()


def device_name(text: str) -> str:
    """Where a silo trains."""
    return str(values.parsed(Device, text.lower(), "cpu or cuda"))


SiloId = Annotated[
    str, typer.Option(parser=values.silo_id, help="Id of this silo, as agreed with the operator.")
]
FederationId = Annotated[
    str, typer.Option(parser=values.federation_id, help="Id of the federation.")
]
EndpointUrl = Annotated[
    str, typer.Option(parser=values.endpoint_url, help="S3 endpoint of the federation's storage.")
]
Purpose = Annotated[
    str | None,
    typer.Option(parser=values.line, help="The federation's purpose, if this silo agrees to it."),
]
ModelDirectory = Annotated[
    Path | None,
    typer.Option(
        parser=values.model_directory, help="Directory of the base model that may be trained here."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(parser=values.model_name, help="Its name; default: that of --model."),
]
ModelLicence = Annotated[
    str | None, typer.Option(parser=values.model_licence, help="SPDX id of its licence.")
]
DeviceName = Annotated[str, typer.Option(parser=device_name, help="cpu or cuda")]
Ranks = Annotated[int, typer.Option(min=1, max=MAX_RANKS, help="Training processes.")]
PlainHttp = Annotated[
    bool, typer.Option("--allow-plain-http", help="Where the network below is encrypted.")
]
ShowRecipient = Annotated[
    bool, typer.Option("--recipient", help="The age recipient that adapters are encrypted to.")
]
NewRecipient = Annotated[
    bool,
    typer.Option(
        "--new-recipient",
        help="Make a new age identity, or the first one, and print its recipient; "
        "earlier ones stay, for adapters that were encrypted to them.",
    ),
]
HandOver = Annotated[
    Path,
    typer.Argument(
        parser=values.existing_directory, help="Folder that the federation operator handed over."
    ),
]


def init(
    silo: SiloId,
    federation: FederationId,
    endpoint_url: EndpointUrl,
    home: Home = HERE,
    purpose: Purpose = None,
    model: ModelDirectory = None,
    model_name: ModelName = None,
    model_licence: ModelLicence = None,
    device: DeviceName = "cpu",
    ranks: Ranks = 2,
    allow_plain_http: PlainHttp = False,
) -> None:
    """Create keys, configuration, a draft of the contract, a policy that refuses everything until
    it is edited, and NEXT-STEPS.md."""
    from silo_agent.first_day.new_home import NewSilo, create_home, require_new

    if (model is None) != (not model_licence):
        raise typer.BadParameter("give --model and --model-licence together, or neither")
    values.require_private(endpoint_url, allow_plain_http=allow_plain_http)
    require_new(home)
    allowed = _local_model(model, model_name, model_licence) if model and model_licence else None
    new = NewSilo(
        silo, federation, endpoint_url, purpose or "", allowed, device, ranks, allow_plain_http
    )
    _say_made(*create_home(home, new))


def _say_made(config: SiloConfig, key: SigningKey, identity: Identity) -> None:
    from silo_agent.first_day.next_steps import CHECKLIST_NAME, check_command

    say(console, f"public key   {key.public_key_hex}")
    say(console, f"fingerprint  {fingerprint(key.public_key_hex)}")
    say(console, f"recipient    {identity.recipient}")
    say(console, "Give public key and recipient to the federation operator, and compare the")
    say(console, "fingerprint.")
    say(console, f"Next: data, contract and policy, step by step in {config.home / CHECKLIST_NAME}")
    say(console, "What is there and what is missing is said by")
    say(console, COMMAND_INDENT + check_command(config))


def _local_model(path: Path, name: str | None, licence: str) -> LocalModel:
    from infra.disk.model_files import model_digest

    path = path.resolve()
    return LocalModel(name or path.name, licence, model_digest(path), path)


def key(
    home: Home = HERE, recipient: ShowRecipient = False, new_recipient: NewRecipient = False
) -> None:
    """Print the public key that the federation operator adds this silo with, or the recipient."""
    config = load_config(home)
    identity = config.path(config.keys.identity)
    if new_recipient:
        say(console, rotate_identity(identity).recipient)
    elif recipient:
        say(console, load_identity(identity).recipient)
    else:
        say(console, load_key(config.path(config.keys.signing)).public_key_hex)


def accept(folder: HandOver, home: Home = HERE) -> None:
    """Put membership, storage credential and agreement where the agent looks for them."""
    from silo_agent.first_day.hand_over import accept_hand_over, fingerprints_of
    from silo_agent.first_day.next_steps import check_command, sign_command

    config = load_config(home)
    membership = accept_hand_over(config, folder)
    say(console, f"membership {membership.number} of {membership.federation}")
    for who, what in fingerprints_of(membership):
        say(console, f"{who:<12} {what}")
    say(console, "Compare these with the federation operator by telephone. Then sign, and check:")
    say(console, COMMAND_INDENT + sign_command(config))
    say(console, COMMAND_INDENT + check_command(config))
