"""Real signed records of a small federation, each field open to change by the test."""

import html
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.attempt import Attempt, SiloRecords
from aggregator.decisions.admission import judge
from aggregator.decisions.publication import decide
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.files import ReportFiles, report_with_page
from aggregator.report.report_file import ReportFile, signed_page
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_bytes, digest_of_bytes
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import (
    Abort,
    Acceptance,
    Candidate,
    Close,
    ContractAgreement,
    Decision,
    Evaluation,
    Membership,
    Refusal,
    RoundPlan,
    RoundReport,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.candidate import ModuleExactness
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.plan_terms import ContractPin, PublicationRule
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from infra.signing_keys import SigningKey

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
COHORT = ("bank-a", "hospital-b", "hospital-c")
NAMES = {
    "bank-a": "Harbour Savings Bank",
    "hospital-b": "Hospital of the Holy Ghost",
    "hospital-c": "County Hospital South",
}


def key(name: str) -> SigningKey:
    seed = bytes.fromhex(digest_of_bytes(name.encode()))
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


def digest(text: str) -> str:
    return digest_of_bytes(text.encode())


def minutes(number: int) -> datetime:
    return START + timedelta(minutes=number)


def adapter_ref(name: str) -> ArtifactRef:
    return artifact_of_bytes(f"adapter of {name}".encode())


RULE = RuleOutcome(
    rule="licence.allowed",
    type="expect_column_values_to_be_in_set",
    success=True,
    severity="critical",
    element_count=1200,
    unexpected_count=0,
    tolerated_per_mille=0,
)
OTHER_RULES = tuple(
    RULE.model_copy(update={"rule": rule, "type": "built_in"})
    for rule in sorted(REQUIRED_RULES - {RULE.rule})
)
"""A verdict that lacks one of them is no pass."""


@dataclass(frozen=True)
class Federation:
    """Keys, membership and plan; every method seals one record with the right key."""

    membership: Verified[Membership]
    plan: Verified[RoundPlan]

    def _place(self, at: int, **changes: Any) -> dict[str, Any]:
        plan = self.plan.record
        place: dict[str, Any] = {
            "federation": plan.federation,
            "issued_at": minutes(at),
            "run": plan.run,
            "round": plan.round,
            "attempt": plan.attempt,
            "plan_digest": self.plan.digest,
        }
        return place | changes

    def agreement(self, silo: str, /, **changes: Any) -> bytes:
        """What both sides signed of the silo's contract."""
        return self.agreement_by(key(silo), key("coordinator"), silo=silo, **changes)

    def agreement_by(self, *signers: SigningKey, silo: str, **changes: Any) -> bytes:
        """Signed by somebody else than both sides."""
        fields: dict[str, Any] = {
            "federation": self.plan.record.federation,
            "issued_at": START - timedelta(days=30),
            "silo": silo,
            "contract_id": f"{silo}-letters",
            "contract_version": "1.2.0",
            "contract_name": f"Discharge letters of {silo}",
            "contract_digest": digest(f"contract of {silo}"),
            "expires_at": minutes(100_000),
        }
        agreement = ContractAgreement(**fields | changes)
        return seal(agreement, *signers).envelope

    def acceptance(self, silo: str, /, **changes: Any) -> Verified[Acceptance]:
        agreement = to_base64(self.agreement(silo))
        fields = self._place(1, silo=silo, policy_digest=digest("policy"), agreement=agreement)
        return seal(Acceptance(**fields | changes), key(silo))

    def refusal(self, silo: str, /, **changes: Any) -> Verified[Refusal]:
        fields = self._place(
            1,
            silo=silo,
            policy_digest=digest("policy"),
            rule="policy.purpose",
            reason="The purpose is not among those that the policy allows.",
        )
        return seal(Refusal(**fields | changes), key(silo))

    def verdict(self, silo: str, /, **changes: Any) -> Verified[Verdict]:
        fields = self._place(
            2,
            silo=silo,
            contract_digest=digest(f"contract of {silo}"),
            findings_digest=digest("findings"),
            passed=True,
            outcomes=(RULE, *OTHER_RULES),
            licences=(
                LicenceCount(licence="Apache-2.0", records=1200),
                LicenceCount(licence="CC-BY-4.0", records=None),
            ),
            expires_at=minutes(600),
            offered=1254,
            used=1230,
        )
        return seal(Verdict(**fields | changes), key(silo))

    def submission(
        self, silo: str, verdict: Verified[Verdict], /, **changes: Any
    ) -> Verified[Submission]:
        fields = self._place(
            20,
            silo=silo,
            verdict_digest=verdict.digest,
            adapter=adapter_ref(silo),
            tokens=5000,
            steps=10,
            first_step_loss=Decimal("3.1"),
            last_step_loss=Decimal("2.4"),
            training_seconds=400,
        )
        return seal(Submission(**fields | changes), key(silo))

    def silo(self, silo: str, /, **changes: Any) -> SiloRecords:
        """Records that are admitted unless `changes` says otherwise."""
        verdict = self.verdict(silo)
        fields: dict[str, Any] = {
            "silo": silo,
            "acceptance": self.acceptance(silo),
            "verdict": verdict,
            "submission": self.submission(silo, verdict),
        }
        return SiloRecords(**fields | changes)

    def close(self, silos: list[SiloRecords]) -> Verified[Close]:
        return seal(judge(self.plan, silos, minutes(62)), key("coordinator"))

    def candidate(self, close: Verified[Close], **changes: Any) -> Verified[Candidate]:
        fields = self._place(
            63,
            close_digest=close.digest,
            merge_rule="stack_truncate",
            adapter=adapter_ref("candidate"),
            discarded_energy=Decimal("0.0123"),
            modules=(ModuleExactness(module="model.q_proj", discarded_energy=Decimal("0.0123")),),
        )
        return seal(Candidate(**fields | changes), key("coordinator"))

    def evaluation(
        self, silo: str, candidate: Verified[Candidate], /, **changes: Any
    ) -> Verified[Evaluation]:
        fields = self._place(
            70,
            silo=silo,
            candidate_digest=candidate.digest,
            tokens=900,
            base_loss=Decimal("3.2"),
            starting_loss=Decimal("2.9"),
            candidate_loss=Decimal("2.6"),
            silo_only_loss=Decimal("2.75"),
            records=40,
            change_error=Decimal("0.05"),
            base_change_error=Decimal("0.07"),
        )
        return seal(Evaluation(**fields | changes), key(silo))

    def decision(
        self, candidate: Verified[Candidate], evaluations: dict[str, Verified[Evaluation]]
    ) -> Verified[Decision]:
        silos = [SiloRecords(silo, evaluation=e) for silo, e in evaluations.items()]
        return seal(decide(self.plan, candidate, silos, minutes(125)), key("coordinator"))

    def abort(self, **changes: Any) -> Verified[Abort]:
        fields = self._place(
            64,
            feed_number=2,
            previous_digest=self.plan.digest,
            rule="quorum.not_reached",
            reason="1 of 2 needed submissions were admitted.",
        )
        return seal(Abort(**fields | changes), key("coordinator"))

    def report(self, attempt: Attempt) -> Verified[RoundReport]:
        return seal(report_with_page(attempt, minutes(126)), key("coordinator"))

    def bundle(self, attempt: Attempt) -> Bundle:
        """The report and its evidence."""
        return bundle_of(self.report(attempt), attempt)

    def page(self, attempt: Attempt) -> str:
        """The page of the attempt's report, as it is written."""
        page = signed_page(ReportFile(self.bundle(attempt)))
        assert page is not None
        return page.decode()

    def page_text(self, attempt: Attempt) -> str:
        """What a person reads on it, on one line."""
        shown = self.page(attempt).split("<main>")[1].split("</main>")[0]
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())

    def attempt(self, silos: list[SiloRecords], **records: Any) -> Attempt:
        evaluations = records.pop("evaluations", {})
        mine = {own.silo: own for own in silos}
        mine |= {
            silo: replace(mine.get(silo) or SiloRecords(silo), evaluation=evaluation)
            for silo, evaluation in evaluations.items()
        }
        return Attempt(membership=self.membership, plan=self.plan, silos=mine, **records)

    def finished(self, silos: list[SiloRecords], **losses: Decimal | int | None) -> Attempt:
        """A decided attempt; `losses` change each evaluation."""
        close = self.close(silos)
        candidate = self.candidate(close)
        evaluations = {
            item.silo: self.evaluation(item.silo, candidate, **losses)
            for item in close.record.admitted
        }
        decision = self.decision(candidate, evaluations)
        return self.attempt(
            silos, close=close, candidate=candidate, evaluations=evaluations, decision=decision
        )


def page_file(files: ReportFiles) -> Path:
    """The page of a report that was written with one."""
    assert files.page is not None
    return files.page


def membership(**changes: Any) -> Verified[Membership]:
    root = key("root")
    fields: dict[str, Any] = {
        "federation": "oncology",
        "issued_at": START,
        "number": 1,
        "previous_digest": None,
        "expires_at": minutes(100_000),
        "root_keys": (root.public_key_hex,),
        "root_threshold": 1,
        "coordinator_key": key("coordinator").public_key_hex,
        "silos": tuple(
            Member(silo=s, public_key=key(s).public_key_hex, name=NAMES[s]) for s in COHORT
        ),
    }
    return seal(Membership(**fields | changes), root)


def plan(members: Verified[Membership], **changes: Any) -> RoundPlan:
    fields: dict[str, Any] = {
        "federation": "oncology",
        "issued_at": START,
        "run": "run-one",
        "round": 2,
        "attempt": 1,
        "feed_number": 1,
        "previous_digest": None,
        "membership_number": members.record.number,
        "membership_digest": members.digest,
        "trust_mode": "auditable",
        "purpose": "Answer coding questions about discharge letters",
        "use": "research",
        "cohort": COHORT,
        "contracts": tuple(
            ContractPin(silo=s, contract_digest=digest(f"contract of {s}")) for s in COHORT
        ),
        "base_model": BaseModelRef(name="tiny", digest=digest("base"), licence="Apache-2.0"),
        "starting_adapter": adapter_ref("start"),
        "layout": AdapterLayout(
            rank=2,
            alpha=4,
            seed=1,
            targets=(AdapterTarget(module="model.q_proj", in_features=4, out_features=4),),
        ),
        "recipe": TrainingRecipe(
            local_steps=10,
            sequences_per_step=8,
            sequence_length=128,
            learning_rate=Decimal("0.001"),
            warmup_steps=1,
            weight_decay=Decimal("0"),
            max_gradient_norm=Decimal("1"),
            seed=3,
        ),
        "merge": MergeSpec(rule="stack_truncate", weight_cap_tokens=8000),
        "publication": PublicationRule(
            max_mean_increase=Decimal("0"), max_silo_increase=Decimal("0.1")
        ),
        "max_adapter_bytes": 10_000,
        "quorum": 2,
        "submit_by": minutes(60),
        "evaluation_quorum": 2,
        "evaluate_by": minutes(120),
        "expires_at": minutes(180),
    }
    return RoundPlan(**fields | changes)


def federation(**plan_changes: Any) -> Federation:
    members = membership()
    return Federation(members, seal(plan(members, **plan_changes), key("coordinator")))


def allowing(least_steps: int, cap: int = 10**12) -> Federation:
    """A federation whose 10 steps need not all be done."""
    members = membership()
    recipe = plan(members).recipe.model_copy(update={"least_steps": least_steps})
    return federation(recipe=recipe, merge=MergeSpec(rule="stack_truncate", weight_cap_tokens=cap))
