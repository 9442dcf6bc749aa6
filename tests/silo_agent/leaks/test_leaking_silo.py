"""A silo whose adapter tells too much: it signs a refusal, and nothing else of it leaves."""

import json
from decimal import Decimal

import pytest

from aggregator.federated_round import close_round
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, Refusal, RoundPlan, Submission
from data_contracts.protocol.records.leak_statement import LeakStatement
from silo_agent.leaks.figures import Exposure, LeakFigures, Membership, Verbatim
from silo_agent.leaks.kept import newest, words
from silo_agent.policy.leak_check import OFF
from silo_agent.watching.agent_view import said_lines, view_agent
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.leaks import FEW_LEAKS
from tests.simulator.silo import Behaviour

UNTIL_SUBMISSION = 3
TELLS_MEMBERS = FEW_LEAKS.model_copy(
    update={"membership": Membership(auc=0.93, low=0.901, high=0.95)}
)
REPEATS = FEW_LEAKS.model_copy(
    update={
        "verbatim": Verbatim(trained=37, of_trained=390, heldout=0, of_heldout=290, chance=1e-9)
    }
)
EXPOSES = FEW_LEAKS.model_copy(
    update={
        "exposure": Exposure(
            planted=8, of_planted=8, candidates=1023, mean=7.25, highest=10, chance=1e-20
        )
    }
)
FIGURES = ("0.93", "0.901", "37", "390")


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def edit_policy(federation: SimulatedFederation, old: str, new: str) -> None:
    path = federation.silos["silo-c"].home / "policy.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def round_with(
    federation: SimulatedFederation, leaks: LeakFigures | None
) -> tuple[Verified[RoundPlan], Refusal | None]:
    """What silo-c refused with in a round that it got so far in."""
    federation.silos["silo-c"].leaks = leaks
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    agent = federation.silos["silo-c"].agent(FEDERATION, federation.pinned)
    refusal = agent.release.outbox.released(attempt_of(plan)).refusal
    assert refusal is None or isinstance(refusal.record, Refusal)
    return plan, refusal.record if refusal else None


@pytest.mark.parametrize(
    ("rule", "leaks"),
    [
        ("release.membership", TELLS_MEMBERS),
        ("release.verbatim", REPEATS),
        ("release.exposure", EXPOSES),
        ("release.unchecked", None),
    ],
)
def test_over_a_limit_nothing_leaves_but_a_signed_refusal_with_its_rule(
    federation: SimulatedFederation, rule: str, leaks: LeakFigures | None
) -> None:
    plan, refusal = round_with(federation, leaks)
    silo = federation.silos["silo-c"]
    assert silo.trainings == 1
    assert silo.faults == []
    assert silo.kinds() == {"acceptance", "verdict", "refusal"}
    assert refusal is not None
    assert refusal.rule == rule
    close = close_round(federation.coordinator(), federation.look(plan)).record
    assert isinstance(close, Close)
    assert [(r.silo, r.rule) for r in close.refused] == [("silo-c", rule)]
    assert [item.silo for item in close.admitted] == ["silo-a", "silo-b"]


def test_figures_and_limits_stay_in_the_silo(federation: SimulatedFederation) -> None:
    plan, refusal = round_with(federation, TELLS_MEMBERS)
    assert refusal is not None
    assert not any(figure in refusal.reason for figure in FIGURES)
    silo = federation.silos["silo-c"]
    kept = newest(silo.home)
    assert kept is not None
    assert (kept.round, kept.rule, kept.figures) == (
        plan.record.round,
        "release.membership",
        TELLS_MEMBERS,
    )
    (line,) = [line for line in said_lines(view_agent(silo.home)) if line.startswith("leaks ")]
    assert words(kept) in line
    assert "AUC 0.930 (0.901 to 0.950; limit 0.700)" in line
    assert "kept in by release.membership" in line


def test_how_exposed_canaries_are_is_said_in_the_silo_alone(
    federation: SimulatedFederation,
) -> None:
    federation.silos["silo-c"].contract.egress = (*EGRESS, "leak-figures")
    _, refusal = round_with(federation, EXPOSES)
    assert refusal is not None
    assert "7.2" not in refusal.reason
    kept = newest(federation.silos["silo-c"].home)
    assert kept is not None
    said = "8 canaries of 8 exposed by 7.2 bits among 1023 candidates (limit 5.0)"
    assert said in words(kept)
    assert "exposure" not in LeakStatement.model_fields


def test_an_adapter_within_the_limits_leaves_and_its_figures_do_not(
    federation: SimulatedFederation,
) -> None:
    _, refusal = round_with(federation, FEW_LEAKS)
    silo = federation.silos["silo-c"]
    assert refusal is None
    assert {"submission", "blobs"} <= silo.kinds()
    records = [silo.inbox.get(i.key, 1 << 20) for i in silo.inbox.list_keys("rounds/")]
    assert all(data is not None and b"auc" not in data and b"leak" not in data for data in records)
    kept = newest(silo.home)
    assert kept is not None
    assert kept.rule is None


def sent(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Submission:
    agent = federation.silos["silo-c"].agent(FEDERATION, federation.pinned)
    submission = agent.release.outbox.released(attempt_of(plan)).submission
    assert submission is not None
    return submission.record


def test_figures_leave_only_where_the_contract_names_them(
    federation: SimulatedFederation,
) -> None:
    federation.silos["silo-c"].contract.egress = (*EGRESS, "leak-figures")
    plan, refusal = round_with(federation, FEW_LEAKS)
    assert refusal is None
    assert sent(federation, plan).leaks == LeakStatement(
        records=300, auc=Decimal("0.52"), auc_low=Decimal("0.48"), repeated=Decimal("0.00")
    )
    close = close_round(federation.coordinator(), federation.look(plan)).record
    assert isinstance(close, Close)
    assert "silo-c" in {item.silo for item in close.admitted}


@pytest.mark.parametrize("trained", [0, 9])
def test_of_few_records_nothing_leaves_even_then(
    federation: SimulatedFederation, trained: int
) -> None:
    federation.silos["silo-c"].contract.egress = (*EGRESS, "leak-figures")
    told = Verbatim(trained=0, of_trained=trained, heldout=0, of_heldout=290, chance=1.0)
    few = FEW_LEAKS.model_copy(update={"trained": trained, "verbatim": told})
    plan, _ = round_with(federation, few)
    assert sent(federation, plan).leaks == LeakStatement(records=0)


def test_too_few_records_are_a_refusal_unless_the_policy_allows_them(
    federation: SimulatedFederation,
) -> None:
    few = FEW_LEAKS.model_copy(update={"trained": 12, "heldout": 12})
    edit_policy(federation, 'too_few = "allow"', 'too_few = "refuse"')
    _, refusal = round_with(federation, few)
    assert refusal is not None
    assert refusal.rule == "release.too_few"


def test_a_silo_with_too_few_records_says_so_before_it_trains(
    federation: SimulatedFederation, caplog: pytest.LogCaptureFixture
) -> None:
    silo = federation.silos["silo-c"]
    edit_policy(federation, 'too_few = "allow"', 'too_few = "refuse"')
    with caplog.at_level("WARNING", logger="silo-agent"):
        _, refusal = round_with(federation, FEW_LEAKS)
    assert refusal is not None
    assert refusal.rule == "release.too_few"
    assert silo.trainings == 0
    assert "verdict" not in silo.kinds()
    assert 'set too_few = "allow"' in caplog.text


def test_off_in_so_many_words_an_unchecked_adapter_leaves(federation: SimulatedFederation) -> None:
    edit_policy(federation, "[leak_check]", f'[leak_check]\noff = "{OFF}"')
    _, refusal = round_with(federation, None)
    assert refusal is None
    assert "submission" in federation.silos["silo-c"].kinds()
    assert newest(federation.silos["silo-c"].home) is None


def test_a_policy_that_cannot_be_read_any_more_does_not_switch_the_check_off(
    federation: SimulatedFederation,
) -> None:
    silo = federation.silos["silo-c"]
    silo.while_training = lambda: edit_policy(federation, "version = 1", "version = ")
    _, refusal = round_with(federation, TELLS_MEMBERS)
    assert refusal is not None
    assert refusal.rule == "release.membership"


def test_a_damaged_file_of_figures_is_none(federation: SimulatedFederation) -> None:
    round_with(federation, FEW_LEAKS)
    home = federation.silos["silo-c"].home
    (path,) = home.glob("work/*/round-0001/leak-check.json")
    assert json.loads(path.read_text())["figures"]["trained"] == FEW_LEAKS.trained
    path.write_text("{")
    assert newest(home) is None
