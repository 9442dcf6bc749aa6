"""Taking what the federation operator handed over: membership, storage credential, agreement.

Nothing is written unless the membership names this silo with its own key. A membership that starts
from other root keys than the one that is there is refused: that is another federation, or a lie.
"""

from pathlib import Path

from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.envelope import fingerprint
from data_contracts.errors import SiloOperatorError
from data_contracts.records import Membership
from data_contracts.trust_anchor import load_trust_anchor
from infra.durable_files import write_durably
from infra.signing_keys import load_key
from infra.storage_config import s3_settings
from silo_agent.config import SiloConfig

MEMBERSHIP = "membership.json"
CREDENTIALS = "storage-credentials.toml"
AGREEMENT = "contract.agreement.json"


def accept_hand_over(config: SiloConfig, folder: Path) -> Membership:
    """Put the files of `folder` to where the configuration says, mode 0600; a missing one is left.

    Returns the membership, whose fingerprints a person compares. Raises SiloOperatorError when it
    is not for this silo, and ConsortiaError when it or the credential is not whole.
    """
    offered = load_trust_anchor(folder / MEMBERSHIP).record
    _require_for_us(config, offered)
    pinned = config.path(config.trust.membership)
    if pinned.exists():
        _require_same_roots(pinned, offered)
    contract = config.path(config.data.contract)
    for name, target in (
        (CREDENTIALS, config.path(config.storage.credentials)),
        (AGREEMENT, agreement_path(contract)),
        (MEMBERSHIP, pinned),
    ):
        if (folder / name).exists():
            write_durably(target, (folder / name).read_bytes())
    s3_settings(config.storage, config.home)
    return offered


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


def _require_same_roots(pinned: Path, offered: Membership) -> None:
    there = load_trust_anchor(pinned).record
    if not set(there.root_keys) & set(offered.root_keys):
        raise SiloOperatorError(
            "membership that was handed over",
            expected=f"one signed by a root key of {pinned}",
            found="other root keys",
            action="ask the federation operator by telephone; if this is right, move the old away",
        )
