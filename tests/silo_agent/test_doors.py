"""Each door closes for its own reason, and opens until the last second before."""

import tomllib
from datetime import datetime, timedelta
from typing import Any

import pytest

from data_contracts.protocol.records import (
    CoalitionLosses,
    Countersignature,
    Evaluation,
    MaskKeys,
    RevealedShares,
    SealedShares,
    SiloRecord,
    Status,
    Submission,
    Verdict,
)
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.policy_file import Policy, PolicyFile
from silo_agent.release.doors import NO_CONTRACT, NOT_SHARED, Grounds, objection
from silo_agent.release.outbox import RELEASED_TYPES
from silo_agent.release.release import ANSWERS
from tests.aggregator.federation_samples import digest, federation, minutes
from tests.silo_agent.test_policy import EXACT, POLICY

FED = federation()
SILO = FED.plan.record.cohort[0]
NOW = minutes(10)
SECOND = timedelta(seconds=1)
STATED = tomllib.loads(POLICY.format(**EXACT))
SHARES = PolicyFile(Policy(**STATED | {"share_individual_delta": True}), "0" * 64, None)
SHARES_NOT = PolicyFile(Policy(**STATED), "0" * 64, None)
NONE = PolicyFile(None, None, "policy.toml: No such file or directory")


def terms(**changes: Any) -> ContractTerms:
    values: dict[str, Any] = {
        "digest": FED.plan.record.contract_digest_of(SILO),
        "purposes": (FED.plan.record.purpose,),
        "expires_at": minutes(600),
    }
    return ContractTerms(**values | changes)


def closed_by(contract: ContractTerms | None, **verdict: Any) -> str | None:
    refusal = asked(FED.verdict(SILO, **verdict).record, contract)
    return refusal.rule if refusal else None


def asked(
    verdict: Verdict | None,
    contract: ContractTerms | None,
    kind: type[SiloRecord] = Submission,
    policy: PolicyFile = SHARES,
) -> PolicyRefusal | None:
    silo = verdict.silo if verdict else SILO
    return objection(kind, Grounds(silo, FED.plan, verdict, contract, policy, NOW))


def test_a_pass_on_the_contract_in_force_opens_the_door() -> None:
    assert closed_by(terms()) is None
    assert closed_by(terms(expires_at=NOW + SECOND), expires_at=NOW + SECOND) is None
    assert closed_by(terms(egress=("local-adapter",))) is None


@pytest.mark.parametrize(
    ("rule", "contract", "verdict"),
    [
        ("contract.changed", None, {}),
        ("contract.changed", terms(digest=digest("another contract")), {}),
        ("contract.changed", terms(), {"silo": "bank-z"}),
        ("verdict.other_contract", terms(), {"contract_digest": digest("another contract")}),
        ("verdict.other_contract", terms(), {"plan_digest": digest("another plan")}),
        ("verdict.failed", terms(), {"passed": False}),
        ("verdict.expired", terms(), {"expires_at": NOW}),
        ("contract.expired", terms(expires_at=NOW), {}),
        ("contract.egress", terms(egress=("status", "rule-counts", "losses")), {}),
        ("contract.egress", terms(egress=()), {}),
    ],
)
def test_each_door_closes_by_its_rule(
    rule: str, contract: ContractTerms | None, verdict: dict[str, Any]
) -> None:
    assert closed_by(contract, **verdict) == rule


@pytest.mark.parametrize("kind", [Verdict, Submission, Evaluation])
def test_nothing_of_an_attempt_leaves_once_its_plan_has_expired(kind: type[SiloRecord]) -> None:
    """Everything else is still as it was when the plan was accepted."""

    def at(now: datetime) -> PolicyRefusal | None:
        later = minutes(6000)
        verdict = FED.verdict(SILO, expires_at=later).record
        contract = terms(expires_at=later)
        return objection(kind, Grounds(SILO, FED.plan, verdict, contract, SHARES, now))

    expires_at = FED.plan.record.expires_at
    assert at(expires_at - SECOND) is None
    refusal = at(expires_at)
    assert refusal is not None and refusal.rule == "plan.expired"


def test_what_is_asked_after_an_attempt_has_a_time_of_its_own() -> None:
    later = minutes(6000)
    verdict, contract = FED.verdict(SILO, expires_at=later).record, terms(expires_at=later)
    expired = FED.plan.record.expires_at + SECOND
    for kind in (CoalitionLosses, Status):
        grounds = Grounds(SILO, FED.plan, verdict, contract, SHARES, expired)
        assert objection(kind, grounds) is None


def test_a_contract_that_is_gone_says_nothing_of_the_one_that_came() -> None:
    verdict = FED.verdict(SILO, passed=False).record
    other = terms(digest=digest("another contract"), egress=(), expires_at=NOW)
    assert asked(verdict, other) == NO_CONTRACT
    assert asked(verdict, None) == NO_CONTRACT


PASS = FED.verdict(SILO).record
FAIL = FED.verdict(SILO, passed=False).record
MASKS: tuple[type[SiloRecord], ...] = (MaskKeys, SealedShares, Countersignature, RevealedShares)
KINDS: tuple[type[SiloRecord], ...] = (
    Verdict,
    *MASKS,
    Submission,
    Evaluation,
    CoalitionLosses,
    Status,
)


def test_whatever_leaves_is_an_answer_to_the_plan_or_has_a_door() -> None:
    assert {*ANSWERS, *KINDS} == {*RELEASED_TYPES, Status}
    assert [asked(PASS, terms(), kind) for kind in KINDS] == [None] * len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contract", [None, terms(digest=digest("another contract"))])
def test_without_the_contract_that_the_plan_names_only_answers_leave(
    kind: type[SiloRecord], contract: ContractTerms | None
) -> None:
    assert asked(PASS, contract, kind) == NO_CONTRACT


@pytest.mark.parametrize(
    ("kind", "verdict", "contract", "rule"),
    [
        (Verdict, None, terms(egress=(), expires_at=NOW), None),
        (Verdict, FAIL, terms(), None),
        (Submission, None, terms(), "verdict.other_contract"),
        (Evaluation, None, terms(), "verdict.other_contract"),
        (Evaluation, FAIL, terms(), "verdict.failed"),
        (Evaluation, PASS, terms(egress=("status", "local-adapter")), "contract.egress"),
        (Evaluation, PASS, terms(egress=("losses",)), None),
        (CoalitionLosses, FAIL, terms(), "verdict.failed"),
        (CoalitionLosses, PASS, terms(egress=("status", "local-adapter")), "contract.egress"),
        (Status, None, terms(egress=("status",)), None),
        (Status, FAIL, terms(), None),
        (Status, PASS, terms(egress=("losses", "rule-counts")), "contract.egress"),
        (Status, PASS, terms(expires_at=NOW), "contract.expired"),
        (Status, PASS, terms(expires_at=NOW + SECOND), None),
    ],
)
def test_each_kind_has_its_own_door(
    kind: type[SiloRecord], verdict: Verdict | None, contract: ContractTerms, rule: str | None
) -> None:
    refusal = asked(verdict, contract, kind)
    assert (refusal.rule if refusal else None) == rule


@pytest.mark.parametrize("policy", [SHARES_NOT, NONE])
def test_only_losses_of_coalitions_ask_whether_the_policy_shares(policy: PolicyFile) -> None:
    told = {kind: asked(PASS, terms(), kind, policy) for kind in KINDS}
    assert told.pop(CoalitionLosses) == NOT_SHARED
    assert set(told.values()) == {None}


@pytest.mark.parametrize("kind", MASKS)
def test_words_about_masks_leave_by_the_door_of_the_adapter(kind: type[SiloRecord]) -> None:
    assert asked(PASS, terms(egress=("losses",)), kind) == asked(
        PASS, terms(egress=("losses",)), Submission
    )
    assert asked(None, terms(), kind) == asked(None, terms(), Submission)
