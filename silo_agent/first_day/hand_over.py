"""Taking what the federation operator handed over: membership, storage credential, agreement.

Nothing is written unless the membership names this silo with its own key. A membership that starts
from other root keys than the one that is there is refused: that is another federation, or a lie.
"""

from pathlib import Path

from data_contracts.dataset.contract import load_contract
from data_contracts.dataset.contract.agreement import Parties, agreement_path, read_agreement
from data_contracts.errors import DataStewardError, SiloOperatorError, UntrustedInputError
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.records import Membership
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.disk.durable_files import write_durably
from infra.encryption.identities import load_identities, recipients_of
from infra.signing_keys import load_key
from infra.storage.config import read_credentials
from silo_agent.config import SiloConfig

MEMBERSHIP = "membership.json"
CREDENTIALS = "storage-credentials.toml"
AGREEMENT = "contract.agreement.json"


def accept_hand_over(config: SiloConfig, folder: Path) -> Membership:
    """Put the files of `folder` to where the configuration says, mode 0600; a missing one is left.

    Everything is looked at before anything is written. A membership that is there stays, unless the
    new one is signed on from it: the agent follows later ones in storage by itself. An agreement
    that both sides have signed stays too. Returns the membership in force here, whose fingerprints
    a person compares. Raises SiloOperatorError when the new one is not for this silo, and
    ConsortiaError when it or the credential is not whole.
    """
    offered = load_trust_anchor(folder / MEMBERSHIP)
    _require_for_us(config, offered.record)
    _require_recipient_held(config, offered.record)
    target = config.path(config.trust.membership)
    pinned = load_trust_anchor(target) if target.exists() else None
    if pinned is not None:
        _require_same_roots(target, pinned.record, offered.record)
    trusted = offered if pinned is None or _leads_to(pinned, offered) else pinned
    writes = {target: trusted.envelope}
    if (folder / CREDENTIALS).exists():
        read_credentials(folder / CREDENTIALS, is_private=False)
        writes[config.path(config.storage.credentials)] = (folder / CREDENTIALS).read_bytes()
    agreement = agreement_path(config.path(config.data.contract))
    if (folder / AGREEMENT).exists() and not _is_in_force(config, trusted.record):
        writes[agreement] = (folder / AGREEMENT).read_bytes()
    for path, data in writes.items():
        write_durably(path, data)
    return trusted.record


def _leads_to(pinned: Verified[Membership], offered: Verified[Membership]) -> bool:
    """Whether the next version was signed by what the pinned one asks for."""
    try:
        return follow_membership(pinned, offered.envelope).digest == offered.digest
    except UntrustedInputError:
        return False


def _is_in_force(config: SiloConfig, membership: Membership) -> bool:
    """Whether both sides have signed the contract as it lies here."""
    path = config.path(config.data.contract)
    parties = Parties.at_plan(membership, (membership,), config.silo)
    try:
        read_agreement(path, load_contract(path).digest, parties)
    except DataStewardError:
        return False
    return True


def fingerprints_of(membership: Membership) -> list[tuple[str, str]]:
    """Whose keys all trust rests on, to compare with the operator by telephone."""
    roots = [("root key", fingerprint(key)) for key in membership.root_keys]
    return [*roots, ("coordinator", fingerprint(membership.coordinator_key))]


def _require_for_us(config: SiloConfig, offered: Membership) -> None:
    own = load_key(config.path(config.keys.signing)).public_key_hex
    named = offered.key_of(config.silo)
    if offered.federation != config.federation or named != own:
        other = "no such silo" if named is None else "this silo with another key"
        found = other if named != own else f"one of {offered.federation}"
        raise SiloOperatorError(
            "membership that was handed over",
            expected=f"one of {config.federation} that names {config.silo} with the key {own}",
            found=found,
            action="send the federation operator this public key, who adds the silo with it",
        )


def _require_recipient_held(config: SiloConfig, offered: Membership) -> None:
    named, path = offered.recipient_of(config.silo), config.path(config.keys.identity)
    if named is not None and named not in recipients_of(load_identities(path)):
        raise SiloOperatorError(
            "membership that was handed over",
            expected=f"a recipient of {config.silo} that {path.parent} has the identity of",
            found=named,
            action="send the federation operator what `silo-agent key --recipient` prints",
        )


def _require_same_roots(path: Path, pinned: Membership, offered: Membership) -> None:
    if not set(pinned.root_keys) & set(offered.root_keys):
        raise SiloOperatorError(
            "membership that was handed over",
            expected=f"one of the federation that {path} is of",
            found="other root keys",
            action="ask the federation operator by telephone; if this is right, move the old away",
        )
