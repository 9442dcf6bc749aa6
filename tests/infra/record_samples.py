"""Signed records to put into buckets: the smallest that fit their schemas."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.protocol.bucket_layout import RoundId
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.membership_chain import earlier_after
from data_contracts.protocol.records import Abort, Acceptance, Membership, RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.plan_terms import ContractPin, PublicationRule
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.signing_keys import SigningKey

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROUND = RoundId("run-a", 1, 1, "b" * 64)


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


ROOT, COORDINATOR, SILO, STRANGER = new_key(), new_key(), new_key(), new_key()
KEYS = [COORDINATOR.public_key_hex]
SILO_KEYS = [SILO.public_key_hex]


def acceptance(policy: str = "a" * 64, key: SigningKey = SILO) -> Verified[Acceptance]:
    record = Acceptance(
        federation="fed",
        issued_at=NOW,
        run="run-a",
        round=1,
        attempt=1,
        plan_digest="b" * 64,
        silo="silo-a",
        policy_digest=policy,
    )
    return seal(record, key)


def membership(
    number: int = 1,
    previous: Verified[Membership] | None = None,
    after: Verified[Any] | None = None,
    *signers: SigningKey,
    **changes: Any,
) -> Verified[Membership]:
    """One root key and one silo, unless `changes` says otherwise; it begins after `after`."""
    fields: dict[str, Any] = {
        "federation": "fed",
        "issued_at": NOW,
        "number": number,
        "previous_digest": previous.digest if previous else None,
        "earlier": earlier_after(previous) if previous else (),
        "revoked": previous.record.revoked if previous else (),
        "expires_at": NOW + 24 * HOUR,
        "root_keys": (ROOT.public_key_hex,),
        "root_threshold": 1,
        "coordinator_key": COORDINATOR.public_key_hex,
        "silos": (Member(silo="silo-a", public_key=SILO.public_key_hex),),
        "after_feed_number": after.record.feed_number if after else 0,
        "after_feed_digest": after.digest if after else None,
    }
    revoked = (*fields["revoked"], *changes.pop("revokes", ()))
    fields["revoked"] = revoked
    return seal(Membership(**fields | changes), *(signers or (ROOT,)))


def plan(
    number: int,
    previous: str | None,
    key: SigningKey = COORDINATOR,
    under: Verified[Membership] | None = None,
    **changes: Any,
) -> Verified[RoundPlan]:
    under = under or FIRST
    zero = Decimal("0")
    record = RoundPlan(
        federation="fed",
        issued_at=NOW,
        run="run-a",
        round=number,
        attempt=1,
        feed_number=number,
        previous_digest=previous,
        membership_number=under.record.number,
        membership_digest=under.digest,
        trust_mode="auditable",
        purpose="testing",
        use="research",
        cohort=("silo-a",),
        contracts=(ContractPin(silo="silo-a", contract_digest="d" * 64),),
        base_model=BaseModelRef(name="tiny", digest="e" * 64, licence="Apache-2.0"),
        starting_adapter=None,
        layout=AdapterLayout(
            rank=2,
            alpha=4,
            seed=1,
            targets=(AdapterTarget(module="layer.q", in_features=4, out_features=4),),
        ),
        recipe=TrainingRecipe(
            local_steps=1,
            sequences_per_step=1,
            sequence_length=16,
            learning_rate=Decimal("0.001"),
            warmup_steps=0,
            weight_decay=zero,
            max_gradient_norm=Decimal("1"),
            seed=1,
        ),
        merge=MergeSpec(rule="stack_truncate", weight_cap_tokens=100),
        publication=PublicationRule(max_mean_increase=zero, max_silo_increase=zero),
        max_adapter_bytes=1000,
        quorum=1,
        submit_by=NOW + HOUR,
        evaluation_quorum=1,
        evaluate_by=NOW + 2 * HOUR,
        expires_at=NOW + 3 * HOUR,
    )
    return seal(record.model_copy(update=changes), key)


def abort(
    number: int,
    previous: str,
    reason: str = "quorum missed",
    key: SigningKey = COORDINATOR,
    plan_digest: str | None = None,
) -> Verified[Abort]:
    record = Abort(
        federation="fed",
        issued_at=NOW,
        run="run-a",
        round=1,
        attempt=1,
        plan_digest=plan_digest or previous,
        feed_number=number,
        previous_digest=previous,
        rule="quorum",
        reason=reason,
    )
    return seal(record, key)


FIRST = membership()
