"""Each door closes for its own reason, and opens until the last second before."""

from datetime import timedelta
from typing import Any

import pytest

from silo_agent.gate.contract_terms import ContractTerms
from silo_agent.release.doors import NO_CONTRACT, objection
from tests.aggregator.federation_samples import digest, federation, minutes

FED = federation()
SILO = FED.plan.record.cohort[0]
NOW = minutes(10)
SECOND = timedelta(seconds=1)


def terms(**changes: Any) -> ContractTerms:
    values: dict[str, Any] = {
        "digest": FED.plan.record.contract_digest_of(SILO),
        "purposes": (FED.plan.record.purpose,),
        "expires_at": minutes(600),
    }
    return ContractTerms(**values | changes)


def closed_by(contract: ContractTerms | None, **verdict: Any) -> str | None:
    refusal = objection(FED.verdict(SILO, **verdict).record, FED.plan, contract, NOW)
    return refusal.rule if refusal else None


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


def test_a_contract_that_is_gone_says_nothing_of_the_one_that_came() -> None:
    verdict = FED.verdict(SILO, passed=False).record
    other = terms(digest=digest("another contract"), egress=(), expires_at=NOW)
    assert objection(verdict, FED.plan, other, NOW) == NO_CONTRACT
    assert objection(verdict, FED.plan, None, NOW) == NO_CONTRACT
