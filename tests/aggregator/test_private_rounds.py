"""Whole rounds under differential privacy, in memory: what is charged, said and kept in."""

from decimal import Decimal
from typing import Any

import pytest

from aggregator.federated_round import abort_round, advance
from aggregator.feed.reading import read_federation, read_report
from aggregator.settings.federation import CopiesSection
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection
from aggregator.settings.privacy import PrivacySection
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.errors import FederationOperatorError
from data_contracts.privacy.accountant import PrivateSteps, epsilon_of
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified, unverified_record
from data_contracts.protocol.records import RoundPlan, RoundReport, Status
from silo_agent.privacy.ledger import PrivacyLedger
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo

DELTA = Decimal("0.001")
RECORDS = PrivacySection(unit="record", clipping_norm=Decimal("1"), noise_multiplier=Decimal("1.5"))
SUBJECTS = RECORDS.model_copy(update={"unit": "subject"})


def budget(silo: str, **changes: Any) -> PrivacyBudget:
    terms = {"population": f"of-{silo}", "unit": "record", "epsilon": "8", "delta": str(DELTA)}
    return PrivacyBudget.model_validate(terms | changes)


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return private(make_federation)


def private(
    make: MakeFederation,
    fields: dict[str, Any] | None = None,
    terms: PrivacySection = RECORDS,
    **changes: Any,
) -> SimulatedFederation:
    honest = dict.fromkeys("abc", Behaviour.HONEST)
    federation = make({"privacy": terms} | (fields or {}), **honest)
    for name, silo in federation.silos.items():
        silo.contract.privacy = budget(name, **changes)
    return federation


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    c = federation.coordinator()
    found = read_report(c, read_federation(c), plan)
    assert found is not None
    return found.record


def played(federation: SimulatedFederation, number: int = 1) -> RoundReport:
    plan = federation.open(number)
    federation.play(plan)
    return report_of(federation, plan)


def rules(report: RoundReport) -> set[str | None]:
    return {summary.rule for summary in report.silos}


def status_of(envelope: bytes) -> Status:
    return unverified_record(envelope, Status)


def charges(silo: SimulatedSilo) -> list[tuple[int, Decimal]]:
    found = PrivacyLedger(silo.home).read().charges()
    return [(each.round, each.epsilon_lifetime) for _, each in found]


def test_a_private_round_is_published_and_says_what_it_cost(
    federation: SimulatedFederation,
) -> None:
    report = played(federation)
    assert report.outcome == "published"
    # 2 of 80 records in each of 2 steps.
    steps = PrivateSteps(Decimal("0.025"), Decimal("1.5"), 2)
    for summary in report.silos:
        assert summary.privacy is not None
        assert summary.privacy.epsilon == epsilon_of([steps], DELTA)
        assert summary.privacy.epsilon == summary.privacy.epsilon_lifetime
        assert summary.privacy.population == f"of-{summary.silo}"


def test_what_depends_on_what_was_drawn_stays_in(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    federation.play(plan)
    for name in federation.silos:
        own = federation.look(plan).attempt.of(name)
        assert own.submission is not None
        assert own.evaluation is not None
        sent = own.submission.record
        assert (sent.first_step_loss, sent.last_step_loss) == (None, None)
        assert sent.tokens == plan.record.recipe.tokens_per_round
        assert sent.training_seconds == 0
        losses = own.evaluation.record
        assert (losses.silo_only_loss, losses.personal_loss) == (None, None)
    named = federation.inbox("silo-a").objects.items()
    statuses = [status_of(data) for key, data in named if key.startswith("status/")]
    assert {status.tokens_per_second for status in statuses} == {0}
    assert {status.steps for status in statuses} >= {plan.record.recipe.local_steps}
    assert {summary.weight_share for summary in report_of(federation, plan).silos} == {
        Decimal("0.333333")
    }


def test_the_lifetime_total_grows_over_rounds_and_over_versions_of_the_contract(
    federation: SimulatedFederation,
) -> None:
    played(federation, 1)
    silo = federation.silos["silo-a"]
    silo.contract.data = b"the next version of the contract"
    federation.sign_contract("silo-a")
    report = played(federation, 2)
    total = [s.privacy.epsilon_lifetime for s in report.silos if s.privacy]
    assert len(set(total)) == 1
    assert charges(silo)[1] == (2, total[0])
    assert charges(silo)[0][1] < total[0]
    assert [s.privacy.entries for s in report.silos if s.privacy] == [2, 2, 2]


def test_a_plan_that_would_go_over_is_refused_after_the_check_and_later_at_once(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation)
    one = played(federation, 1).silos[0].privacy
    assert one is not None
    spent = federation.silos["silo-a"]
    spent.contract.privacy = budget("silo-a", epsilon=str(one.epsilon))
    asked = spent.asked["check"]
    report = played(federation, 2)
    by_silo = {summary.silo: summary for summary in report.silos}
    assert by_silo["silo-a"].rule == "policy.privacy_budget"
    assert by_silo["silo-b"].outcome == "admitted"
    assert spent.asked["check"] == asked, "the ledger knows the number of units"
    assert len(charges(spent)) == 1, "a refusal costs nothing"


def test_the_first_plan_that_is_over_the_budget_is_refused_after_the_check(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation, epsilon="0.01")
    report = played(federation)
    assert rules(report) == {"policy.privacy_budget"}
    for silo in federation.silos.values():
        assert silo.asked["check"] == 1
        assert silo.trainings == 0
        assert charges(silo) == []
        assert "blobs" not in silo.kinds()


@pytest.mark.parametrize(
    ("terms", "changes", "units", "rule"),
    [
        (RECORDS, {"delta": "0.01"}, (101, 50), "policy.privacy_delta"),
        (RECORDS, {"unit": "subject"}, (80, 40), "policy.privacy_unit"),
        (SUBJECTS, {"unit": "subject"}, (80, None), "policy.privacy_subjects"),
        (SUBJECTS, {"unit": "subject"}, (80, 0), "policy.privacy_subjects"),
    ],
    ids=["delta", "unit", "no-subjects", "not-one-subject"],
)
def test_what_a_silo_cannot_promise_it_refuses_by_name(
    make_federation: MakeFederation,
    terms: PrivacySection,
    changes: dict[str, str],
    units: tuple[int, int | None],
    rule: str,
) -> None:
    federation = private(make_federation, None, terms, **changes)
    for silo in federation.silos.values():
        silo.units = units
    report = played(federation)
    assert rules(report) == {rule}
    assert all(silo.trainings == 0 and charges(silo) == [] for silo in federation.silos.values())


def test_subjects_are_counted_and_drawn_where_subjects_are_protected(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation, None, SUBJECTS, unit="subject")
    report = played(federation)
    # 2 of 40 subjects.
    assert {s.privacy.sampling_rate for s in report.silos if s.privacy} == {Decimal("0.05")}


def test_a_population_that_was_charged_by_records_is_never_counted_by_subjects(
    federation: SimulatedFederation,
) -> None:
    played(federation, 1)
    federation.settings = federation.settings.model_copy(update={"privacy": SUBJECTS})
    for name, silo in federation.silos.items():
        silo.contract.privacy = budget(name, unit="subject")
    assert rules(played(federation, 2)) == {"policy.privacy_unit"}


def test_a_contract_without_a_budget_refuses_private_plans(make_federation: MakeFederation) -> None:
    federation = private(make_federation)
    federation.silos["silo-a"].contract.privacy = None
    assert "policy.privacy_unit" in rules(played(federation))


def test_a_contract_with_a_budget_refuses_plain_plans(make_federation: MakeFederation) -> None:
    federation = private(make_federation, {"privacy": None})
    assert rules(played(federation)) == {"policy.privacy"}


def test_a_silo_may_require_privacy_by_its_policy(make_federation: MakeFederation) -> None:
    federation = private(make_federation, {"privacy": None})
    for silo in federation.silos.values():
        silo.contract.privacy = None
    policy = federation.silos["silo-b"].home / "policy.toml"
    policy.write_text(
        policy.read_text().replace("[limits]", "[privacy]\nrequired = true\n[limits]")
    )
    by_silo = {summary.silo: summary for summary in played(federation).silos}
    assert by_silo["silo-b"].rule == "policy.privacy"
    assert by_silo["silo-a"].outcome == "admitted"


@pytest.mark.parametrize(
    "training",
    [{"zero_stage": 2}, {"zero_stage": 3}, {"zero_stage": 3, "offload": "cpu", "device": "cuda"}],
    ids=["stage-2", "stage-3", "offload"],
)
def test_a_stage_that_is_not_private_is_refused_by_name(
    federation: SimulatedFederation, training: dict[str, Any]
) -> None:
    silo = federation.silos["silo-c"]
    silo.training = type(silo.training)(**training)
    by_silo = {summary.silo: summary for summary in played(federation).silos}
    assert by_silo["silo-c"].rule == "policy.privacy_stage"
    assert silo.asked["check"] == 0
    assert by_silo["silo-a"].outcome == "admitted"


def test_masked_changes_can_be_private_too(make_federation: MakeFederation) -> None:
    masked = {
        "masking": MaskingSection(largest_change=Decimal("4")),
        "merge": MergeSection(rule="average", compression="none"),
        "quorum": 3,
    }
    report = played(private(make_federation, masked))
    assert report.outcome == "published"
    assert all(summary.privacy is not None for summary in report.silos)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"least_steps": 1}, "no least_steps"),
        ({"copies": CopiesSection(counted={"silo-a": "we know"})}, "no counted copies"),
    ],
    ids=["least-steps", "copies"],
)
def test_no_plan_is_made_of_what_cannot_be_private(
    make_federation: MakeFederation, fields: dict[str, Any], found: str
) -> None:
    federation = private(make_federation, fields)
    with pytest.raises(FederationOperatorError, match=found):
        federation.open(1)


def test_a_proximal_term_cannot_be_private(federation: SimulatedFederation) -> None:
    recipe = federation.settings.recipe.model_copy(update={"proximal_mu": Decimal("0.1")})
    federation.settings = federation.settings.model_copy(update={"recipe": recipe})
    with pytest.raises(FederationOperatorError, match="a proximal_mu of 0"):
        federation.open(1)


def test_a_second_attempt_is_charged_anew(federation: SimulatedFederation) -> None:
    plan = federation.open(1)
    federation.silos_act(2)
    advance(federation.coordinator(), plan)
    silo = federation.silos["silo-a"]
    assert [number for number, _ in charges(silo)] == [1]
    abort_round(federation.coordinator(), plan, "operator.abort", "a test")
    again = federation.open(1)
    assert attempt_of(again).attempt == 2
    federation.play(again)
    assert [number for number, _ in charges(silo)] == [1, 1]
    assert len(list((silo.home / "privacy" / "secrets").glob("*"))) == 0
