"""A contract that ceases to count stops training, and stops what was trained from leaving."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.federated_round import close_round, merge_round
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.errors import DataStewardError, StorageError
from data_contracts.protocol.bucket_layout import attempt_of, feed_slot
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import Close, Refusal, RoundPlan, Status, Verdict
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY
from infra.records.record_store import write_record
from silo_agent.agent import poll_once
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import AgentSection, TrainingSection
from silo_agent.federation.feed import refresh_feed
from silo_agent.gate.outcome import GateOutcome
from silo_agent.metrics.readings import Readings
from silo_agent.release.outbox import Released
from silo_agent.release.status_reporter import STATUS_NAME, StatusReporter
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step, own_attempt
from silo_agent.training.results import TrainingResult
from tests.model_folders import write_model_folder
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import (
    FINDINGS,
    SPEED,
    Behaviour,
    SimulatedGate,
    SimulatedSilo,
    SimulatedTrainer,
)

UNTIL_VERDICT, UNTIL_SUBMISSION = 2, 3
VALIDITY = timedelta(minutes=10)

Change = Callable[[SimulatedSilo], None]


def changed(silo: SimulatedSilo) -> None:
    silo.contract.data = b"another contract"


def withdrawn(silo: SimulatedSilo) -> None:
    silo.contract.agreed_with = ""


def expired(silo: SimulatedSilo) -> None:
    silo.contract.expires_at = silo.clock.now()


def waited(silo: SimulatedSilo) -> None:
    silo.clock.sleep(VALIDITY.total_seconds())


def closed_to_adapters(silo: SimulatedSilo) -> None:
    silo.contract.egress = ("status", "rule-counts", "licence-counts", "losses")


CHANGES: list[tuple[str, Change]] = [
    ("contract.changed", changed),
    ("contract.changed", withdrawn),
    ("contract.expired", expired),
    ("verdict.expired", waited),
    ("contract.egress", closed_to_adapters),
]


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    """Two silos that always take part, and silo-c, whose verdicts expire soon."""
    made = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    made.silos["silo-c"].verdict_validity = VALIDITY
    return made


def released(federation: SimulatedFederation, silo: str, plan: Verified[RoundPlan]) -> Released:
    agent = federation.silos[silo].agent(FEDERATION, federation.pinned)
    return agent.release.outbox.released(attempt_of(plan))


def closed(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Close:
    close = close_round(federation.coordinator(), federation.look(plan)).record
    assert isinstance(close, Close)
    return close


def refused_by_door(federation: SimulatedFederation, plan: Verified[RoundPlan], rule: str) -> None:
    """silo-c signed a refusal that counts, nothing else left it, and the others went on."""
    silo = federation.silos["silo-c"]
    assert silo.faults == []
    assert silo.kinds() == {"acceptance", "verdict", "refusal"}
    refusal = released(federation, "silo-c", plan).refusal
    assert isinstance(refusal, Verified)
    assert isinstance(refusal.record, Refusal)
    assert (refusal.record.rule, refusal.record.plan_digest) == (rule, plan.digest)
    close = closed(federation, plan)
    assert [(r.silo, r.rule, r.record_digest) for r in close.refused] == [
        ("silo-c", rule, refusal.digest)
    ]
    assert [item.silo for item in close.admitted] == ["silo-a", "silo-b"]
    assert silo.act(FEDERATION, federation.pinned) is Step.FINISHED


def test_a_verdict_counts_for_a_week_at_most_and_no_longer_than_what_it_rests_on(
    federation: SimulatedFederation,
) -> None:
    federation.silos["silo-a"].verdict_validity = 50 * VERDICT_VALIDITY
    plan = federation.open()
    federation.silos_act(UNTIL_VERDICT)
    for silo, validity in (("silo-a", VERDICT_VALIDITY), ("silo-c", VALIDITY)):
        verdict = released(federation, silo, plan).verdict
        assert verdict is not None
        assert verdict.record.expires_at - verdict.record.issued_at == validity


@pytest.mark.parametrize(("rule", "change"), CHANGES)
def test_a_door_that_closed_after_the_verdict_stops_training(
    federation: SimulatedFederation, rule: str, change: Change
) -> None:
    plan = federation.open()
    federation.silos_act(UNTIL_VERDICT)
    change(federation.silos["silo-c"])
    federation.silos_act()
    assert federation.silos["silo-c"].trainings == 0
    refused_by_door(federation, plan, rule)


@pytest.mark.parametrize(("rule", "change"), CHANGES)
def test_a_door_that_closed_during_training_keeps_the_adapter_in(
    federation: SimulatedFederation, rule: str, change: Change
) -> None:
    silo = federation.silos["silo-c"]
    silo.while_training = lambda: change(silo)
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    assert silo.trainings == 1
    refused_by_door(federation, plan, rule)


@pytest.mark.parametrize("change", [changed, withdrawn])
def test_a_contract_that_goes_before_the_data_is_looked_at_gives_no_verdict(
    federation: SimulatedFederation, change: Change
) -> None:
    plan = federation.open()
    federation.silos_act()
    change(federation.silos["silo-c"])
    federation.silos_act()
    assert federation.silos["silo-c"].kinds() == {"acceptance", "refusal"}
    assert federation.silos["silo-c"].asked["check"] == 0
    refusal = released(federation, "silo-c", plan).refusal
    assert refusal is not None
    assert refusal.record.rule == "contract.changed"


def test_egress_without_counts_lets_a_verdict_out_that_counts(
    federation: SimulatedFederation,
) -> None:
    federation.silos["silo-c"].contract.egress = ("local-adapter", "losses")
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    verdict = released(federation, "silo-c", plan).verdict
    assert verdict is not None
    assert {(o.element_count, o.unexpected_count) for o in verdict.record.outcomes} == {(0, None)}
    assert [(c.licence, c.records) for c in verdict.record.licences] == [("MIT", None)]
    assert "silo-c" in {item.silo for item in closed(federation, plan).admitted}


def only_adapters(silo: SimulatedSilo) -> None:
    silo.contract.egress = tuple(item for item in EGRESS if item != "losses")


@pytest.mark.parametrize("change", [only_adapters, withdrawn, changed, expired, waited])
def test_no_losses_leave_a_contract_that_does_not_let_them_out(
    federation: SimulatedFederation, change: Change
) -> None:
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    closed(federation, plan)
    merge_round(federation.coordinator(), federation.look(plan))
    change(federation.silos["silo-c"])
    federation.silos_act()
    assert "evaluation" in federation.silos["silo-a"].kinds()
    assert "evaluation" not in federation.silos["silo-c"].kinds()
    assert [silo.asked["evaluate"] for silo in federation.silos.values()] == [1, 1, 0]
    assert federation.silos["silo-c"].act(FEDERATION, federation.pinned) is Step.FINISHED


def test_only_an_admitted_silo_s_findings_become_its_baseline(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        a=Behaviour.HONEST,
        b=Behaviour.HONEST,
        c=Behaviour.INCOMPLETE_VERDICT,
        d=Behaviour.FAILING_CONTRACT,
    )
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION + 1)
    close = closed(federation, plan)
    assert [(r.silo, r.rule) for r in close.rejected] == [("silo-c", "verdict.incomplete")]
    federation.silos_act()
    assert [silo.remembered for silo in federation.silos.values()] == [[], [], [], []], "no merge"
    merge_round(federation.coordinator(), federation.look(plan))
    federation.silos_act(2)
    assert "evaluation" in federation.silos["silo-c"].kinds(), "it evaluates all the same"
    remembered = {name: silo.remembered for name, silo in federation.silos.items()}
    assert remembered == {"silo-a": [FINDINGS], "silo-b": [FINDINGS], "silo-c": [], "silo-d": []}


def test_terms_that_the_contract_registers_leave_with_the_verdict(
    federation: SimulatedFederation,
) -> None:
    from tests.data_contracts.record_samples import OWN_LICENCE

    federation.silos["silo-c"].contract.registered_licences = (OWN_LICENCE,)
    plan = federation.open()
    federation.silos_act(UNTIL_VERDICT)
    verdict = released(federation, "silo-c", plan).verdict
    assert verdict is not None
    assert isinstance(verdict.record, Verdict)
    assert verdict.record.registered_licences == (OWN_LICENCE,)


GEMMA, APACHE = 'licence = "LicenseRef-Gemma-Terms"', 'licence = "Apache-2.0"'
ACCEPTED = "LicenseRef-Gemma-Terms accepted by A. Person"


def test_a_silo_that_has_not_accepted_the_model_s_terms_refuses(
    federation: SimulatedFederation,
) -> None:
    licensed = {"licence": "LicenseRef-Gemma-Terms", "licence_acceptance": ACCEPTED}
    model = federation.settings.base_model.model_copy(update=licensed)
    federation.settings = federation.settings.model_copy(update={"base_model": model})
    for name, silo in federation.silos.items():
        theirs = f'{GEMMA}\nlicence_acceptance = "{ACCEPTED}"' if name != "silo-c" else GEMMA
        policy = silo.home / "policy.toml"
        policy.write_text(policy.read_text().replace(APACHE, theirs))
    plan = federation.open()
    assert plan.record.base_model.licence_acceptance == ACCEPTED
    federation.silos_act(UNTIL_SUBMISSION)
    close = closed(federation, plan)
    assert [(r.silo, r.rule) for r in close.refused] == [("silo-c", "policy.model_licence")]
    assert [item.silo for item in close.admitted] == ["silo-a", "silo-b"]


def test_a_commercial_round_finds_only_contracts_that_allow_it(
    federation: SimulatedFederation,
) -> None:
    federation.settings = federation.settings.model_copy(update={"use": "commercial"})
    for name in ("silo-a", "silo-b"):
        federation.silos[name].contract.uses = ("research", "commercial")
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    close = closed(federation, plan)
    assert [(r.silo, r.rule) for r in close.refused] == [("silo-c", "policy.contract_use")]
    assert federation.silos["silo-c"].kinds() == {"refusal"}


def storage_down(operation: str, key: str) -> None:
    if "blob" in operation or "submission" in key:
        raise StorageError("inbox", expected="an answer", found="503", action="try again")


@pytest.mark.parametrize(("rule", "change"), CHANGES)
def test_an_unsent_submission_asks_its_door_again(
    federation: SimulatedFederation, rule: str, change: Change
) -> None:
    """Signed while the door was open, but storage was down until it had closed."""
    silo = federation.silos["silo-c"]
    plan = federation.open()
    federation.silos_act(UNTIL_VERDICT)
    inbox = federation.inbox("silo-c")
    inbox.before = storage_down
    federation.silos_act()
    assert released(federation, "silo-c", plan).submission is not None
    assert silo.kinds() == {"acceptance", "verdict"}
    inbox.before = None
    change(silo)
    silo.faults.clear()
    federation.silos_act()
    refused_by_door(federation, plan, rule)


def test_an_unsent_submission_whose_door_is_open_is_sent(federation: SimulatedFederation) -> None:
    silo = federation.silos["silo-c"]
    federation.open()
    federation.silos_act(UNTIL_VERDICT)
    federation.inbox("silo-c").before = storage_down
    federation.silos_act()
    federation.inbox("silo-c").before = None
    federation.silos_act()
    assert silo.kinds() == {"acceptance", "verdict", "submission", "blobs"}
    assert silo.trainings == 1


def test_data_that_changed_after_the_verdict_is_a_refusal(
    federation: SimulatedFederation,
) -> None:
    def gone() -> None:
        raise DataStewardError("data set", expected="it", found="other content", action="none")

    silo = federation.silos["silo-c"]
    silo.while_training = gone
    plan = federation.open()
    federation.silos_act(UNTIL_SUBMISSION)
    refused_by_door(federation, plan, "data.unusable")
    assert silo.trainings == 1


@dataclass
class TellingTrainer(SimulatedTrainer):
    """Also reports after whatever happens while it trains; `then` a minute later once more."""

    clock: FakeClock = field(default_factory=FakeClock)
    then: Callable[[], None] = lambda: None

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting: GlobalAdapter,
        report: StatusReporter,
    ) -> TrainingResult:
        """As the simulation."""
        trained = super().train(plan, verdict, starting, report)
        for step in (2, 3):
            self.clock.sleep(60)
            report.show("training", step=step, steps=10, readings=SPEED)
            self.then()
        self.clock.sleep(60)
        return trained


def telling(federation: SimulatedFederation, then: Callable[[], None] = lambda: None) -> Silo:
    """silo-c's agent, which reports three times while it trains."""
    silo = federation.silos["silo-c"]
    trainer = TellingTrainer(
        silo.name,
        silo.home / "work",
        silo.behaviour,
        lambda: silo.while_training(),
        silo.clock,
        then,
    )
    return replace(silo.agent(FEDERATION, federation.pinned), trainer=trainer)


def told(silo: SimulatedSilo) -> list[tuple[str, int]]:
    """Phase and step of every status that has left, in order."""
    keys = [info.key for info in silo.inbox.list_keys("status/")]
    own = {silo.key.public_key_hex}
    envelopes = [silo.inbox.get(key, 10**6) or b"" for key in keys]
    read = [verify(envelope, Status, own).record for envelope in envelopes]
    return [(status.phase, status.step) for status in sorted(read, key=lambda s: s.number)]


def closed_to_statuses(silo: SimulatedSilo) -> None:
    silo.contract.egress = tuple(item for item in EGRESS if item != "status")


@pytest.mark.parametrize("change", [changed, withdrawn, expired, closed_to_statuses])
def test_a_contract_that_goes_while_training_silences_the_status(
    federation: SimulatedFederation, change: Change
) -> None:
    silo = federation.silos["silo-c"]
    silo.while_training = lambda: change(silo)
    federation.open()
    federation.silos_act(UNTIL_VERDICT)
    poll_once(telling(federation))
    assert told(silo)[-1] == ("training", 1), "until then the contract was there"
    kept = json.loads((silo.home / STATUS_NAME).read_bytes())
    assert kept["phase"] == "releasing", "the silo itself goes on being told"


MEMORY = Readings(memory_bytes=1_900_000_000, gpu_memory_bytes=20_000_000_000)


@pytest.mark.parametrize("shows", [False, True])
def test_what_ranks_hold_leaves_when_the_policy_of_that_moment_shows_it(
    federation: SimulatedFederation, shows: bool
) -> None:
    silo = federation.silos["silo-c"]
    federation.open()
    federation.silos_act(UNTIL_VERDICT)
    if shows:
        path = silo.home / "policy.toml"
        path.write_text(f"show_memory = true\n{path.read_text()}")
    agent = silo.agent(FEDERATION, federation.pinned)
    own_attempt(agent, refresh_feed(agent), federation.open()).report.show(
        "training", step=1, steps=9, readings=MEMORY
    )
    left, kept = newest(silo), Status.model_validate_json((silo.home / STATUS_NAME).read_bytes())
    held = (MEMORY.memory_bytes, MEMORY.gpu_memory_bytes)
    assert (left.memory_bytes, left.gpu_memory_bytes) == (held if shows else (None, None))
    assert (kept.memory_bytes, kept.gpu_memory_bytes) == held, "the silo itself is always told"


def newest(silo: SimulatedSilo) -> Status:
    """The newest status that has left."""
    keys = [info.key for info in silo.inbox.list_keys("status/")]
    own = {silo.key.public_key_hex}
    read = [verify(silo.inbox.get(key, 10**6) or b"", Status, own).record for key in keys]
    return max(read, key=lambda status: status.number)


def test_a_status_leaves_again_once_its_door_is_open(federation: SimulatedFederation) -> None:
    silo = federation.silos["silo-c"]
    agreed_with = silo.contract.agreed_with

    def agreed_again() -> None:
        silo.contract.agreed_with = agreed_with

    silo.while_training = lambda: withdrawn(silo)
    federation.open()
    federation.silos_act(UNTIL_VERDICT)
    assert poll_once(telling(federation, agreed_again)) is Step.SUBMITTED
    assert [step for phase, step in told(silo) if phase == "training"] == [1, 3]


@dataclass
class SlowGate(SimulatedGate):
    """A check in which something happens before its first report, after 4,000 records."""

    meanwhile: Callable[[], None] = lambda: None

    def check(self, progress: Callable[[int], None] = lambda records: None) -> GateOutcome:
        """As simulated."""
        self.meanwhile()
        progress(4_000)
        return super().check(progress)


def slow(federation: SimulatedFederation, meanwhile: Callable[[], None] = lambda: None) -> Silo:
    """silo-c's agent, which looks at its data for a while."""
    silo = federation.silos["silo-c"]
    agent = silo.agent(FEDERATION, federation.pinned)
    gate = SlowGate(silo.contract, silo.behaviour, silo.clock.now() + VALIDITY, [], meanwhile)
    return replace(agent, gate=gate, config=agent.config.model_copy(update=AT_ONCE))


AT_ONCE = {"agent": AgentSection(status_seconds=0.1)}


@pytest.mark.parametrize("change", [changed, withdrawn])
def test_a_contract_that_goes_while_the_data_is_looked_at_gives_no_verdict(
    federation: SimulatedFederation, change: Change
) -> None:
    silo = federation.silos["silo-c"]
    plan = federation.open()
    federation.silos_act()
    assert poll_once(slow(federation, lambda: change(silo))) is Step.REFUSED
    assert silo.kinds() == {"acceptance", "refusal"}
    done = released(federation, "silo-c", plan)
    assert done.verdict is None
    assert done.refusal is not None
    assert done.refusal.record.rule == "contract.changed"


@pytest.mark.parametrize(("egress", "records"), [(EGRESS, 4_000), (("status", "losses"), 0)])
def test_the_records_looked_at_so_far_are_told_only_where_counts_may_leave(
    federation: SimulatedFederation, egress: tuple[str, ...], records: int
) -> None:
    silo = federation.silos["silo-c"]
    federation.open()
    federation.silos_act()
    silo.contract.egress = egress
    agent = slow(federation, lambda: silo.clock.sleep(60))
    assert poll_once(agent) is Step.CHECKED_DATA
    assert ("checking_data", records) in told(silo)
    assert {step for _, step in told(silo)} == {0, records}


def verdicts_down(operation: str, key: str) -> None:
    if "/verdict/" in key:
        raise StorageError("inbox", expected="an answer", found="503", action="try again")


@pytest.mark.parametrize("change", [changed, withdrawn])
def test_an_unsent_verdict_asks_its_door_again(
    federation: SimulatedFederation, change: Change
) -> None:
    silo = federation.silos["silo-c"]
    plan = federation.open()
    federation.silos_act()
    inbox = federation.inbox("silo-c")
    inbox.before = verdicts_down
    federation.silos_act()
    assert released(federation, "silo-c", plan).verdict is not None
    inbox.before = None
    change(silo)
    assert silo.act(FEDERATION, federation.pinned) is Step.REFUSED
    assert silo.kinds() == {"acceptance", "refusal"}
    assert released(federation, "silo-c", plan).verdict is None


def until_expiry(silo: SimulatedSilo, plan: Verified[RoundPlan]) -> None:
    silo.clock.sleep((plan.record.expires_at - silo.clock.now()).total_seconds())


def test_a_plan_that_expires_before_the_check_is_refused(federation: SimulatedFederation) -> None:
    plan, silo = federation.open(1), federation.silos["silo-c"]
    assert silo.act(FEDERATION, federation.pinned) is Step.ACCEPTED
    until_expiry(silo, plan)
    assert silo.act(FEDERATION, federation.pinned) is Step.REFUSED
    assert silo.kinds() == {"acceptance", "refusal"}
    refusal = released(federation, "silo-c", plan).refusal
    assert refusal is not None and refusal.record.rule == "plan.expired"


def test_what_was_trained_until_the_plan_expired_does_not_leave(
    federation: SimulatedFederation,
) -> None:
    plan, silo = federation.open(1), federation.silos["silo-c"]
    silo.verdict_validity = timedelta(days=1)
    silo.while_training = lambda: until_expiry(silo, plan)
    for _ in range(UNTIL_SUBMISSION):
        silo.act(FEDERATION, federation.pinned)
    assert silo.trainings == 1
    assert silo.kinds() == {"acceptance", "verdict", "refusal"}
    refusal = released(federation, "silo-c", plan).refusal
    assert refusal is not None and refusal.record.rule == "plan.expired"


def test_a_candidate_of_a_plan_that_expired_is_not_evaluated(
    federation: SimulatedFederation,
) -> None:
    plan, silo = federation.open(1), federation.silos["silo-c"]
    silo.verdict_validity = timedelta(days=1)
    federation.silos_act(UNTIL_SUBMISSION)
    close_round(federation.coordinator(), federation.look(plan))
    merge_round(federation.coordinator(), federation.look(plan))
    until_expiry(silo, plan)
    assert silo.act(FEDERATION, federation.pinned) is Step.FINISHED
    assert silo.faults == [] and "evaluation" not in silo.kinds()


def test_a_plan_that_goes_back_is_refused(federation: SimulatedFederation) -> None:
    """Signed with the coordinator's own key, and the next number of the feed."""
    for number in (1, 2):
        federation.play(federation.open(number))
    last = federation.look(federation.open(2)).plan
    back = seal(
        last.record.model_copy(
            update={
                "round": 1,
                "attempt": 2,
                "feed_number": last.record.feed_number + 1,
                "previous_digest": last.digest,
                "issued_at": federation.clock.now(),
                "submit_by": federation.clock.now() + timedelta(hours=1),
                "evaluate_by": federation.clock.now() + timedelta(hours=2),
                "expires_at": federation.clock.now() + timedelta(hours=2),
            }
        ),
        federation.key,
    )
    write_record(federation.plans, feed_slot(back.record.feed_number), back)
    silo = federation.silos["silo-c"]
    trainings = silo.trainings
    for _ in range(2):
        silo.act(FEDERATION, federation.pinned)
    refusal = released(federation, "silo-c", back).refusal
    assert refusal is not None and refusal.record.rule == "plan.earlier_round"
    assert silo.trainings == trainings


def test_a_plan_that_cannot_fit_is_refused_before_anything_is_loaded(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    """Whatever else runs on the machine: what counts is what it has, or what the silo says."""
    silo = federation.silos["silo-c"]
    model, policy = write_model_folder(tmp_path / "model"), silo.home / "policy.toml"
    policy.write_text(re.sub(r"(?m)^path = .*$", f'path = "{model}"', policy.read_text()))
    plan = federation.open()
    for gigabytes, step in ((0.25, Step.REFUSED), (1000, Step.FINISHED)):
        agent = silo.agent(FEDERATION, federation.pinned)
        training = TrainingSection(memory_gb=gigabytes)
        config = agent.config.model_copy(update={"training": training})
        assert poll_once(replace(agent, config=config)) is step
    refusal = released(federation, "silo-c", plan).refusal
    assert isinstance(refusal, Verified) and isinstance(refusal.record, Refusal)
    assert refusal.record.rule == "policy.resources"
    assert re.search(r"needs 0\.\d\d GB at the least, and 0\.25 GB are", refusal.record.reason)
    assert silo.kinds() == {"refusal"} and silo.trainings == 0
    federation.silos_act(UNTIL_SUBMISSION)
    close = closed(federation, plan)
    assert [(r.silo, r.rule) for r in close.refused] == [("silo-c", "policy.resources")]
