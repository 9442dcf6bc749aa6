"""One valid record of every kind."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import (
    Abort,
    Acceptance,
    Candidate,
    Close,
    CoalitionLosses,
    ContractAgreement,
    ContributionRequest,
    CopyrightRegistry,
    Countersignature,
    CountersignedClose,
    Decision,
    Erasure,
    ErasureCertificate,
    Evaluation,
    MaskKeys,
    MaskRoster,
    Membership,
    Record,
    Refusal,
    RevealedShares,
    RoundPlan,
    RoundReport,
    SealedShares,
    ShareBook,
    Status,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.candidate import ModuleExactness, StepNorms
from data_contracts.protocol.records.close import Admitted, Refused, Rejected
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from data_contracts.protocol.records.erasure import RenewedRound, ReplayedRound, WhatStays
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.leak_statement import LeakStatement
from data_contracts.protocol.records.licence_terms import LicenceTerms
from data_contracts.protocol.records.mask_keys import RelayedRecord
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.plan_terms import ContractPin, PublicationRule
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from data_contracts.protocol.records.revealed_shares import RevealedShare
from data_contracts.protocol.records.round_report import (
    InheritedLicence,
    SiloLosses,
    SiloSummary,
)
from data_contracts.protocol.records.sealed_shares import SealedShare
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
D0, D1, D2 = "0" * 64, "1" * 64, "2" * 64
ADAPTER = ArtifactRef(digest=D2, size=1234)
ENERGY = Decimal("0.0125")
LOSS = Decimal("2.500000")
BASE_MODEL = BaseModelRef(name="tiny", digest=D0, licence="Apache-2.0")
OUTCOME = RuleOutcome(
    rule="licence.allowed",
    type="in_set",
    success=True,
    severity="critical",
    element_count=12,
    unexpected_count=None,
)
LICENCE = LicenceCount(licence="CC-BY-4.0", records=None)
OWN_LICENCE = LicenceTerms(
    licence="LicenseRef-Own",
    commercial=True,
    derivatives=True,
    share_alike=False,
    attribution=False,
    no_ai=False,
    conditional=False,
    source="The house's own texts",
)
COMMON: dict[str, Any] = {"federation": "oncology", "issued_at": NOW}
PLACE: dict[str, Any] = COMMON | {"run": "run-one", "round": 2, "attempt": 1, "plan_digest": D1}
AT_SILO: dict[str, Any] = PLACE | {"silo": "bank-a"}

STATEMENT = PrivacyStatement(
    population="ward-patients",
    unit="subject",
    sampling_rate=Decimal("0.008"),
    noise_multiplier=Decimal("1.1"),
    steps=5,
    epsilon=Decimal("0.312"),
    epsilon_lifetime=Decimal("1.204"),
    epsilon_budget=Decimal("8"),
    delta=Decimal("0.00001"),
    entries=4,
    ledger_digest=D2,
)

PLAN = RoundPlan(
    **COMMON,
    run="run-one",
    round=2,
    attempt=1,
    feed_number=3,
    previous_digest=D0,
    membership_number=1,
    membership_digest=D1,
    trust_mode="auditable",
    purpose="Answer questions",
    use="research",
    cohort=("bank-a", "bank-b"),
    contracts=(
        ContractPin(silo="bank-a", contract_digest=D0),
        ContractPin(silo="bank-b", contract_digest=D1),
    ),
    base_model=BASE_MODEL,
    starting_adapter=None,
    layout=AdapterLayout(
        rank=2,
        alpha=4,
        seed=0,
        targets=(AdapterTarget(module="model.up", in_features=4, out_features=6),),
    ),
    recipe=TrainingRecipe(
        local_steps=5,
        sequences_per_step=2,
        sequence_length=64,
        learning_rate=Decimal("0.002"),
        warmup_steps=0,
        weight_decay=Decimal("0.0"),
        max_gradient_norm=Decimal("1.0"),
        seed=1,
    ),
    merge=MergeSpec(rule="stack_truncate", weight_cap_tokens=100),
    publication=PublicationRule(max_mean_increase=Decimal("0"), max_silo_increase=Decimal("0.1")),
    max_adapter_bytes=10_000,
    quorum=2,
    submit_by=NOW + timedelta(hours=1),
    evaluation_quorum=1,
    evaluate_by=NOW + timedelta(hours=2),
    expires_at=NOW + timedelta(hours=2),
)
REPORT = RoundReport(
    **PLACE,
    outcome="held",
    rule="evaluation.quorum",
    purpose="Answer questions",
    use="research",
    trust_mode="auditable",
    base_model=BASE_MODEL,
    starting_adapter=None,
    candidate_adapter=ADAPTER,
    adapter_licence=InheritedLicence(
        expression="Apache-2.0",
        attribution=("Apache-2.0", "CC-BY-4.0"),
        reasons=("Apache-2.0 binds what is made from the base model",),
    ),
    published_adapter=None,
    merge=PLAN.merge,
    retention=PLAN.retention,
    discarded_energy=ENERGY,
    silos=(
        SiloSummary(
            silo="bank-a",
            outcome="admitted",
            rule=None,
            contract_digest=D0,
            contract_passed=True,
            tokens=100,
            weight_share=Decimal("1.000000"),
            losses=SiloLosses(base=LOSS, starting=LOSS, candidate=LOSS, silo_only=None),
            privacy=STATEMENT,
        ),
    ),
    evidence=(
        EvidenceRef(kind="round-plan", silo=None, digest=D0),
        EvidenceRef(kind="verdict", silo="bank-a", digest=D1),
    ),
)
ALL: tuple[Record, ...] = (
    PLAN,
    REPORT,
    Membership(
        **COMMON,
        number=1,
        previous_digest=None,
        expires_at=NOW + timedelta(days=90),
        root_keys=(D1, D2),
        root_threshold=2,
        retired_root_keys=(),
        coordinator_key="b" * 64,
        silos=(Member(silo="bank-a", public_key="a" * 64),),
    ),
    ContractAgreement(
        **COMMON,
        silo="bank-a",
        contract_id="letters",
        contract_version="1.0.0",
        contract_digest=D0,
        expires_at=NOW + timedelta(days=90),
    ),
    CopyrightRegistry(
        **COMMON,
        name="publishers",
        rights_holder="A publisher",
        words_per_tile=13,
        stride=13,
        normaliser="nfkc-casefold-1",
        hash_scheme="keyed-1",
        texts=40,
        texts_without_tile=2,
        tiles=1000,
        filter_bits=28_800,
        error_rate=Decimal("0.000001"),
        key_id=D1,
        filter=ArtifactRef(digest=D2, size=3600),
        expires_at=NOW + timedelta(days=365),
    ),
    Acceptance(**AT_SILO, policy_digest=D0, shares_individual_delta=True),
    Refusal(**AT_SILO, policy_digest=None, rule="policy.purpose", reason="Not allowed here."),
    Verdict(
        **AT_SILO,
        contract_digest=D0,
        findings_digest=D1,
        passed=True,
        outcomes=(OUTCOME,),
        licences=(LICENCE,),
        registered_licences=(OWN_LICENCE,),
        expires_at=NOW + timedelta(days=1),
        privacy=STATEMENT,
    ),
    Submission(
        **AT_SILO,
        verdict_digest=D0,
        adapter=ADAPTER,
        tokens=640,
        steps=5,
        first_step_loss=LOSS,
        last_step_loss=LOSS,
        training_seconds=60,
        leaks=LeakStatement(records=200, auc=Decimal("0.61"), auc_low=Decimal("0.55")),
    ),
    Close(
        **PLACE,
        admitted=(
            Admitted(
                silo="bank-a", submission_digest=D0, verdict_digest=D1, adapter=ADAPTER, weight=100
            ),
        ),
        rejected=(Rejected(silo="bank-b", submission_digest=None, rule="silo.equivocation"),),
        refused=(Refused(silo="bank-c", record_digest=D0, rule="policy.purpose"),),
        missing=("bank-d",),
        held=(
            EvidenceRef(kind="verdict", silo="bank-a", digest=D1, version="3sL4kqtJlcpXroDTDmJ+"),
            EvidenceRef(kind="submission", silo="bank-a", digest=D0, version="null-1"),
            EvidenceRef(kind="adapter", silo="bank-a", digest=D2),
            EvidenceRef(kind="refusal", silo="bank-c", digest=D0),
        ),
    ),
    Candidate(
        **PLACE,
        close_digest=D0,
        merge_rule="stack_truncate",
        adapter=ADAPTER,
        discarded_energy=ENERGY,
        modules=(ModuleExactness(module="model.up", discarded_energy=ENERGY),),
        step=Decimal("1.5"),
        step_norms=StepNorms(mean_square=Decimal("0.75"), square_of_mean=Decimal("0.25")),
    ),
    Evaluation(
        **AT_SILO,
        candidate_digest=D0,
        tokens=100,
        base_loss=LOSS,
        starting_loss=LOSS,
        candidate_loss=LOSS,
        silo_only_loss=None,
        records=40,
        change_error=ENERGY,
        base_change_error=ENERGY,
    ),
    ContributionRequest(
        **PLACE,
        close_digest=D0,
        silos=("bank-a", "bank-b"),
        coalitions=(
            CoalitionAdapter(members="11", adapter=ADAPTER, residual=ADAPTER),
            CoalitionAdapter(members="01", adapter=ADAPTER),
            CoalitionAdapter(members="00", adapter=None),
        ),
        answer_by=NOW + timedelta(hours=4),
    ),
    CoalitionLosses(**AT_SILO, request_digest=D0, tokens=100, losses=(LOSS, LOSS, LOSS)),
    Decision(
        **PLACE,
        candidate_digest=D0,
        outcome="held",
        rule="evaluation.quorum",
        evaluations=(EvidenceRef(kind="evaluation", silo="bank-a", digest=D1, version="v1"),),
        missing=("bank-b",),
        starting_mean_loss=LOSS,
        candidate_mean_loss=None,
        published_adapter=None,
    ),
    Abort(
        **PLACE,
        feed_number=4,
        previous_digest=D0,
        rule="quorum.not_reached",
        reason="Too few.",
    ),
    Erasure(
        **COMMON,
        feed_number=9,
        previous_digest=D0,
        membership_number=2,
        membership_digest=D1,
        previous=None,
        silo="bank-b",
        method="replay",
        from_run="run-one",
        from_round=2,
        revoked=(D0, D1),
        starting_adapter=ADAPTER,
        replay_run="run-two",
        replayed=(
            ReplayedRound(run="run-one", round=2, feed_number=3, plan_digest=D1, published=D0),
        ),
        seed_offset=0,
        program="0.1.0",
    ),
    ErasureCertificate(
        **PLACE,
        erasure_digest=D0,
        erased_silo="bank-b",
        method="replay",
        revoked_adapter=D0,
        new_adapter=ADAPTER,
        rounds=(RenewedRound(round=2, plan_digest=D1, old=D0, new=D2),),
        tokens_again=640,
        stays=(WhatStays(what="Its submissions.", where="Its inbox.", until=NOW),),
        has_other_seeds=False,
        program="0.1.0",
    ),
    MaskKeys(**AT_SILO, mask_key=D0, sealing_key=D1),
    MaskRoster(**PLACE, keys=(RelayedRecord(silo="bank-a", envelope="eyJ9"),)),
    SealedShares(
        **AT_SILO,
        roster_digest=D0,
        self_seed=D1,
        shares=(
            SealedShare(holder="bank-a", box="00" * 60, mask_commitment=D0, self_commitment=D1),
        ),
    ),
    ShareBook(**PLACE, roster_digest=D0, shares=(RelayedRecord(silo="bank-a", envelope="eyJ9"),)),
    Countersignature(**AT_SILO, close_digest=D0, book_digest=D1),
    CountersignedClose(
        **PLACE,
        close_digest=D0,
        book_digest=D1,
        countersignatures=(RelayedRecord(silo="bank-a", envelope="eyJ9"),),
    ),
    RevealedShares(
        **AT_SILO,
        close_digest=D0,
        countersigned_digest=D1,
        shares=(RevealedShare(owner="bank-b", secret="self_seed", share="0f" * 16),),
    ),
    Status(
        **AT_SILO,
        number=1,
        phase="training",
        step=1,
        steps=5,
        tokens_per_second=Decimal("158.2"),
        eta_seconds=12,
    ),
)
SAMPLES: dict[str, Record] = {record.kind: record for record in ALL}
