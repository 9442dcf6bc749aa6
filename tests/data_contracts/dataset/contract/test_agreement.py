"""Two parties sign one statement about one file; anything else is no agreement."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.dataset.contract import DataContract, load_contract
from data_contracts.dataset.contract.agreement import (
    Parties,
    agreement_path,
    first_signature,
    read_agreement,
    second_signature,
)
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES
from data_contracts.protocol.envelope import Verified, verify
from data_contracts.protocol.records import ContractAgreement
from infra.signing_keys import SigningKey
from tests.data_contracts.dataset.contract_samples import CONTRACT, replaced

SILO, COORDINATOR, STRANGER = (
    SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(3)
)
PARTIES = Parties(
    "oncology",
    "bank-a",
    frozenset({SILO.public_key_hex}),
    frozenset({COORDINATOR.public_key_hex}),
)
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bank-a.yaml"
    path.write_text(CONTRACT)
    return path


def signed_once(contract: DataContract, signer: SigningKey) -> bytes:
    return first_signature(contract, "oncology", "bank-a", NOW, signer)


def read(path: Path, envelope: bytes) -> Verified[ContractAgreement]:
    agreement_path(path).write_bytes(envelope)
    return read_agreement(path, load_contract(path).digest, PARTIES)


def test_the_agreement_lies_beside_the_contract() -> None:
    assert agreement_path(Path("c/bank-a.yaml")) == Path("c/bank-a.agreement.json")


@pytest.mark.parametrize(("first", "second"), [(SILO, COORDINATOR), (COORDINATOR, SILO)])
def test_two_signatures_over_the_same_bytes_are_an_agreement(
    path: Path, first: SigningKey, second: SigningKey
) -> None:
    contract = load_contract(path)
    once = signed_once(contract, first)
    both = second_signature(once, contract, PARTIES, {first.public_key_hex}, second)
    record = read(path, both).record
    assert (record.contract_id, record.contract_version) == ("sample", "1.0.0")
    assert (record.contract_digest, record.expires_at) == (contract.digest, EXPIRES)
    assert verify(once, ContractAgreement, {first.public_key_hex}).record == record


@pytest.mark.parametrize("signer", [SILO, COORDINATOR, STRANGER])
def test_one_signature_is_none(path: Path, signer: SigningKey) -> None:
    with pytest.raises(DataStewardError, match="expected signatures of silo and coordinator"):
        read(path, signed_once(load_contract(path), signer))


def test_nobody_can_sign_for_both(path: Path) -> None:
    contract = load_contract(path)
    once = signed_once(contract, SILO)
    with pytest.raises(DataStewardError, match="one key for both"):
        second_signature(once, contract, PARTIES, {SILO.public_key_hex}, SILO)


def test_two_keys_of_one_side_are_no_agreement(path: Path) -> None:
    """Each side may have rotated its key; that does not make it two sides."""
    contract = load_contract(path)
    once = signed_once(contract, SILO)
    both = second_signature(once, contract, PARTIES, {SILO.public_key_hex}, STRANGER)
    keys = frozenset({SILO.public_key_hex, STRANGER.public_key_hex})
    agreement_path(path).write_bytes(both)
    parties = replace(PARTIES, silo_keys=keys)
    with pytest.raises(DataStewardError, match="signature of contract-agreement"):
        read_agreement(path, contract.digest, parties)


def test_a_signature_from_before_a_rotation_counts(path: Path) -> None:
    contract = load_contract(path)
    once = signed_once(contract, SILO)
    both = second_signature(once, contract, PARTIES, {SILO.public_key_hex}, COORDINATOR)
    agreement_path(path).write_bytes(both)
    keys = PARTIES.coordinator_keys | {STRANGER.public_key_hex}
    parties = replace(PARTIES, coordinator_keys=keys)
    assert read_agreement(path, contract.digest, parties).envelope == both


def test_a_first_signature_of_another_key_is_not_added_to(path: Path) -> None:
    contract = load_contract(path)
    foreign = signed_once(contract, STRANGER)
    with pytest.raises(UntrustedInputError, match="signature of contract-agreement"):
        second_signature(foreign, contract, PARTIES, {SILO.public_key_hex}, COORDINATOR)


@pytest.mark.parametrize(
    ("federation", "silo", "change"),
    [
        ("cardiology", "bank-a", ("", "")),
        ("oncology", "bank-b", ("", "")),
        ("oncology", "bank-a", ("version: 1.0.0", "version: 1.0.1")),
        ("oncology", "bank-a", ("2030-01-01", "2031-01-01")),
    ],
)
def test_a_first_signature_to_something_else_is_not_added_to(
    path: Path, federation: str, silo: str, change: tuple[str, str]
) -> None:
    ours = load_contract(path)
    path.write_text(replaced(change))
    theirs = first_signature(load_contract(path), federation, silo, NOW, SILO)
    with pytest.raises(DataStewardError, match="found one that says something else"):
        second_signature(theirs, ours, PARTIES, {SILO.public_key_hex}, COORDINATOR)


def test_a_contract_that_changed_afterwards_has_no_agreement(path: Path) -> None:
    contract = load_contract(path)
    once = signed_once(contract, SILO)
    both = second_signature(once, contract, PARTIES, {SILO.public_key_hex}, COORDINATOR)
    path.write_text(CONTRACT + "# a comment counts too\n")
    with pytest.raises(DataStewardError, match="found a contract that changed since"):
        read(path, both)


def test_a_file_that_is_missing_or_no_envelope_says_what_to_do(path: Path) -> None:
    with pytest.raises(DataStewardError, match=r"bank-a\.agreement\.json; found No such file"):
        read_agreement(path, load_contract(path).digest, PARTIES)
    for rubbish in (b"", b"{}", b" " * (MAX_ENVELOPE_BYTES + 10)):
        with pytest.raises(DataStewardError, match="run `consortia contract sign`"):
            read(path, rubbish)
