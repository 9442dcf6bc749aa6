"""What a federation operator does after a command, as lines to paste, with exact paths."""

from pathlib import Path

from aggregator.coordinator import CONTRACTS_DIRECTORY
from aggregator.settings.federation import FederationSettings
from data_contracts.dataset.contract.agreement import agreement_path
from infra.terminal import COMMAND_INDENT, command


def after_init(
    home: Path, federation: str, purpose: str, endpoint_url: str, model: Path, stack: Path | None
) -> list[str]:
    """From a new federation to its first round."""
    own_stack = ("--stack", stack) if stack else ()
    root_key = home / "keys" / "root-key.pem"
    init = ("--silo", "NAME", "--federation", federation, "--endpoint-url", endpoint_url)
    agreed = ("--purpose", purpose, "--model", "MODEL-FOLDER", "--model-licence", "LICENCE")
    add = ("--home", home, "--silo", "NAME", "--public-key", "KEY", "--recipient", "AGE")
    filed = ("--contract", "FILE")
    return [
        "Next, each institution makes its agent's home, and sends you key, recipient and contract:",
        command("silo-agent", "init", "--home", "NAME", *init, *agreed),
        "The base model has to be the same at every institution; its digest is printed by",
        command("silo-agent", "check", "--model", model),
        "Add each institution; this prints what to hand over and how the contract is signed:",
        command("consortia", "federation", "add-silo", *add, *filed, *own_stack),
        f"When all are added, move {root_key} offline. Then serve rounds and ask for one:",
        command("consortia", "deploy", "--home", home),
        command("consortia", "round", "start", "--home", home),
    ]


def after_add_silo(home: Path, silo: str, hand_over: Path) -> list[str]:
    """How the contract of a new silo gets both signatures, and what the silo is given."""
    filed = home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
    return [
        f"Read the contract of {silo}, then sign it; it counts with both signatures:",
        command("consortia", "contract", "lint", filed),
        command("consortia", "contract", "sign", filed, "--home", home, "--silo", silo),
        f"Hand {hand_over} to the operator of {silo} over a safe channel, who takes it with",
        command("silo-agent", "accept", hand_over, "--home", "HOME"),
        "and compares these fingerprints with you by telephone:",
        command("consortia", "federation", "show", "--home", home),
        f"What {silo} sends back, its agreement with both signatures, you put at",
        f"{COMMAND_INDENT}{agreement_path(filed)}",
    ]


def after_draft(draft: Path, missing: str, home: Path) -> list[str]:
    """Who has to sign a membership before it can be published."""
    sign = ("--root-key", "KEY", "--trust", home / "membership.json")
    return [
        f"Not published yet: {draft} lacks {missing}.",
        "Each signer signs it with a root key and the membership that the signer knows:",
        command("consortia", "federation", "sign", draft, *sign),
        "Then publish it:",
        command("consortia", "federation", "publish", draft, "--home", home),
    ]


def after_signing(signatures: int, agreement: Path, hand_over: Path | None) -> list[str]:
    """What the other side still has to do; `hand_over` is None at a silo."""
    in_force = "Silo and coordinator have both signed: the contract is in force"
    if signatures == 2 and hand_over is None:
        return [f"{in_force} here.", f"Give {agreement} back to the other side."]
    if signatures == 2:
        return [f"{in_force}.", f"The agreement is in {hand_over} too, for the silo."]
    if hand_over is None:
        return [f"Give contract and agreement to the other side, which signs too: {agreement}"]
    return [f"It is in {hand_over} too: hand that over, so that the silo signs as well."]


def after_round_start(
    settings: FederationSettings, round_number: int | None, flow_run: str
) -> list[str]:
    """How to follow a round that was asked for; its number is None where storage did not say."""
    until = ("--round", round_number) if round_number is not None else ()
    page = settings.prefect.api_url.removesuffix("/").removesuffix("/api")
    return [
        f"Prefect's page of it: {page}/runs/flow-run/{flow_run}",
        "Follow the round with",
        command("consortia", "round", "watch", "--home", settings.home, *until),
    ]
