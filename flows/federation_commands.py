"""`consortia federation`: founding, members who come and go, keys that are rotated or revoked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from infra.terminal import say

if TYPE_CHECKING:
    from aggregator.membership_changes import Change
    from flows.coordinator_keys import Genuine
    from flows.membership_signing import Draft, Published

federation_app = typer.Typer(
    no_args_is_help=True, help="Create a federation; add, remove and renew members and keys."
)
console = Console()

Home = Annotated[
    Path, typer.Option(help="The federation's home directory.", envvar="CONSORTIA_HOME")
]
Stack = Annotated[
    Path | None, typer.Option(help="Directory of the embedded stack, if that is what you use.")
]
RootKeys = Annotated[
    list[Path] | None,
    typer.Option("--root-key", help="A root key that is not in keys/; once for each."),
]
FromRound = Annotated[
    int | None, typer.Option(min=1, help="First round that it counts in; default: the next plan.")
]
HERE = Path()
DEFAULT_API_URL = "http://127.0.0.1:4200/api"


@federation_app.command("init")
def federation_init(
    federation: Annotated[str, typer.Option(help="Id of the federation.")],
    purpose: Annotated[str, typer.Option(help="What the model is for; silos agree to it.")],
    model: Annotated[Path, typer.Option(help="Directory of the base model (safetensors).")],
    model_name: Annotated[str, typer.Option(help="Name of the base model.")],
    model_licence: Annotated[str, typer.Option(help="SPDX id of its licence.")],
    home: Home = HERE,
    run: Annotated[str, typer.Option(help="Id of the first run.")] = "run-1",
    stack: Stack = None,
    endpoint_url: Annotated[str, typer.Option(help="S3 endpoint, without --stack.")] = "",
    prefect_api_url: Annotated[
        str, typer.Option(help="Prefect API; default: that of --stack, else port 4200 here.")
    ] = "",
) -> None:
    """Create keys, settings, buckets and the first membership."""
    from flows.federation_admin import FederationTerms, init_federation
    from flows.next_steps import after_init
    from infra.attached_storage import attach_prefect, attach_storage

    storage = attach_storage(stack) if stack else None
    prefect = attach_prefect(stack) if stack and not prefect_api_url else None
    terms = FederationTerms(
        federation=federation,
        run=run,
        purpose=purpose,
        model_name=model_name,
        model_licence=model_licence,
        model_path=model.resolve(),
        prefect_api_url=prefect.api_url if prefect else prefect_api_url or DEFAULT_API_URL,
        endpoint_url=storage.endpoint_url if storage else endpoint_url,
        prefect_auth=prefect.auth if prefect else Path("keys/prefect-auth"),
    )
    home = home.resolve()
    init_federation(home, terms, storage)
    say(console, f"Federation {federation} created in {home}.")
    stack = stack.resolve() if stack else None
    say(
        console, *after_init(home, federation, purpose, terms.endpoint_url, terms.model_path, stack)
    )


@federation_app.command("add-silo")
def federation_add_silo(
    silo: Annotated[str, typer.Option(help="Id of the silo.")],
    public_key: Annotated[str, typer.Option(help="As printed by `silo-agent init`.")],
    contract: Annotated[Path, typer.Option(help="The silo's data contract (ODCS YAML).")],
    home: Home = HERE,
    stack: Stack = None,
    from_round: FromRound = None,
    root_key: RootKeys = None,
) -> None:
    """Add a silo, or replace its key or contract; prints what to hand over."""
    from flows.federation_admin import add_silo
    from flows.next_steps import after_add_silo
    from infra.attached_storage import attach_storage

    home = home.resolve()
    storage = attach_storage(stack) if stack else None
    hand_over, outcome = add_silo(
        home, silo, public_key, contract, storage, from_round, root_key or ()
    )
    _tell(outcome, home)
    say(console, *after_add_silo(home, silo, hand_over))


@federation_app.command("remove-silo")
def federation_remove_silo(
    silo: Annotated[str, typer.Option(help="Id of the silo.")],
    home: Home = HERE,
    from_round: Annotated[
        int | None, typer.Option(min=1, help="First round without it; default: the next plan.")
    ] = None,
    root_key: RootKeys = None,
) -> None:
    """Let a silo leave; an attempt that is under way goes on with it."""
    from aggregator.membership_changes import without_silo

    _change(home, without_silo(silo, from_round), root_key)


@federation_app.command("renew")
def federation_renew(home: Home = HERE, root_key: RootKeys = None) -> None:
    """The same members and keys for another year."""
    from aggregator.membership_changes import renewed

    _change(home, renewed(), root_key)


@federation_app.command("rotate-key")
def federation_rotate_key(
    home: Home = HERE,
    coordinator: Annotated[
        bool, typer.Option("--coordinator", help="A new key for the coordinator, made here.")
    ] = False,
    silo: Annotated[str, typer.Option(help="The silo that --public-key belongs to.")] = "",
    public_key: Annotated[str, typer.Option(help="The silo's new key.")] = "",
    add_root: Annotated[
        list[str] | None, typer.Option(help="Public key of a signer who joins.")
    ] = None,
    remove_root: Annotated[
        list[str] | None, typer.Option(help="Public key of a signer who leaves, or lost it.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many root keys have to sign from now on.")
    ] = None,
    root_key: RootKeys = None,
) -> None:
    """Replace a key in good order: what the old one has begun, it finishes."""
    from aggregator.coordinator import load_coordinator
    from aggregator.membership_changes import with_root_keys, with_silo_key
    from flows.coordinator_keys import rotate_coordinator_key

    roots = bool(add_root or remove_root or threshold)
    if [coordinator, bool(silo), roots].count(True) != 1 or bool(silo) != bool(public_key):
        raise typer.BadParameter(
            "give one of --coordinator, --silo with --public-key, or --add-root, --remove-root "
            "and --threshold"
        )
    if coordinator:
        _tell(rotate_coordinator_key(load_coordinator(home), root_key or ()), home)
    elif silo:
        _change(home, with_silo_key(silo, public_key), root_key)
    else:
        _change(home, with_root_keys(add_root or (), remove_root or (), threshold), root_key)


@federation_app.command("revoke")
def federation_revoke(
    home: Home = HERE,
    coordinator: Annotated[
        bool, typer.Option("--coordinator", help="The coordinator's key; a new one is made here.")
    ] = False,
    last_entry: Annotated[
        int | None, typer.Option(min=0, help="Last entry of the feed that is genuine.")
    ] = None,
    close: Annotated[str, typer.Option(help="Digest of the close there that is genuine.")] = "",
    decision: Annotated[str, typer.Option(help="Digest of the decision that is.")] = "",
    silo: Annotated[str, typer.Option(help="The silo whose key is revoked.")] = "",
    public_key: Annotated[
        str, typer.Option(help="The silo's new key; without it the silo leaves.")
    ] = "",
    earlier: Annotated[
        str,
        typer.Option(help="A key in use no more, or its fingerprint; say one that was rotated."),
    ] = "",
    root_key: RootKeys = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """A key that somebody else may hold: nothing of it counts any more, at once."""
    from aggregator.coordinator import load_coordinator
    from aggregator.membership_changes import revoking_silo
    from flows.coordinator_keys import genuine_until, last_entry_of, named_key
    from flows.coordinator_keys import revoke_coordinator_key as revoke_current
    from flows.coordinator_keys import revoke_earlier_key as revoke_earlier

    if [coordinator, bool(silo), bool(earlier)].count(True) != 1:
        raise typer.BadParameter("give one of --coordinator, --silo and --earlier")
    if coordinator != (last_entry is not None) or (silo and (close or decision)):
        raise typer.BadParameter(
            "--coordinator needs --last-entry, and only it: `consortia federation show` has the "
            "number of entries, say which was your last; --close and --decision are not for --silo"
        )
    if bool(close) != bool(decision):
        raise typer.BadParameter("give --close and --decision together, or neither")
    if silo:
        _change(home, revoking_silo(silo, public_key or None), root_key)
        return
    c, named = load_coordinator(home), (close, decision) if close else None
    earlier = named_key(c, earlier) if earlier else ""
    last = last_entry_of(c, earlier) if earlier else last_entry
    genuine = None if last is None else genuine_until(c, last, named)
    if genuine is not None:
        _ask(genuine, yes=yes)
    if earlier or genuine is None:
        _tell(revoke_earlier(c, earlier, genuine, root_key or ()), home)
        return
    _tell(revoke_current(c, genuine, root_key or ()), home)
    say(console, "Replace the coordinator's storage credential too: whoever has the key may have")
    say(console, "that as well.")


def _ask(genuine: "Genuine", *, yes: bool) -> None:
    """Show what of a coordinator's key would still count, and have a person say that it is so."""
    last = genuine.after.number
    say(console, f"Of this key the feed counts up to entry {last}." if last else "Nothing counts.")
    if genuine.plan is not None:
        plan = genuine.plan.record
        say(console, f"It is the plan of round {plan.round} attempt {plan.attempt}, of which count")
        say(console, f"  the close     {genuine.close or 'none'}")
        say(console, f"  the decision  {genuine.decision or 'none: the round is tried again'}")
    if not yes:
        typer.confirm("Are these yours, and everything else nothing?", abort=True)


@federation_app.command("new-root-key")
def federation_new_root_key(
    into: Annotated[Path, typer.Argument(help="File to make; keep it offline.")],
) -> None:
    """Make a key for a signer; its public half is what `rotate-key --add-root` takes."""
    from infra.signing_keys import create_key

    say(console, create_key(into).public_key_hex)


@federation_app.command("sign")
def federation_sign(
    draft: Annotated[Path, typer.Argument(help="Draft of a membership.")],
    root_key: Annotated[Path, typer.Option(help="The signer's root key.")],
    trust: Annotated[Path, typer.Option(help="The membership that the signer knows.")],
) -> None:
    """Add a signature to a draft, and see what it changes."""
    from flows.membership_signing import sign_draft

    for line in sign_draft(draft, root_key, trust):
        say(console, line)
    say(console, f"signed: {draft}")


@federation_app.command("publish")
def federation_publish(
    draft: Annotated[Path, typer.Argument(help="Draft that enough root keys have signed.")],
    home: Home = HERE,
) -> None:
    """Publish a draft; everybody follows it from the next plan on."""
    from aggregator.coordinator import load_coordinator
    from flows.membership_signing import publish_draft

    _tell(publish_draft(load_coordinator(home), draft), home)


@federation_app.command("show")
def federation_show(
    home: Home = HERE,
) -> None:
    """Fingerprints to compare out of band."""
    from flows.federation_admin import describe

    rows = describe(home)
    width = max(len(who) for who, _ in rows)
    say(console, "Fingerprints are SHA-256 of the public key.")
    say(console, *(f"{who:<{width}}  {what}" for who, what in rows))


def _change(home: Path, change: "Change", root_keys: list[Path] | None) -> None:
    from aggregator.coordinator import load_coordinator
    from flows.membership_signing import change_membership

    _tell(change_membership(load_coordinator(home), change, root_keys=root_keys or ()), home)


def _tell(outcome: "Published | Draft", home: Path) -> None:
    from flows.membership_signing import Published
    from flows.next_steps import after_draft

    if isinstance(outcome, Published):
        number = outcome.membership.record.number
        verb = "is published" if outcome.changed else "says so already"
        say(console, f"membership {number} {verb}; it is in {home / 'membership.json'}")
        return
    say(console, *after_draft(outcome.file, outcome.missing, home))
