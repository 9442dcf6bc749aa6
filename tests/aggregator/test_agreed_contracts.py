"""A plan names contracts that both sides have signed and that are in force, and no others."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.federated_round import abort_round
from aggregator.planning.agreed_contracts import AgreedContracts, agreed_contracts
from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import key_id
from data_contracts.protocol.records.membership import Revocation
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.trusted_feed import TrustedFeed
from tests.aggregator.federation_samples import COHORT, key, membership, minutes
from tests.data_contracts.dataset.forms.form_samples import CHAT, CLASSES, PLAIN
from tests.simulator.contract import SimulatedContract, file_contract
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

FEED = TrustedFeed(membership())
MEMBERS = FEED.membership.record
NOW = minutes(10)
SILO = COHORT[0]
COORDINATOR = key("coordinator")

File = Callable[[Path], None]


def contract(silo: str = SILO) -> SimulatedContract:
    return SimulatedContract(silo, f"contract of {silo}".encode(), NOW + timedelta(seconds=1))


def signed_by(*names: str) -> File:
    def file(directory: Path) -> None:
        keys = [key(name) for name in names]
        agreement = contract().agreement(MEMBERS.federation, minutes(0))
        file_contract(directory, contract(), agreement, *keys)

    return file


def agreeing_to(**changes: object) -> File:
    """Signed by both, but about something else."""

    def file(directory: Path) -> None:
        agreement = contract().agreement(MEMBERS.federation, minutes(0))
        changed = agreement.model_copy(update=changes)
        file_contract(directory, contract(), changed, key(SILO), COORDINATOR)

    return file


def without_agreement(directory: Path) -> None:
    signed_by(SILO, "coordinator")(directory)
    agreement_path(directory / f"{SILO}.yaml").unlink()


def edited_afterwards(directory: Path) -> None:
    signed_by(SILO, "coordinator")(directory)
    (directory / f"{SILO}.yaml").write_bytes(contract().data + b"\n")


def found(directory: Path) -> AgreedContracts:
    return agreed_contracts(directory, FEED, NOW)


@pytest.mark.parametrize("signers", [(SILO, "coordinator"), ("coordinator", SILO)])
def test_a_contract_with_both_signatures_counts_whoever_signed_first(
    tmp_path: Path, signers: tuple[str, ...]
) -> None:
    signed_by(*signers)(tmp_path)
    assert found(tmp_path) == AgreedContracts({SILO: digest_of_bytes(contract().data)}, {})


ONE = "signature of contract-agreement: 0"


def by(name: str) -> str:
    """What is said of a signature that has no place under the agreement."""
    known = key_id(key(name).public_key_hex)
    return f"signature of contract-agreement: one with the key id '{known}' that is not"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (without_agreement, "No such file or directory"),
        (signed_by(SILO), ONE),
        (signed_by("coordinator"), ONE),
        (signed_by("hospital-b", "coordinator"), by("hospital-b")),
        (signed_by(SILO, "stranger"), by("stranger")),
        (signed_by(SILO, "coordinator", "stranger"), "contract-agreement: 3"),
        (edited_afterwards, "a contract that changed since"),
        (agreeing_to(contract_digest="0" * 64), "a contract that changed since"),
        (agreeing_to(expires_at=NOW), "one that has expired"),
        (agreeing_to(silo="hospital-b"), "one of another"),
        (agreeing_to(federation="cardiology"), "one of another"),
    ],
)
def test_a_contract_that_is_not_agreed_leaves_its_silo_out_and_says_why(
    tmp_path: Path, file: File, reason: str
) -> None:
    file(tmp_path)
    assert found(tmp_path) == AgreedContracts({}, {SILO: reason})


def test_a_stranger_s_contract_counts_for_nothing(tmp_path: Path) -> None:
    stranger = contract("bank-z")
    agreement = stranger.agreement(MEMBERS.federation, minutes(0))
    file_contract(tmp_path, stranger, agreement, key("bank-z"), COORDINATOR)
    assert found(tmp_path) == AgreedContracts({}, {"bank-z": by("bank-z")})


def test_one_lapsed_contract_does_not_end_the_others(tmp_path: Path) -> None:
    for silo in COHORT:
        agreement = contract(silo).agreement(MEMBERS.federation, minutes(0))
        signers = (key(silo),) if silo == SILO else (key(silo), COORDINATOR)
        file_contract(tmp_path, contract(silo), agreement, *signers)
    agreed = found(tmp_path)
    assert sorted(agreed.digests) == sorted(set(COHORT) - {SILO})
    assert agreed.left_out == {SILO: ONE}


def test_a_contract_that_expires_between_rounds_leaves_its_silo_out(
    make_federation: MakeFederation, caplog: pytest.LogCaptureFixture
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    lapsing = federation.silos["silo-c"].contract
    lapsing.expires_at = federation.clock.now() + timedelta(hours=1)
    federation.sign_contract("silo-c")
    first = federation.open(1)
    assert first.record.cohort == ("silo-a", "silo-b", "silo-c")
    federation.play(first)
    federation.clock.sleep(3600)
    second = federation.open(2)
    assert second.record.cohort == ("silo-a", "silo-b")
    assert "silo-c is left out of the round" in caplog.text
    abort_round(federation.coordinator(), second, "operator.abort", "Wait for silo-c.")
    lapsing.expires_at += timedelta(days=1)
    federation.sign_contract("silo-c")
    assert "silo-c" in federation.open(2).record.cohort, "a renewed contract counts again"


def test_without_contracts_for_the_quorum_the_operator_is_told_whose_lapsed(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.clock.sleep(366 * 24 * 3600)
    with pytest.raises(FederationOperatorError, match="signed by both sides and in force") as told:
        federation.open()
    assert told.value.found == "silo-a: one that has expired; silo-b: one that has expired"
    assert "consortia contract sign" in told.value.action
    assert not [name for name in federation.plans.objects if name.startswith("feed/")]


def test_a_replaced_key_asks_for_no_new_signature(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    federation.replace_key("silo-c")
    assert federation.open().record.cohort == ("silo-a", "silo-b", "silo-c")


def test_a_revoked_key_asks_for_a_new_signature(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    old = federation.silos["silo-c"].key.public_key_hex
    federation.replace_key("silo-c", revokes=(Revocation(public_key=old),))
    plan = federation.open()
    assert plan.record.cohort == ("silo-a", "silo-b")
    abort_round(federation.coordinator(), plan, "operator.abort", "Wait for silo-c.")
    federation.sign_contract("silo-c")
    assert "silo-c" in federation.open().record.cohort


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        (FamilyTask(family="masked-lm"), PLAIN, None),
        (FamilyTask(family="masked-lm"), CHAT, "records of the form chat; masked-lm is trained on"),
        (CAUSAL_TASK, CLASSES, None),
        (
            FamilyTask(family="sequence-classification", classes=("admitted", "discharged", "x")),
            CLASSES,
            None,
        ),
        (
            FamilyTask(family="sequence-classification", classes=("admitted", "moved")),
            CLASSES,
            "the class 'discharged', which the task does not name",
        ),
    ],
)
def test_a_contract_over_other_records_than_the_task_s_is_left_out_by_name(
    tmp_path: Path, task: FamilyTask, text: str, reason: str | None
) -> None:
    own = SimulatedContract(SILO, text.encode(), NOW + timedelta(days=1))
    agreement = own.agreement(MEMBERS.federation, minutes(0))
    file_contract(tmp_path, own, agreement, key(SILO), COORDINATOR)
    agreed = agreed_contracts(tmp_path, FEED, NOW, task)
    assert (SILO in agreed.digests) == (reason is None)
    if reason is not None:
        assert agreed.left_out[SILO].startswith(reason)
