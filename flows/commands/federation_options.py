"""The options of `consortia federation`, each with its parser."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from data_contracts.limits import MAX_COUNT, MAX_ROOT_KEYS, MAX_ROUND
from infra import command_values as values

Home = Annotated[
    Path,
    Option(
        parser=values.directory, help="The federation's home directory.", envvar="CONSORTIA_HOME"
    ),
]
HERE = Path()
"""The home, where nothing else is said."""
Stack = Annotated[
    Path | None,
    Option(
        parser=values.existing_directory,
        help="Directory of the embedded stack, if that is what you use.",
    ),
]
RootKeys = Annotated[
    list[Path] | None,
    Option(
        "--root-key",
        parser=values.existing_file,
        help="A root key that is not in keys/; once for each.",
    ),
]

FederationId = Annotated[str, Option(parser=values.federation_id, help="Id of the federation.")]
Purpose = Annotated[
    str, Option(parser=values.line, help="What the model is for; silos agree to it.")
]
Model = Annotated[
    Path, Option(parser=values.model_directory, help="Directory of the base model (safetensors).")
]
ModelName = Annotated[str, Option(parser=values.model_name, help="Name of the base model.")]
ModelLicence = Annotated[str, Option(parser=values.model_licence, help="SPDX id of its licence.")]
FirstRun = Annotated[str, Option(parser=values.run_id, help="Id of the first run.")]
EndpointUrl = Annotated[
    str | None, Option(parser=values.endpoint_url, help="S3 endpoint, without --stack.")
]
AllowPlainHttp = Annotated[
    bool, Option("--allow-plain-http", help="Where the network below is encrypted.")
]
PrefectApiUrl = Annotated[
    str | None,
    Option(
        parser=values.prefect_api_url,
        help="Prefect API; default: that of --stack, else port 4200 here.",
    ),
]
ModelHubId = Annotated[
    str | None,
    Option(parser=values.hub_id, help="Where an adapter's user can have it: organisation/name."),
]

Silo = Annotated[str, Option(parser=values.silo_id, help="Id of the silo.")]
PublicKey = Annotated[
    str, Option(parser=values.public_key, help="As printed by `silo-agent init`.")
]
SiloRecipient = Annotated[
    str | None,
    Option(
        parser=values.recipient,
        help="age recipient that adapters for the silo are encrypted to, as printed with its key.",
    ),
]
ContractFile = Annotated[
    Path, Option(parser=values.existing_file, help="The silo's data contract (ODCS YAML).")
]
InstitutionName = Annotated[
    str | None,
    Option(
        "--name", parser=values.institution_name, help="The institution's name, as reports show it."
    ),
]
FromRound = Annotated[
    int | None,
    Option(min=1, max=MAX_ROUND, help="First round that it counts in; default: the next plan."),
]
LeavingRound = Annotated[
    int | None, Option(min=1, max=MAX_ROUND, help="First round without it; default: the next plan.")
]

NewCoordinatorKey = Annotated[
    bool, Option("--coordinator", help="A new key for the coordinator, made here.")
]
NewCoordinatorRecipient = Annotated[
    bool,
    Option(
        "--coordinator-recipient",
        help="A new age identity for the coordinator, or its first one, made here.",
    ),
]
RotatedSilo = Annotated[
    str | None,
    Option(parser=values.silo_id, help="The silo that --public-key and --recipient belong to."),
]
NewSiloKey = Annotated[str | None, Option(parser=values.public_key, help="The silo's new key.")]
AddRoot = Annotated[
    list[str] | None, Option(parser=values.public_key, help="Public key of a signer who joins.")
]
RemoveRoot = Annotated[
    list[str] | None,
    Option(parser=values.public_key, help="Public key of a signer who leaves, or lost it."),
]
Threshold = Annotated[
    int | None,
    Option(min=1, max=MAX_ROOT_KEYS, help="How many root keys have to sign from now on."),
]

RevokedCoordinatorKey = Annotated[
    bool, Option("--coordinator", help="The coordinator's key; a new one is made here.")
]
LastEntry = Annotated[
    int | None, Option(min=0, max=MAX_COUNT, help="Last entry of the feed that is genuine.")
]
GenuineClose = Annotated[
    str | None, Option(parser=values.digest, help="Digest of the close there that is genuine.")
]
GenuineDecision = Annotated[
    str | None, Option(parser=values.digest, help="Digest of the decision that is.")
]
RevokedSilo = Annotated[
    str | None, Option(parser=values.silo_id, help="The silo whose key is revoked.")
]
KeyAfterRevocation = Annotated[
    str | None,
    Option(parser=values.public_key, help="The silo's new key; without it the silo leaves."),
]
EarlierKey = Annotated[
    str | None,
    Option(
        parser=values.key_or_fingerprint,
        help="A key in use no more, or its fingerprint; say one that was rotated.",
    ),
]

NewKeyFile = Annotated[
    Path, Argument(parser=values.file_to_write, help="File to make; keep it offline.")
]
DraftFile = Annotated[Path, Argument(parser=values.existing_file, help="Draft of a membership.")]
SignersKey = Annotated[Path, Option(parser=values.existing_file, help="The signer's root key.")]
KnownMembership = Annotated[
    Path, Option(parser=values.existing_file, help="The membership that the signer knows.")
]
SignedDraft = Annotated[
    Path, Argument(parser=values.existing_file, help="Draft that enough root keys have signed.")
]
