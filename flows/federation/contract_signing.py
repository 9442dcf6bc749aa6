"""Signing a contract: by the federation's operator or by a silo's, whoever comes first.

Which side signs follows from the home directory. Either side verifies the other's signature with
the key of the membership that it trusts before it adds its own.
"""

from pathlib import Path

from aggregator.coordinator import MEMBERSHIP_NAME, coordinator_keys
from aggregator.settings.federation import SETTINGS_NAME, load_settings
from data_contracts.dataset.contract import DataContract, load_contract
from data_contracts.dataset.contract.agreement import (
    Parties,
    agreement_path,
    first_signature,
    read_agreement,
    second_signature,
)
from data_contracts.errors import DataStewardError, FederationOperatorError, UntrustedInputError
from data_contracts.protocol.envelope import verify
from data_contracts.protocol.records import ContractAgreement, Membership
from data_contracts.protocol.trust_anchor import load_trust_anchor
from flows.federation.admin import HAND_OVER
from infra.clock import SystemClock
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey, load_key
from silo_agent.config import CONFIG_NAME, load_config
from silo_agent.first_day.hand_over import AGREEMENT


def sign_contract(path: Path, home: Path, silo: str = "") -> tuple[Path, int]:
    """Sign the contract at `path`; returns the agreement's path and how many have signed it."""
    contract = load_contract(path)
    if (home / SETTINGS_NAME).exists():
        key, parties = _as_coordinator(home, silo)
        others = parties.silo_keys
    elif (home / CONFIG_NAME).exists():
        key, parties = _as_silo(home)
        others = parties.coordinator_keys
    else:
        raise FederationOperatorError(
            f"home directory {home}",
            expected=f"{SETTINGS_NAME} of a federation or {CONFIG_NAME} of a silo",
            found="neither",
            action="name the right directory with --home",
        )
    return _sign(path, contract, key, parties, others)


def sign_on_both_sides(own: Path, silo_home: Path, filed: Path, home: Path, silo: str) -> None:
    """Silo first, then coordinator, each with its own copy of the contract, on one machine.

    `own` lies at the silo and `filed` at the coordinator; both end with the same agreement.
    """
    agreement, _ = sign_contract(own, silo_home)
    write_durably(agreement_path(filed), agreement.read_bytes(), mode=0o644)
    agreement, _ = sign_contract(filed, home, silo)
    write_durably(agreement_path(own), agreement.read_bytes(), mode=0o644)


def put_into_hand_over(agreement: Path, home: Path, silo: str) -> Path | None:
    """Copy an agreement to what the federation's operator hands over to `silo`; None at a silo."""
    folder = home / HAND_OVER / silo
    if not silo or not folder.is_dir():
        return None
    write_durably(folder / AGREEMENT, agreement.read_bytes())
    return folder.resolve()


def _sign(
    path: Path, contract: DataContract, key: SigningKey, parties: Parties, others: frozenset[str]
) -> tuple[Path, int]:
    agreement, now = agreement_path(path), SystemClock().now()
    try:
        read_agreement(path, contract.digest, parties)
        return agreement, 2
    except DataStewardError:
        # There is no agreement with both signatures yet; that is what this is for.
        pass
    theirs = _envelope_of(agreement, contract, others)
    if theirs is None:
        envelope = first_signature(contract, parties.federation, parties.silo, now, key)
        write_durably(agreement, envelope, mode=0o644)
        return agreement, 1
    write_durably(agreement, second_signature(theirs, contract, parties, others, key), mode=0o644)
    return agreement, 2


def _envelope_of(agreement: Path, contract: DataContract, others: frozenset[str]) -> bytes | None:
    """The other side's agreement to this contract; an older one, or our own, is made anew."""
    try:
        envelope = agreement.read_bytes()
        signed = verify(envelope, ContractAgreement, others)
    except (OSError, UntrustedInputError):
        return None
    return envelope if signed.record.contract_digest == contract.digest else None


def _as_coordinator(home: Path, silo: str) -> tuple[SigningKey, Parties]:
    settings = load_settings(home)
    membership = load_trust_anchor(settings.path(MEMBERSHIP_NAME)).record
    for key in coordinator_keys(settings):
        if key.public_key_hex == membership.coordinator_key:
            return key, _parties(membership, silo)
    raise FederationOperatorError(
        "coordinator key",
        expected=f"the key that membership {membership.number} names in {home / 'keys'}",
        found="others, or none",
        action="put it there, or revoke it with `consortia federation revoke --coordinator`",
    )


def _as_silo(home: Path) -> tuple[SigningKey, Parties]:
    config = load_config(home)
    membership = load_trust_anchor(config.path(config.trust.membership)).record
    return load_key(config.path(config.keys.signing)), _parties(membership, config.silo)


def _parties(membership: Membership, silo: str) -> Parties:
    key = membership.key_of(silo)
    if key is None:
        raise FederationOperatorError(
            "contract to sign",
            expected="the name of a member silo, as in --silo north",
            found=silo or "no name",
            action="add the silo with `consortia federation add-silo` first",
        )
    own = frozenset({membership.coordinator_key})
    return Parties(membership.federation, silo, frozenset({key}), own)
