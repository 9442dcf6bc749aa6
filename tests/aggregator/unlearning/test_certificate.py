"""What an institution is handed, and what an auditor without any network finds wrong with it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from aggregator.audit.claim import Claim
from aggregator.audit.erasure_audit import NOT_REVOKED, audit_certificate, revocation_claims
from aggregator.unlearning.certificate import NewRound, OldRound, certificate, what_stays
from aggregator.unlearning.certificate_page import read_certificate, with_page, written_page
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records import ErasureCertificate
from data_contracts.protocol.records.erasure import RenewedRound
from data_contracts.protocol.records.plan_terms import AdapterEncryption
from infra.signing_keys import SigningKey
from tests.aggregator.unlearning.rounds import adapter, past
from tests.data_contracts.erasure_samples import WITH_PART, erasure
from tests.infra.record_samples import COORDINATOR, FIRST, NOW, STRANGER, plan

ERASED = erasure(2, "0" * 64)
LAST = plan(3, ERASED.digest, run="run-b", round=1)
OLD = [OldRound(past(1, None, "ab").record)]
OTHER = (RenewedRound(round=1, plan_digest="c" * 64, old=None, new=None),)
NEW = [NewRound(round=1, published=adapter("new"), in_force=adapter("new"), tokens=300)]


def made(**changes: object) -> ErasureCertificate:
    record = certificate(LAST, ERASED, OLD, NEW, NOW).model_copy(update=changes)
    return with_page(ERASED.record, record)


def signed(record: ErasureCertificate, key: SigningKey = COORDINATOR) -> bytes:
    return written_page(ERASED, seal(record, key), (FIRST.envelope,))


def outcomes(data: bytes) -> dict[str, str]:
    claims = audit_certificate(*read_certificate(data), FIRST)
    return {claim.name: claim.outcome for claim in claims}


def test_it_says_which_adapters_were_there_and_which_are_there_now() -> None:
    record = made()
    assert [(r.round, r.old, r.new) for r in record.rounds] == [
        (1, WITH_PART, adapter("new").digest)
    ]
    assert (record.revoked_adapter, record.new_adapter) == (WITH_PART, adapter("new"))
    assert (record.tokens_again, record.has_other_seeds) == (300, False)


def test_a_round_that_is_held_this_time_publishes_none() -> None:
    held = [replace(NEW[0], published=None, in_force=None)]
    record = certificate(LAST, ERASED, OLD, held, NOW)
    assert record.rounds[0].new is None and record.new_adapter is None


def test_a_whole_certificate_passes() -> None:
    found = outcomes(signed(made()))
    assert {o for name, o in found.items() if name not in UNCHECKED} == {"pass"}
    assert {found[name] for name in UNCHECKED} == {"not checked"}


UNCHECKED = ("new adapter", "trained again without it")


@pytest.mark.parametrize(
    ("data", "failing"),
    [
        (signed(made(), STRANGER), "certificate signature"),
        (signed(made(erased_silo="silo-c")), "certificate follows the erasure"),
        (signed(made(rounds=OTHER)), "certificate follows the erasure"),
        (signed(made(new_adapter=adapter("x"))), None),
        (signed(made()).replace(b"taken out again", b"never in there"), "page as signed"),
    ],
    ids=["stranger", "other-silo", "other-rounds", "other-adapter", "other-words"],
)
def test_what_does_not_hold_is_found(data: bytes, failing: str | None) -> None:
    failed = [name for name, outcome in outcomes(data).items() if outcome == "fail"]
    assert failed == ([] if failing is None else [failing])


def test_an_adapter_that_is_revoked_is_not_called_new() -> None:
    revoked = adapter("new").model_copy(update={"digest": WITH_PART})
    found = outcomes(signed(made(new_adapter=revoked)))
    assert found["certificate follows the erasure"] == "fail"


def test_another_file_is_no_certificate() -> None:
    other = signed(made()).replace(b"consortia-erasure-1", b"consortia-erasure-9")
    with pytest.raises(UntrustedInputError) as caught:
        read_certificate(other)
    assert caught.value.rule == "bundle.format"


def test_it_says_until_when_adapters_are_locked_and_how_they_lie_there() -> None:
    planned = past(1, None, "abx").record
    (stays, *others) = what_stays("silo-x", [OldRound(planned)])
    assert stays.until == planned.evaluate_by + timedelta(days=planned.retention.days)
    assert "readable" in stays.what
    assert all(each.until is None for each in others)
    terms = AdapterEncryption.model_construct(round_recipient="age1", coordinator_recipient="age1")
    hidden = planned.model_copy(update={"encryption": terms})
    (cipher, *_) = what_stays("silo-x", [OldRound(hidden)])
    (gone, *_) = what_stays("silo-x", [OldRound(hidden, is_shredded=True)])
    assert "consortia storage shred" in cipher.what
    assert "destroyed" in gone.what


def test_where_it_was_never_asked_nothing_of_its_own_is_left() -> None:
    told = [each.what for each in what_stays("silo-x", OLD)]
    assert not any(text.startswith("Its ") for text in told)


def revoked(begins: str | None, published: str, envelope: bytes, number: int = 3) -> list[Claim]:
    start = None if begins is None else adapter("s").model_copy(update={"digest": begins})
    planned = plan(number, None, starting_adapter=start).record
    return revocation_claims(planned, published, [envelope], {FIRST.digest: FIRST})


def test_an_auditor_is_told_what_an_erasure_says_of_a_report() -> None:
    def outcome(begins: str | None, published: str, envelope: bytes, number: int = 3) -> str:
        (claim,) = revoked(begins, published, envelope, number)
        assert claim.name == NOT_REVOKED
        return claim.outcome

    assert outcome(None, WITH_PART, ERASED.envelope) == "fail"
    assert outcome(WITH_PART, "9" * 64, ERASED.envelope) == "fail"
    assert outcome(WITH_PART, "9" * 64, ERASED.envelope, number=1) == "pass"
    assert outcome(None, "9" * 64, ERASED.envelope) == "pass"
    forged = erasure(2, "0" * 64, STRANGER)
    assert outcome(None, WITH_PART, forged.envelope) == "not checked"
    assert revocation_claims(LAST.record, WITH_PART, [], {FIRST.digest: FIRST}) == []
