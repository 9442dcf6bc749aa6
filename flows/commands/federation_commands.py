"""`consortia federation`: founding, members who come and go, keys that are rotated or revoked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands import federation_options as given
from infra import command_values as values
from infra.terminal import plain_console, say

if TYPE_CHECKING:
    from aggregator.planning.membership_changes import Change
    from flows.federation.coordinator_keys import Genuine
    from flows.federation.membership_signing import Draft, Published

federation_app = typer.Typer(
    no_args_is_help=True, help="Create a federation; add, remove and renew members and keys."
)
console = plain_console()

DEFAULT_API_URL = "http://127.0.0.1:4200/api"


@federation_app.command("init")
def federation_init(
    federation: given.FederationId,
    purpose: given.Purpose,
    model: given.Model,
    model_name: given.ModelName,
    model_licence: given.ModelLicence,
    home: given.Home = given.HERE,
    model_hub_id: given.ModelHubId = None,
    run: given.FirstRun = "run-1",
    stack: given.Stack = None,
    endpoint_url: given.EndpointUrl = None,
    prefect_api_url: given.PrefectApiUrl = None,
    allow_plain_http: given.AllowPlainHttp = False,
) -> None:
    """Create keys, settings, buckets and the first membership."""
    from flows.commands.next_steps import after_init
    from flows.federation.admin import FederationTerms, init_federation
    from infra.stack.attached_storage import attach_prefect, attach_storage

    if (stack is None) == (endpoint_url is None):
        raise typer.BadParameter("give either --stack DIRECTORY or --endpoint-url ADDRESS")
    values.require_private(endpoint_url or "", allow_plain_http=allow_plain_http)
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
        endpoint_url=storage.endpoint_url if storage else endpoint_url or "",
        model_hub_id=model_hub_id or "",
        prefect_auth=prefect.auth if prefect else Path("keys/prefect-auth"),
        allow_plain_http=allow_plain_http,
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
    silo: given.Silo,
    public_key: given.PublicKey,
    contract: given.ContractFile,
    home: given.Home = given.HERE,
    name: given.InstitutionName = None,
    stack: given.Stack = None,
    from_round: given.FromRound = None,
    recipient: given.SiloRecipient = None,
    root_key: given.RootKeys = None,
) -> None:
    """Add a silo, or replace its key, contract or name; prints what to hand over."""
    from flows.commands.next_steps import after_add_silo
    from flows.federation.admin import Joining, add_silo
    from infra.stack.attached_storage import attach_storage

    home = home.resolve()
    storage = attach_storage(stack) if stack else None
    joining = Joining(silo, public_key, contract, name, from_round, recipient)
    hand_over, outcome = add_silo(home, joining, storage, root_key or ())
    _tell(outcome, home)
    say(console, *after_add_silo(home, silo, hand_over))


@federation_app.command("remove-silo")
def federation_remove_silo(
    silo: given.Silo,
    home: given.Home = given.HERE,
    from_round: given.LeavingRound = None,
    root_key: given.RootKeys = None,
) -> None:
    """Let a silo leave; an attempt that is under way goes on with it."""
    from aggregator.planning.membership_changes import without_silo

    _change(home, without_silo(silo, from_round), root_key)


@federation_app.command("renew")
def federation_renew(home: given.Home = given.HERE, root_key: given.RootKeys = None) -> None:
    """The same members and keys for another year."""
    from aggregator.planning.membership_changes import renewed

    _change(home, renewed(), root_key)


@federation_app.command("rotate-key")
def federation_rotate_key(
    home: given.Home = given.HERE,
    coordinator: given.NewCoordinatorKey = False,
    silo: given.RotatedSilo = None,
    public_key: given.NewSiloKey = None,
    recipient: given.SiloRecipient = None,
    coordinator_recipient: given.NewCoordinatorRecipient = False,
    add_root: given.AddRoot = None,
    remove_root: given.RemoveRoot = None,
    threshold: given.Threshold = None,
    root_key: given.RootKeys = None,
) -> None:
    """Replace a key in good order: what the old one has begun, it finishes."""
    from aggregator.coordinator import load_coordinator
    from aggregator.planning.membership_changes import with_root_keys, with_silo_key
    from flows.federation.coordinator_keys import (
        rotate_coordinator_key,
        rotate_coordinator_recipient,
    )

    roots = bool(add_root or remove_root or threshold)
    of_silo = bool(public_key or recipient)
    which = [coordinator, coordinator_recipient, bool(silo), roots]
    if which.count(True) != 1 or bool(silo) != of_silo:
        raise typer.BadParameter(
            "give one of --coordinator, --coordinator-recipient, --silo with --public-key, "
            "--recipient or both, or --add-root, --remove-root and --threshold"
        )
    if coordinator:
        _tell(rotate_coordinator_key(load_coordinator(home), root_key or ()), home)
    elif coordinator_recipient:
        _tell(rotate_coordinator_recipient(load_coordinator(home), root_key or ()), home)
    elif silo:
        _change(home, with_silo_key(silo, public_key, recipient), root_key)
    else:
        _change(home, with_root_keys(add_root or (), remove_root or (), threshold), root_key)


@federation_app.command("revoke")
def federation_revoke(
    home: given.Home = given.HERE,
    coordinator: given.RevokedCoordinatorKey = False,
    last_entry: given.LastEntry = None,
    close: given.GenuineClose = None,
    decision: given.GenuineDecision = None,
    silo: given.RevokedSilo = None,
    public_key: given.KeyAfterRevocation = None,
    recipient: given.SiloRecipient = None,
    earlier: given.EarlierKey = None,
    root_key: given.RootKeys = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """A key that somebody else may hold: nothing of it counts any more, at once."""
    from aggregator.coordinator import load_coordinator
    from aggregator.planning.membership_changes import revoking_silo
    from flows.federation.coordinator_keys import genuine_until, last_entry_of, named_key
    from flows.federation.coordinator_keys import revoke_coordinator_key as revoke_current
    from flows.federation.coordinator_keys import revoke_earlier_key as revoke_earlier

    if [coordinator, bool(silo), bool(earlier)].count(True) != 1:
        raise typer.BadParameter("give one of --coordinator, --silo and --earlier")
    if coordinator != (last_entry is not None) or (silo and (close or decision)):
        raise typer.BadParameter(
            "--coordinator needs --last-entry, and only it: `consortia federation show` has the "
            "number of entries, say which was your last; --close and --decision are not for --silo"
        )
    if bool(close) != bool(decision):
        raise typer.BadParameter("give --close and --decision together, or neither")
    if recipient and not (silo and public_key):
        raise typer.BadParameter("--recipient goes with --silo and --public-key")
    if silo:
        _change(home, revoking_silo(silo, public_key, recipient), root_key)
        return
    c, named = load_coordinator(home), (close, decision) if close and decision else None
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
def federation_new_root_key(into: given.NewKeyFile) -> None:
    """Make a key for a signer; its public half is what `rotate-key --add-root` takes."""
    from infra.signing_keys import create_key

    say(console, create_key(into).public_key_hex)


@federation_app.command("sign")
def federation_sign(
    draft: given.DraftFile, root_key: given.SignersKey, trust: given.KnownMembership
) -> None:
    """Add a signature to a draft, and see what it changes."""
    from flows.federation.membership_signing import sign_draft

    for line in sign_draft(draft, root_key, trust):
        say(console, line)
    say(console, f"signed: {draft}")


@federation_app.command("publish")
def federation_publish(draft: given.SignedDraft, home: given.Home = given.HERE) -> None:
    """Publish a draft; everybody follows it from the next plan on."""
    from aggregator.coordinator import load_coordinator
    from flows.federation.membership_signing import publish_draft

    _tell(publish_draft(load_coordinator(home), draft), home)


@federation_app.command("show")
def federation_show(home: given.Home = given.HERE) -> None:
    """Fingerprints to compare out of band."""
    from flows.federation.admin import describe

    rows = describe(home)
    width = max(len(who) for who, _ in rows)
    say(console, "Fingerprints are SHA-256 of the public key.")
    say(console, *(f"{who:<{width}}  {what}" for who, what in rows))


def _change(home: Path, change: "Change", root_keys: list[Path] | None) -> None:
    from aggregator.coordinator import load_coordinator
    from flows.federation.membership_signing import change_membership

    _tell(change_membership(load_coordinator(home), change, root_keys=root_keys or ()), home)


def _tell(outcome: "Published | Draft", home: Path) -> None:
    from flows.commands.next_steps import after_draft
    from flows.federation.membership_signing import Published

    if isinstance(outcome, Published):
        number = outcome.membership.record.number
        verb = "is published" if outcome.changed else "says so already"
        say(console, f"membership {number} {verb}; it is in {home / 'membership.json'}")
        return
    say(console, *after_draft(outcome.file, outcome.missing, home))
