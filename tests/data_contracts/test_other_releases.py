"""Records of an earlier release stay valid; of a later one it is said that it is later."""

from decimal import Decimal
from itertools import pairwise
from typing import Any, cast

import pytest
import rfc8785

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import verify
from data_contracts.protocol.payload import NEWER, canonical_bytes, record_of, table_bytes
from data_contracts.protocol.program_version import is_later, program_version
from data_contracts.protocol.records import (
    Acceptance,
    Candidate,
    Record,
    Refusal,
    RoundPlan,
    Status,
    Submission,
)
from data_contracts.protocol.records.leak_statement import LeakStatement
from tests.aggregator.federation_samples import federation, key
from tests.simulator.other_releases import parsed, signed_as

FED = federation()
SILO = FED.plan.record.cohort[0]
SILO_KEY, COORDINATOR_KEY = key(SILO), key("coordinator")
STATUS = Status.on(
    FED.plan,
    FED.plan.record.issued_at,
    silo=SILO,
    number=1,
    phase="training",
    step=1,
    steps=2,
    tokens_per_second="1.0",
    eta_seconds=3,
    program="0.1.0",
)
REFUSAL = Refusal.on(
    FED.plan,
    FED.plan.record.issued_at,
    silo=SILO,
    policy_digest=None,
    rule="policy.purpose",
    reason="Not ours.",
    program="0.1.0",
)
CLOSE = FED.close([FED.silo(silo) for silo in FED.plan.record.cohort])
CANDIDATE = FED.candidate(CLOSE).record
SIGNED = [
    (FED.plan.record.model_copy(update={"program": "0.1.0"}), COORDINATOR_KEY),
    (FED.acceptance(SILO).record.model_copy(update={"program": "0.1.0"}), SILO_KEY),
    (REFUSAL, SILO_KEY),
    (STATUS, SILO_KEY),
]


@pytest.mark.parametrize(("record", "signer"), SIGNED, ids=lambda v: getattr(v, "kind", ""))
def test_a_record_without_the_version_still_verifies(record: Record, signer: Any) -> None:
    digest, envelope = signed_as(record, signer, without="program")
    verified = verify(envelope, type(record), {signer.public_key_hex})
    assert verified.digest == digest
    assert verified.record == record.model_copy(update={"program": None})


@pytest.mark.parametrize(("record", "signer"), SIGNED, ids=lambda v: getattr(v, "kind", ""))
def test_a_version_that_is_null_is_a_second_spelling(record: Record, signer: Any) -> None:
    _, envelope = signed_as(record, signer, program=None)
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        verify(envelope, type(record), {signer.public_key_hex})


def test_a_candidate_is_written_with_a_step_only_where_the_plan_asks_for_one() -> None:
    assert "step" not in parsed(canonical_bytes(CANDIDATE))
    stepped = CANDIDATE.model_copy(update={"step": Decimal("1.5")})
    assert parsed(canonical_bytes(stepped))["step"] == "1.5"
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        payload = rfc8785.dumps(parsed(canonical_bytes(CANDIDATE)) | {"step": None})
        record_of(payload, table_bytes(CANDIDATE), Candidate)


@pytest.mark.parametrize("field", ["memory_bytes", "gpu_memory_bytes"])
def test_a_status_is_written_with_memory_only_where_there_is_any(field: str) -> None:
    assert field not in parsed(canonical_bytes(STATUS))
    said, silent = (cast(dict[str, Any], {field: value}) for value in (5, None))
    _, envelope = signed_as(STATUS, SILO_KEY, **said)
    assert getattr(verify(envelope, Status, {SILO_KEY.public_key_hex}).record, field) == 5
    _, envelope = signed_as(STATUS, SILO_KEY, **silent)
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        verify(envelope, Status, {SILO_KEY.public_key_hex})


def test_a_submission_says_how_base_weights_were_held_only_where_they_were_quantised() -> None:
    whole = FED.submission(SILO, FED.verdict(SILO)).record
    assert "base_weights" not in parsed(canonical_bytes(whole))
    for said in ("8-bit", "4-bit"):
        _, envelope = signed_as(whole, SILO_KEY, base_weights=said)
        found = verify(envelope, Submission, {SILO_KEY.public_key_hex}).record
        assert found == whole.model_copy(update={"base_weights": said})
    _, envelope = signed_as(whole, SILO_KEY, base_weights=None)
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        verify(envelope, Submission, {SILO_KEY.public_key_hex})
    _, envelope = signed_as(whole, SILO_KEY, base_weights="full")
    with pytest.raises(UntrustedInputError, match="base_weights"):
        verify(envelope, Submission, {SILO_KEY.public_key_hex})


def test_a_submission_says_what_a_leak_check_found_only_where_it_may() -> None:
    silent = FED.submission(SILO, FED.verdict(SILO)).record
    assert "leaks" not in parsed(canonical_bytes(silent))
    said = LeakStatement(records=200, auc=Decimal("0.61"), auc_low=Decimal("0.55"))
    _, envelope = signed_as(silent, SILO_KEY, leaks=said.model_dump(mode="json"))
    found = verify(envelope, Submission, {SILO_KEY.public_key_hex}).record
    assert found == silent.model_copy(update={"leaks": said})
    _, envelope = signed_as(silent, SILO_KEY, leaks=None)
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        verify(envelope, Submission, {SILO_KEY.public_key_hex})
    _, envelope = signed_as(silent, SILO_KEY, leaks=said.model_dump(mode="json") | {"auc": "1.2"})
    with pytest.raises(UntrustedInputError, match="auc"):
        verify(envelope, Submission, {SILO_KEY.public_key_hex})


def test_a_plan_is_written_with_rank_weights_only_where_the_settings_ask_for_them() -> None:
    record, signer = SIGNED[0]
    merge = parsed(canonical_bytes(record))["merge"]
    assert "rank_weights" not in merge
    _, envelope = signed_as(record, signer, merge=merge | {"rank_weights": "trained"})
    assert (
        verify(envelope, RoundPlan, {signer.public_key_hex}).record.merge.rank_weights == "trained"
    )
    _, envelope = signed_as(record, signer, merge=merge | {"rank_weights": None})
    with pytest.raises(UntrustedInputError, match="one spelling of every value"):
        verify(envelope, RoundPlan, {signer.public_key_hex})


@pytest.mark.parametrize(
    "later",
    [{"colour": "red"}, {"version": 2, "colour": {"deep": [1]}}, {"issued_at": 5}],
    ids=["a field", "a nested one", "another type"],
)
@pytest.mark.parametrize(("record", "signer"), SIGNED, ids=lambda v: getattr(v, "kind", ""))
def test_what_a_later_release_wrote_names_it(
    record: Record, signer: Any, later: dict[str, Any]
) -> None:
    _, envelope = signed_as(record, signer, program="9.4", **later)
    with pytest.raises(UntrustedInputError, match=r"upgrade Consortia.*to at least 9\.4") as caught:
        verify(envelope, type(record), {signer.public_key_hex})
    assert caught.value.rule == NEWER


@pytest.mark.parametrize("program", [None, "0.0.9", "later", 7, "9.4; rm -rf /"])
def test_an_unknown_field_of_no_later_release_is_a_fault(program: Any) -> None:
    record, signer = SIGNED[1]
    _, envelope = signed_as(record, signer, program=program, colour="red")
    with pytest.raises(UntrustedInputError) as caught:
        verify(envelope, Acceptance, {signer.public_key_hex})
    assert caught.value.rule == "envelope.schema"


def test_a_later_wire_is_named_once_its_signature_was_found_good() -> None:
    record, signer = SIGNED[0]
    _, envelope = signed_as(record, signer, wire=3, program="1.2.0")
    with pytest.raises(UntrustedInputError, match=r"version 3 of the records.*at least 1\.2\.0"):
        verify(envelope, RoundPlan, {signer.public_key_hex})
    _, forged = signed_as(record, SILO_KEY, wire=3, program="1.2.0")
    with pytest.raises(UntrustedInputError) as caught:
        verify(forged, RoundPlan, {signer.public_key_hex})
    assert caught.value.rule == "envelope.signature"


def test_an_earlier_wire_is_refused_as_before() -> None:
    record, signer = SIGNED[0]
    _, envelope = signed_as(record, signer, wire=1)
    with pytest.raises(UntrustedInputError, match="found version 1"):
        verify(envelope, RoundPlan, {signer.public_key_hex})


def test_the_order_of_versions() -> None:
    order = ["0.1", "0.1.1", "0.2.0rc1", "0.10", "1", "1.0.1.dev3"]
    assert all(is_later(b, a) and not is_later(a, b) for a, b in pairwise(order))
    assert not is_later("0.1.0", "0.1") and not is_later("0.1", "0.1.0")
    assert not is_later(program_version(), program_version())
