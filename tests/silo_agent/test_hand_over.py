"""`silo-agent accept`: what was handed over is looked at as a whole before anything is replaced."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.dsse import Signer
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.membership_chain import earlier_after
from data_contracts.protocol.records import Membership
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.disk.durable_files import write_durably
from infra.encryption.identities import load_identity, new_identity, rotate_identity
from infra.signing_keys import create_key
from silo_agent.config import load_config
from silo_agent.first_day.hand_over import accept_hand_over
from tests.silo_agent.ready_silo import ReadySilo


@pytest.fixture
def silo(tmp_path: Path) -> ReadySilo:
    return ReadySilo(tmp_path)


def handed(silo: ReadySilo, membership: Membership, *signers: Signer) -> Path:
    folder = silo.fed / "another hand-over"
    write_durably(folder / "membership.json", seal(membership, *signers).envelope)
    return folder


def next_version(silo: ReadySilo, **changes: Any) -> Membership:
    pinned = load_trust_anchor(silo.home / "membership.json")
    fields = {
        "number": 2,
        "previous_digest": pinned.digest,
        "earlier": earlier_after(pinned),
        "expires_at": pinned.record.expires_at + timedelta(days=300),
    }
    return pinned.record.model_copy(update=fields | changes)


def everything(silo: ReadySilo) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in silo.home.rglob("*") if path.is_file()}


def test_the_next_version_is_taken_when_the_root_keys_sign_it(silo: ReadySilo) -> None:
    folder = handed(silo, next_version(silo), silo.root)
    assert accept_hand_over(load_config(silo.home), folder).number == 2
    assert load_trust_anchor(silo.home / "membership.json").record.number == 2


def test_it_never_goes_back_to_an_earlier_version(silo: ReadySilo) -> None:
    first = (silo.home / "membership.json").read_bytes()
    accept_hand_over(load_config(silo.home), handed(silo, next_version(silo), silo.root))
    write_durably(silo.fed / "old" / "membership.json", first)
    assert accept_hand_over(load_config(silo.home), silo.fed / "old").number == 2
    assert load_trust_anchor(silo.home / "membership.json").record.number == 2


@pytest.mark.parametrize("number", [1, 2])
def test_naming_the_genuine_root_key_is_not_being_signed_by_it(
    silo: ReadySilo, tmp_path: Path, number: int
) -> None:
    thief = create_key(tmp_path / "thief.pem")
    pinned = load_trust_anchor(silo.home / "membership.json")
    forged = {
        "root_keys": (silo.root.public_key_hex, thief.public_key_hex),
        "coordinator_key": create_key(tmp_path / "theirs.pem").public_key_hex,
    }
    membership = (
        next_version(silo, **forged) if number == 2 else pinned.record.model_copy(update=forged)
    )
    before = everything(silo)
    kept = accept_hand_over(load_config(silo.home), handed(silo, membership, thief))
    assert kept == pinned.record
    assert everything(silo) == before


def test_other_root_keys_are_another_federation(silo: ReadySilo, tmp_path: Path) -> None:
    stranger = create_key(tmp_path / "stranger.pem")
    pinned = load_trust_anchor(silo.home / "membership.json").record
    other = pinned.model_copy(update={"root_keys": (stranger.public_key_hex,)})
    before = everything(silo)
    with pytest.raises(SiloOperatorError, match="other root keys"):
        accept_hand_over(load_config(silo.home), handed(silo, other, stranger))
    assert everything(silo) == before


@pytest.mark.parametrize(
    "credential", [b"", b"\xff", b'access_key = "a"\n', b"not toml", b'a = 1\nsecret_key = "b"\n']
)
def test_a_broken_credential_replaces_nothing(silo: ReadySilo, credential: bytes) -> None:
    folder = handed(silo, next_version(silo), silo.root)
    write_durably(folder / "storage-credentials.toml", credential)
    before = everything(silo)
    with pytest.raises(ConsortiaError, match=r"storage-credentials\.toml"):
        accept_hand_over(load_config(silo.home), folder)
    assert everything(silo) == before


def test_an_agreement_in_force_is_kept_and_a_lost_one_is_taken(silo: ReadySilo) -> None:
    agreement = agreement_path(silo.home / "contract.yaml")
    whole = agreement.read_bytes()
    folder = silo.fed / "hand-over" / "north"
    write_durably(folder / "contract.agreement.json", b"one with a single signature")
    accept_hand_over(load_config(silo.home), folder)
    assert agreement.read_bytes() == whole
    agreement.unlink()
    write_durably(folder / "contract.agreement.json", whole)
    accept_hand_over(load_config(silo.home), folder)
    assert agreement.read_bytes() == whole


def test_a_recipient_that_this_silo_has_no_identity_of_is_refused(silo: ReadySilo) -> None:
    config, before = load_config(silo.home), everything(silo)
    pinned = load_trust_anchor(silo.home / "membership.json").record

    def naming(recipient: str) -> Path:
        silos = tuple(m.model_copy(update={"recipient": recipient}) for m in pinned.silos)
        return handed(silo, next_version(silo, silos=silos), silo.root)

    with pytest.raises(SiloOperatorError, match="silo-agent key --recipient"):
        accept_hand_over(config, naming(new_identity().recipient))
    assert everything(silo) == before
    path = config.path(config.keys.identity)
    first = load_identity(path).recipient
    rotate_identity(path)
    assert accept_hand_over(config, naming(first)).recipient_of(config.silo) == first
