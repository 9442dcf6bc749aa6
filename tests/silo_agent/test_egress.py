"""Counts stay in the silo unless the contract lets them out; which rules hold always leaves."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.dataset.small_cells import SMALL_CELL
from data_contracts.protocol.records import Evaluation, Status, Verdict
from data_contracts.protocol.records.status import Phase
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from silo_agent.gate.outcome import GateOutcome
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.policy_file import read_policy
from silo_agent.release.egress import (
    leaving,
    leaving_licences,
    leaving_memory,
    leaving_outcomes,
)
from tests.aggregator.federation_samples import digest, federation, minutes
from tests.data_contracts.record_samples import OWN_LICENCE
from tests.silo_agent.test_policy import EXACT, POLICY

HOLDS = RuleOutcome(
    rule="records.minimum",
    type="built_in",
    success=True,
    severity="critical",
    element_count=1200,
    unexpected_count=0,
)
BROKEN = RuleOutcome(
    rule="answer-length",
    type="expectation",
    success=False,
    severity="warning",
    element_count=1200,
    unexpected_count=30,
)
OUTCOME = GateOutcome(
    passed=True,
    outcomes=(HOLDS, BROKEN),
    licences=(
        LicenceCount(licence="CC-BY-4.0", records=1100),
        LicenceCount(licence="MIT", records=100),
    ),
    findings_digest=digest("findings"),
    contract_digest=digest("contract"),
    expires_at=minutes(600),
    operator_notes=("line 7: an answer is too long",),
    train_records=1000,
    heldout_records=207,
    records=1234,
)
NO_COUNTS = tuple(item for item in EGRESS if not item.endswith("-counts"))
FED = federation()
SILO = FED.plan.record.cohort[0]


def contract(egress: tuple[str, ...], **changes: Any) -> ContractTerms:
    return ContractTerms(digest("contract"), ("testing",), minutes(600), egress=egress, **changes)


def verdict_on(outcome: GateOutcome) -> Verdict:
    """As the agent hands it to the release, with exact numbers of records."""
    return FED.verdict(
        SILO,
        outcomes=outcome.outcomes,
        licences=outcome.licences,
        offered=outcome.records,
        used=outcome.train_records + outcome.heldout_records,
    ).record


def leaving_records(outcome: GateOutcome, egress: tuple[str, ...]) -> dict[str, int | None]:
    verdict = leaving(verdict_on(outcome), contract(egress))
    return {"offered": verdict.offered, "used": verdict.used}


def test_everything_leaves_that_the_contract_lets_out() -> None:
    assert leaving_outcomes(OUTCOME.outcomes, EGRESS) == OUTCOME.outcomes
    assert leaving_licences(OUTCOME.licences, EGRESS) == OUTCOME.licences


@pytest.mark.parametrize("egress", [(), NO_COUNTS, (*NO_COUNTS, "licence-counts")])
def test_rules_leave_without_their_counts(egress: tuple[str, ...]) -> None:
    leaving = leaving_outcomes(OUTCOME.outcomes, egress)
    told = [(rule.rule, rule.type, rule.success, rule.severity) for rule in leaving]
    assert told == [(rule.rule, rule.type, rule.success, rule.severity) for rule in (HOLDS, BROKEN)]
    assert {(rule.element_count, rule.unexpected_count) for rule in leaving} == {(0, None)}


@pytest.mark.parametrize("egress", [(), NO_COUNTS, (*NO_COUNTS, "rule-counts")])
def test_licences_leave_by_id_because_the_adapter_inherits_them(egress: tuple[str, ...]) -> None:
    leaving = leaving_licences(OUTCOME.licences, egress)
    assert [(count.licence, count.records) for count in leaving] == [
        ("CC-BY-4.0", None),
        ("MIT", None),
    ]


def test_each_kind_of_count_has_its_own_permission() -> None:
    assert leaving_outcomes(OUTCOME.outcomes, ("rule-counts",)) == OUTCOME.outcomes
    assert leaving_licences(OUTCOME.licences, ("licence-counts",)) == OUTCOME.licences


def test_records_used_leave_rounded_so_that_no_small_number_follows() -> None:
    assert leaving_records(OUTCOME, EGRESS) == {"offered": 1234, "used": 1214}


@pytest.mark.parametrize("left_out", range(40))
def test_how_many_are_left_out_is_known_to_within_ten(left_out: int) -> None:
    """Also where the size of the set is known, and how many records break one rule."""
    outcome = OUTCOME.model_copy(update={"train_records": 1234 - left_out, "heldout_records": 0})
    seen = leaving_records(outcome, EGRESS)
    assert seen == {"offered": 1234, "used": 1234 - 10 * (left_out // 10)}


@pytest.mark.parametrize("egress", [(), NO_COUNTS, (*NO_COUNTS, "licence-counts")])
def test_records_do_not_leave_without_rule_counts(egress: tuple[str, ...]) -> None:
    assert leaving_records(OUTCOME, egress) == {"offered": None, "used": None}


@pytest.mark.parametrize("records", [0, 1, 9])
def test_a_set_of_few_records_has_no_size(records: int) -> None:
    few = OUTCOME.model_copy(
        update={"records": records, "train_records": records, "heldout_records": 0}
    )
    assert leaving_records(few, EGRESS) == {"offered": None, "used": None}


def test_limits_leave_with_the_rule() -> None:
    limited = BROKEN.model_copy(update={"tolerated_per_mille": 20})
    outcome = OUTCOME.model_copy(update={"outcomes": (limited,)})
    (leaving,) = leaving_outcomes(outcome.outcomes, NO_COUNTS)
    assert (leaving.tolerated_per_mille, leaving.unexpected_count) == (20, None)


LOSSES_OF_ENOUGH = FED.evaluation(
    SILO,
    FED.candidate(FED.close([FED.silo(silo) for silo in FED.plan.record.cohort])),
    records=SMALL_CELL,
    change_error=Decimal("0.02"),
    base_change_error=Decimal("0.03"),
).record


def losses(**changes: Any) -> Evaluation:
    return LOSSES_OF_ENOUGH.model_copy(update=changes)


LOSSES_ALONE = losses(records=None, change_error=None, base_change_error=None)


@pytest.mark.parametrize("egress", [EGRESS, ("losses", "rule-counts")])
def test_losses_leave_with_records_and_errors(egress: tuple[str, ...]) -> None:
    assert leaving(LOSSES_OF_ENOUGH, contract(egress)) == LOSSES_OF_ENOUGH


@pytest.mark.parametrize("egress", [(), NO_COUNTS, (*NO_COUNTS, "licence-counts")])
def test_the_number_of_held_out_records_is_a_count(egress: tuple[str, ...]) -> None:
    assert leaving(LOSSES_OF_ENOUGH, contract(egress)) == losses(records=None)


@pytest.mark.parametrize("egress", [(), NO_COUNTS, EGRESS])
@pytest.mark.parametrize("records", [None, 0, 1, 2, SMALL_CELL - 1])
def test_nothing_is_said_of_a_small_cell_s_records(
    records: int | None, egress: tuple[str, ...]
) -> None:
    assert leaving(losses(records=records), contract(egress)) == LOSSES_ALONE


def test_a_verdict_is_reduced_as_a_whole() -> None:
    outcome, own = verdict_on(OUTCOME), (OWN_LICENCE,)
    told = leaving(outcome, contract(NO_COUNTS, registered_licences=own))
    changed = {
        "outcomes": leaving_outcomes(OUTCOME.outcomes, NO_COUNTS),
        "licences": leaving_licences(OUTCOME.licences, NO_COUNTS),
        "registered_licences": own,
        "offered": None,
        "used": None,
    }
    assert told == outcome.model_copy(update=changed)
    assert told.evaluates
    assert not leaving(outcome, contract(("local-adapter",))).evaluates


@pytest.mark.parametrize("egress", [(), NO_COUNTS, EGRESS])
def test_the_records_that_were_looked_at_so_far_are_a_count(egress: tuple[str, ...]) -> None:
    checking = status("checking_data", 4000, 0)
    told = leaving(checking, contract(egress))
    assert told == checking.model_copy(update={"step": 4000 if egress == EGRESS else 0})
    training = status("training", 3, 10)
    assert leaving(training, contract(egress)) == training


def status(phase: Phase, step: int, steps: int) -> Status:
    return Status.on(
        FED.plan,
        minutes(5),
        silo=SILO,
        number=1,
        phase=phase,
        step=step,
        steps=steps,
        tokens_per_second=Decimal(0),
        eta_seconds=0,
    )


@pytest.mark.parametrize(("shows", "leaves"), [("true", True), ("false", False), (None, False)])
def test_memory_leaves_only_where_the_policy_shows_it(
    tmp_path: Path, shows: str | None, leaves: bool
) -> None:
    path, held = tmp_path / "policy.toml", {"memory_bytes": 5, "gpu_memory_bytes": 6}
    path.write_text(f"show_memory = {shows}\n{POLICY.format(**EXACT)}" if shows else "")
    quiet = status("training", 3, 10)
    said = quiet.model_copy(update=held)
    assert leaving_memory(said, read_policy(path)) == (said if leaves else quiet)
    path.write_text(POLICY.format(**EXACT))
    assert leaving_memory(said, read_policy(path)) == quiet


def test_what_holds_no_counts_leaves_as_it_is() -> None:
    submission = FED.submission(SILO, FED.verdict(SILO)).record
    assert leaving(submission, contract(())) == submission
