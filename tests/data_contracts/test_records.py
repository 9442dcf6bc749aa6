"""Records are frozen, closed, and equal after a trip over the wire."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from data_contracts.protocol.envelope import seal, verify
from data_contracts.protocol.payload import canonical_bytes, table_bytes
from data_contracts.protocol.records import RECORD_TYPES, Evaluation, Membership, RoundPlan
from data_contracts.protocol.records.membership import EarlierMembership, Member, Revocation
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.records.plan_terms import CountedCopy
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, rate_of
from data_contracts.protocol.wire_types import decimal_from_float
from infra.signing_keys import SigningKey
from tests.data_contracts.record_samples import PLAN, SAMPLES

KINDS = sorted(RECORD_TYPES)
SIGNER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def test_there_is_a_sample_of_every_kind() -> None:
    assert sorted(SAMPLES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_round_trips_to_the_same_value_and_bytes(kind: str) -> None:
    sealed = seal(SAMPLES[kind], SIGNER)
    again = verify(sealed.envelope, RECORD_TYPES[kind], [SIGNER.public_key_hex])
    assert again == sealed
    assert (canonical_bytes(again.record), table_bytes(again.record)) == (
        canonical_bytes(SAMPLES[kind]),
        table_bytes(SAMPLES[kind]),
    )
    assert not any(isinstance(value, float) for value in wire_of(kind).values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_is_frozen(kind: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SAMPLES[kind].federation = "another"  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_refused_at_every_level(kind: str) -> None:
    wire = wire_of(kind)
    assert _accepts(kind, wire)
    for place in _objects(wire):
        place["surprise"] = 1
        assert not _accepts(kind, wire)
        del place["surprise"]


def wire_of(kind: str) -> dict[str, Any]:
    """The record as JSON, its table in place."""
    return dict(SAMPLES[kind].model_dump(mode="json"))


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in _objects(item))]
    return [found for item in value for found in _objects(item)] if isinstance(value, list) else []


def _accepts(kind: str, wire: Any) -> bool:
    try:
        RECORD_TYPES[kind].model_validate_json(json.dumps(wire))
    except ValidationError:
        return False
    return True


def evaluation_with(loss: Any) -> Evaluation:
    wire = json.loads(canonical_bytes(SAMPLES["evaluation"])) | {"base_loss": loss}
    return Evaluation.model_validate_json(json.dumps(wire))


@pytest.mark.parametrize("text", ["0", "0.002", "2.50", "1000000"])
def test_decimals_travel_as_strings(text: str) -> None:
    assert evaluation_with(text).base_loss == Decimal(text)


@pytest.mark.parametrize("text", ["-1", "-0.1", "1000000.1", "999999999999999999.5"])
def test_a_loss_is_one_that_can_be_measured(text: str) -> None:
    """A mean over institutions has to fit its own record."""
    with pytest.raises(ValidationError, match="than or equal"):
        evaluation_with(text)


@pytest.mark.parametrize(
    "value",
    [2.5, 2, True, None, "", ".", "-", "--1", "1-2", "1.2.3", "NaN", "Infinity", "1e5", " 1", "+1",
     "1" * 19, "0." + "1" * 21, "\u0661", "1\n"],
)  # fmt: skip
def test_other_spellings_of_a_decimal_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="decimal"):
        evaluation_with(value)


def test_a_decimal_that_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValidationError, match="decimal"):
        Evaluation(**{**dict(SAMPLES["evaluation"]), "base_loss": Decimal(1) / Decimal(3)})
    with pytest.raises(ValidationError, match="decimal"):
        Evaluation(**{**dict(SAMPLES["evaluation"]), "base_loss": Decimal("NaN")})


@pytest.mark.parametrize(
    "changes",
    [{"records": -1}, {"records": 2.5}, {"records": "40"}, {"change_error": "-0.001"},
     {"change_error": 0.001}, {"base_change_error": "-1"}, {"base_change_error": "NaN"}],
)  # fmt: skip
def test_no_evaluation_of_negative_records_or_errors(changes: dict[str, Any]) -> None:
    wire = wire_of("evaluation")
    assert _accepts("evaluation", wire)
    assert not _accepts("evaluation", wire | changes)


@pytest.mark.parametrize("field", ["records", "change_error", "base_change_error"])
def test_an_evaluation_may_withhold_what_is_said_of_single_records(field: str) -> None:
    wire = wire_of("evaluation")
    withheld = Evaluation.model_validate_json(json.dumps(wire | {field: None}))
    absent = {name: value for name, value in wire.items() if name != field}
    assert Evaluation.model_validate_json(json.dumps(absent)) == withheld
    assert getattr(withheld, field) is None


def test_decimal_from_float_rounds_and_refuses_what_is_not_finite() -> None:
    assert decimal_from_float(0.1 + 0.2) == Decimal("0.300000")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            decimal_from_float(value)


@pytest.mark.parametrize(
    "text",
    ["2026-03-02", "2026-03-02T09:00:00", "2026-03-02T09:00:00+01:00", "2026-3-2T9:0:0Z",
     "2026-13-02T09:00:00Z", "2026-03-02T09:00:00.5Z", "0001-01-01T00:00:00Z",
     "9999-12-31T23:59:59Z", "2026-03-02T09:00:00Z\n", 1772442000],
)  # fmt: skip
def test_instants_have_one_spelling(text: Any) -> None:
    wire = json.loads(canonical_bytes(SAMPLES["abort"])) | {"issued_at": text}
    assert not _accepts("abort", wire)


def test_instants_from_other_clocks_become_utc_in_whole_seconds() -> None:
    east = datetime(2026, 3, 2, 10, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    abort = type(SAMPLES["abort"])(**{**dict(SAMPLES["abort"]), "issued_at": east})
    assert abort.issued_at == datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    with pytest.raises(ValidationError, match="UTC instant"):
        type(abort)(**{**dict(abort), "issued_at": east.replace(tzinfo=None)})


@pytest.mark.parametrize(
    "name",
    ["", "a", "A-silo", "silo_a", "silo-", "-silo", "../x", "a/b", "a\x00b", "x" * 25, "ab\n"],
)
def test_ids_are_safe_for_buckets_and_paths(name: str) -> None:
    wire = json.loads(canonical_bytes(SAMPLES["acceptance"]))
    for field in ("silo", "run", "federation"):
        assert not _accepts("acceptance", wire | {field: name})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": ("bank-a", "bank-a")}, "distinct"),
        ({"cohort": ("bank-a",)}, "contracts must name each silo"),
        ({"contracts": ()}, "contracts must name each silo"),
        ({"quorum": 3}, "cannot exceed the cohort"),
        ({"evaluation_quorum": 3}, "cannot exceed the cohort"),
        ({"submit_by": PLAN.issued_at}, "issued_at < submit_by"),
        ({"expires_at": PLAN.submit_by}, "evaluate_by <= expires_at"),
        ({"round": 0}, "greater than or equal to 1"),
    ],
)
def test_plans_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RoundPlan(**{**dict(PLAN), **changes})


EARLIER = (EarlierMembership(digest="0" * 64, after_feed_number=0),)
SECOND: dict[str, Any] = {"number": 2, "previous_digest": "0" * 64, "earlier": EARLIER}
REVOKED = (Revocation(public_key="3" * 64),)
DECIDED = (Revocation(public_key="3" * 64, plan_digest="1" * 64, decision_digest="0" * 64),)
UNPLANNED = (Revocation(public_key="3" * 64, close_digest="0" * 64),)
LATER = (Revocation(public_key="3" * 64, last_feed_number=1),)


def test_a_member_takes_part_from_its_first_to_its_last_round() -> None:
    member = Member(silo="bank-a", public_key="a" * 64, first_round=3, last_round=5)
    assert [n for n in range(1, 8) if member.takes_part(n)] == [3, 4, 5]
    endless = Member(silo="bank-b", public_key="c" * 64)
    assert endless.takes_part(1) and endless.takes_part(9999)
    sample = SAMPLES["membership"].model_dump() | {"silos": (member, endless)}
    membership = Membership(**sample)
    assert membership.silos_of_round(2) == ("bank-b",)
    assert membership.silos_of_round(4) == ("bank-a", "bank-b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root_keys": ("1" * 64, "1" * 64)}, "root_keys must be distinct"),
        ({"root_threshold": 3}, "larger than the number"),
        ({"root_threshold": 0}, "greater than or equal to 1"),
        ({"coordinator_key": "a" * 64}, "silos and keys must be distinct"),
        ({"coordinator_key": "A" * 64}, "pattern"),
        ({"coordinator_key": "0" * 64}, "a point of small order"),
        ({"retired_root_keys": ("1" * 64,)}, "must be distinct"),
        ({"previous_digest": "0" * 64}, "has no previous_digest"),
        ({"number": 2}, "has no previous_digest"),
        ({"number": 2, "previous_digest": "0" * 64}, "every version before this"),
        ({"earlier": EARLIER}, "every version before this"),
        (SECOND | {"previous_digest": "1" * 64}, "every version before this"),
        ({"after_feed_number": 1}, "that of the entry after_feed_number"),
        ({"after_feed_digest": "0" * 64}, "that of the entry after_feed_number"),
        ({"after_feed_number": 1, "after_feed_digest": "0" * 64}, "follows nothing"),
        ({"retired_root_keys": ("3" * 64,)}, "follows nothing"),
        (SECOND | {"revoked": REVOKED + REVOKED}, "must be distinct"),
        (SECOND | {"revoked": (Revocation(public_key="a" * 64),)}, "and nobody's"),
        (SECOND | {"revoked": (Revocation(public_key="b" * 64),)}, "and nobody's"),
        (SECOND | {"revoked": UNPLANNED}, "rests on a close, and that on a plan"),
        (SECOND | {"revoked": LATER}, "ends where this version begins"),
        (SECOND | {"revoked": DECIDED}, "rests on a close, and that on a plan"),
    ],
)
def test_memberships_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Membership(**{**dict(SAMPLES["membership"]), **changes})


PRIVACY = PrivacyTerms(unit="record", clipping_norm=Decimal("1"), noise_multiplier=Decimal("1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": PLAN.recipe.model_copy(update={"least_steps": 2})}, "no least_steps"),
        (
            {"recipe": PLAN.recipe.model_copy(update={"proximal_mu": Decimal("0.1")})},
            "a proximal_mu of 0",
        ),
        ({"task": FamilyTask(family="dual-encoder")}, "dual-encoder"),
        ({"counted_copies": (CountedCopy(silo="bank-a", decision="known"),)}, "no counted copies"),
    ],
    ids=["least-steps", "proximal", "pairs", "copies"],
)
def test_plans_that_cannot_be_private(changes: dict[str, Any], message: str) -> None:
    fields = {name: getattr(PLAN, name) for name in type(PLAN).model_fields}
    RoundPlan(**fields | changes)
    with pytest.raises(ValidationError, match=message):
        RoundPlan(**fields | {"privacy": PRIVACY} | changes)


def test_a_private_plan_round_trips_and_a_plain_one_does_not_speak_of_it() -> None:
    private = RoundPlan(
        **{n: getattr(PLAN, n) for n in type(PLAN).model_fields} | {"privacy": PRIVACY}
    )
    sealed = seal(private, SIGNER)
    assert verify(sealed.envelope, RoundPlan, [SIGNER.public_key_hex]) == sealed
    assert b"privacy" in canonical_bytes(private)
    assert b"privacy" not in canonical_bytes(PLAN)


@pytest.mark.parametrize("noise", ["0", "0.001", "1000.1", "-1", "NaN"])
def test_noise_that_hides_nothing_or_overflows_is_no_term(noise: str) -> None:
    with pytest.raises(ValidationError, match="noise_multiplier"):
        PrivacyTerms.model_validate(PRIVACY.model_dump() | {"noise_multiplier": noise})


def test_a_rate_tells_the_number_of_units_to_three_digits_at_most() -> None:
    assert rate_of(8, 1001) == rate_of(8, 1000) == Decimal("0.008")
    assert rate_of(8, 999) == Decimal("0.00801")
    assert rate_of(8, 3) == 1
