"""Members and keys that change between rounds and in the middle of one."""

import shutil
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from aggregator.audit.report_audit import audit
from aggregator.decisions.interruption import REVOKED_COORDINATOR
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.federated_round import (
    abort_round,
    advance,
    close_round,
    decide_round,
    finish_latest_report,
    merge_round,
)
from aggregator.feed.reading import newest_attempt, next_round, read_federation, read_report
from aggregator.planning.starting_point import starting_point
from aggregator.report.files import read_bundle
from data_contracts.errors import FederationOperatorError, UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, feed_slot, record_key, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Abort, Decision, Membership, RoundPlan, RoundReport
from data_contracts.protocol.records.membership import Member, Revocation
from data_contracts.protocol.trusted_feed import FeedPosition
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey
from infra.storage.single_writer import claim_key
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

UNTIL_SUBMITTED = 4


def steps_of(count: int) -> list[Any]:
    """How far the attempt has come when the membership changes; some of them in every run."""
    always, marks = {1, count - 1}, [pytest.mark.campaign]
    return [pytest.param(n, marks=[] if n in always else marks) for n in range(count)]


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    return report.record


def outcomes(report: RoundReport) -> dict[str, tuple[str, str | None]]:
    return {silo.silo: (silo.outcome, silo.rule) for silo in report.silos}


def failed_claims(federation: SimulatedFederation, name: str) -> list[list[str]]:
    """Of the bundle, for every membership that an auditor could have pinned."""
    bundle = read_bundle(federation.settings.home / "reports" / name)
    audits = [audit(bundle, pinned) for pinned in federation.memberships]
    return [[c.name for c in claims if c.outcome == "fail"] for claims in audits]


def play_round(federation: SimulatedFederation, round_number: int) -> RoundReport:
    """Attempts until one is not aborted."""
    while True:
        plan = federation.open(round_number)
        federation.play(plan)
        report = report_of(federation, plan)
        if report.outcome != "aborted":
            return report


def key_of(federation: SimulatedFederation, silo: str) -> str:
    return federation.silos[silo].key.public_key_hex


def members(federation: SimulatedFederation, *silos: str) -> tuple[Member, ...]:
    return tuple(Member(silo=s, public_key=key_of(federation, s)) for s in silos)


class TestJoinsAndLeaves:
    def test_who_joins_in_mid_round_takes_part_from_the_next_plan(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.silos_act(2)
        federation.add_silo("silo-d")
        federation.change(silos=(*members(federation, *federation.silos),))
        federation.play(plan)
        assert report_of(federation, plan).outcome == "published"
        assert "silo-d" not in plan.record.cohort
        assert outcomes(play_round(federation, 2))["silo-d"] == ("admitted", None)
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]
        assert failed_claims(federation, "run-1-round-0002.json") == [[], []]
        assert not any(silo.faults for silo in federation.silos.values())

    def test_who_joins_from_a_later_round_waits_for_it(
        self, federation: SimulatedFederation
    ) -> None:
        federation.add_silo("silo-d")
        later = Member(silo="silo-d", public_key=key_of(federation, "silo-d"), first_round=2)
        federation.change(silos=(*federation.pinned.record.silos, later))
        assert "silo-d" not in outcomes(play_round(federation, 1))
        waiting = federation.silos["silo-d"]
        assert (waiting.kinds(), waiting.faults) == (set(), [])
        assert "silo-d" in outcomes(play_round(federation, 2))

    def test_who_leaves_in_mid_round_finishes_it(self, federation: SimulatedFederation) -> None:
        plan = federation.open()
        federation.silos_act()
        federation.change(silos=members(federation, "silo-a", "silo-b"))
        federation.play(plan)
        assert outcomes(report_of(federation, plan))["silo-c"] == ("admitted", None)
        assert list(outcomes(play_round(federation, 2))) == ["silo-a", "silo-b"]
        assert "a membership without this silo" in federation.silos["silo-c"].faults[-1]

    def test_a_plan_that_crossed_with_a_join_is_made_anew(
        self, federation: SimulatedFederation
    ) -> None:
        """The signers read the feed before the plan was there, silos had begun to work on it."""
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        federation.change_after(FeedPosition(), silos=federation.pinned.record.silos)
        again = federation.open()
        assert again.digest != plan.digest
        assert (again.record.feed_number, again.record.attempt) == (1, 1)
        federation.play(again)
        assert report_of(federation, again).outcome == "published"
        assert federation.silos["silo-a"].trainings == 2
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]

    def test_last_months_membership_file_is_enough_everywhere(
        self, federation: SimulatedFederation
    ) -> None:
        """Silos and auditors go on from what they were handed; so does who was handed a newer."""
        for _ in range(3):
            play_round(federation, next_round_of(federation))
            federation.change(silos=federation.pinned.record.silos)
        federation.membership = federation.memberships[-1]
        assert play_round(federation, next_round_of(federation)).outcome == "published"
        federation.membership = federation.memberships[1]
        assert play_round(federation, next_round_of(federation)).outcome == "published"
        for name in ("run-1-round-0001.json", "run-1-round-0005.json"):
            assert failed_claims(federation, name) == [[]] * 4


def next_round_of(federation: SimulatedFederation) -> int:
    c = federation.coordinator()
    return next_round(c, read_federation(c))


class TestRotation:
    @pytest.mark.parametrize("steps", steps_of(6))
    def test_the_old_coordinator_key_finishes_its_attempt(
        self, federation: SimulatedFederation, steps: int
    ) -> None:
        plan = federation.open()
        for _ in range(steps):
            federation.silos_act()
            advance(federation.coordinator(), plan)
        new = federation.new_coordinator_key()
        federation.change(coordinator_key=new.public_key_hex)
        federation.play(plan)
        assert report_of(federation, plan).outcome == "published"
        second = federation.open(2)
        assert second.record.membership_number == 2
        federation.play(second)
        assert report_of(federation, second).outcome == "published"
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]
        assert failed_claims(federation, "run-1-round-0002.json") == [[], []]

    def test_an_old_key_alone_cannot_plan_any_more(self, federation: SimulatedFederation) -> None:
        old = federation.key
        play_round(federation, 1)
        new = federation.new_coordinator_key()
        federation.change(coordinator_key=new.public_key_hex)
        with pytest.raises(FederationOperatorError, match="the key that membership 2 names"):
            from aggregator.federated_round import open_round

            open_round(federation.coordinator(old), 2)

    @pytest.mark.long
    def test_a_silo_with_a_new_key_goes_on_with_the_next_plan(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.silos_act(2)
        federation.replace_key("silo-c")
        federation.play(plan)
        assert outcomes(report_of(federation, plan))["silo-c"] == ("missing", None)
        assert outcomes(play_round(federation, 2))["silo-c"] == ("admitted", None)
        assert federation.silos["silo-c"].faults == []


class TestCoordinatorRevoked:
    def stolen(self, federation: SimulatedFederation) -> SigningKey:
        """The key that a thief has a copy of; the coordinator goes on with another."""
        thief = federation.key
        federation.new_coordinator_key(keep_old=False)
        return thief

    def revoke(
        self, federation: SimulatedFederation, thief: SigningKey, after: FeedPosition, **named: str
    ) -> None:
        revocation = Revocation(
            public_key=thief.public_key_hex,
            last_feed_number=after.number,
            plan_digest=after.digest,
            **named,
        )
        fields = {"coordinator_key": federation.key.public_key_hex, "revokes": (revocation,)}
        federation.change_after(after, **fields)

    def head(self, federation: SimulatedFederation) -> FeedPosition:
        return federation.coordinator().feed.refresh().head

    @pytest.mark.parametrize("steps", steps_of(5))
    def test_the_attempt_is_aborted_and_tried_again(
        self, federation: SimulatedFederation, steps: int
    ) -> None:
        first = play_round(federation, 1)
        plan = federation.open(2)
        for _ in range(steps):
            federation.silos_act()
            advance(federation.coordinator(), plan)
        assert newest_decision(federation, plan) is None
        thief = self.stolen(federation)
        self.revoke(federation, thief, self.head(federation))
        for silo in federation.silos:
            federation.sign_contract(silo)
        federation.play(plan)
        assert report_of(federation, plan).rule == REVOKED_COORDINATOR
        again = federation.open(2)
        assert (again.record.attempt, again.record.membership_number) == (2, 2)
        assert again.record.starting_adapter == first.published_adapter
        federation.play(again)
        assert report_of(federation, again).outcome == "published"
        assert failed_claims(federation, "run-1-round-0002-attempt-02.json") == [[], []]

    def test_what_the_thief_has_put_into_storage_stops_nobody(
        self, federation: SimulatedFederation
    ) -> None:
        play_round(federation, 1)
        genuine, names = self.head(federation), names_of(federation, 1)
        thief = self.stolen(federation)
        forged = forged_plan(federation, thief, genuine)
        another = forged_plan(federation, thief, genuine, attempt=2)
        slot = feed_slot(genuine.number + 1)
        federation.plans.put_once(claim_key(slot, 1, federation.pinned.digest), forged.envelope)
        write_record(federation.plans, slot, forged)
        write_record(federation.plans, slot, another)
        later = feed_slot(genuine.number + 2)
        federation.plans.put_once(claim_key(later, 1, federation.pinned.digest), forged.envelope)
        for silo in federation.silos.values():
            silo.act(FEDERATION, federation.pinned)
        assert "feed entry 2" in federation.silos["silo-a"].faults[-1]
        self.revoke(federation, thief, genuine, **names)
        for name in federation.silos:
            federation.sign_contract(name)
            federation.silos[name].faults.clear()
        report = play_round(federation, 2)
        assert report.outcome == "published"
        assert not any(silo.faults for silo in federation.silos.values())
        assert play_round(federation, 3).outcome == "published"

    def test_a_silo_that_followed_the_thief_comes_back(
        self, federation: SimulatedFederation
    ) -> None:
        play_round(federation, 1)
        genuine, names = self.head(federation), names_of(federation, 1)
        thief = self.stolen(federation)
        forged = forged_plan(federation, thief, genuine)
        write_record(federation.plans, feed_slot(genuine.number + 1), forged)
        federation.silos_act(UNTIL_SUBMITTED)
        federation.coordinator().feed.refresh()
        assert any("submission" in key for key in federation.inbox("silo-a").objects)
        self.revoke(federation, thief, genuine, **names)
        for silo in federation.silos:
            federation.sign_contract(silo)
        assert play_round(federation, 2).outcome == "published"
        assert not any(silo.faults for silo in federation.silos.values())

    def test_a_named_decision_goes_on_to_its_report_and_the_next_round(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        while look(federation.coordinator(), plan).stage is not Stage.REPORTING:
            federation.silos_act()
            advance(federation.coordinator(), plan)
            federation.clock.sleep(20)
        head, names = self.head(federation), names_of(federation, 1)
        thief = self.stolen(federation)
        forge_decision(federation, plan, thief)
        self.revoke(federation, thief, head, **names)
        for silo in federation.silos:
            federation.sign_contract(silo)
        federation.play(plan)
        published = report_of(federation, plan)
        assert published.outcome == "published"
        second = federation.open(2)
        assert second.record.starting_adapter == published.published_adapter
        federation.play(second)
        assert report_of(federation, second).outcome == "published"

    def test_of_an_unnamed_decision_nothing_starts(self, federation: SimulatedFederation) -> None:
        play_round(federation, 1)
        head = self.head(federation)
        self.revoke(federation, self.stolen(federation), head)
        for silo in federation.silos:
            federation.sign_contract(silo)
        assert next_round_of(federation) == 1
        assert play_round(federation, 1).starting_adapter is None


def names_of(federation: SimulatedFederation, round_number: int) -> dict[str, str]:
    """Digests of the close and the decision of the newest attempt, as the signers name them."""
    c = federation.coordinator()
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    assert newest is not None and newest.plan.record.round == round_number
    attempt = look(c, newest.plan).attempt
    assert attempt.close is not None and attempt.decision is not None
    return {
        "close_digest": attempt.close.digest,
        "decision_digest": attempt.decision.digest,
    }


def newest_decision(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> Verified[Decision] | None:
    return look(federation.coordinator(), plan).attempt.decision


def forged_plan(
    federation: SimulatedFederation, thief: SigningKey, after: FeedPosition, attempt: int = 1
) -> Verified[RoundPlan]:
    """A plan for round 2 that only the key's owner could tell from a genuine one."""
    c = federation.coordinator(thief)
    newest = newest_attempt(c, read_federation(c))
    assert newest is not None
    now = federation.clock.now()
    fields = {
        "round": 2,
        "attempt": attempt,
        "feed_number": after.number + 1,
        "previous_digest": after.digest,
        "issued_at": now,
        "submit_by": now + timedelta(minutes=30),
        "evaluate_by": now + timedelta(minutes=60),
        "expires_at": now + timedelta(minutes=60),
        "starting_adapter": starting_point(c, read_federation(c)).adapter,
        "earlier_adapter": newest.plan.record.starting_adapter,
    }
    return seal(newest.plan.record.model_copy(update=fields), thief)


def forge_decision(
    federation: SimulatedFederation, plan: Verified[RoundPlan], thief: SigningKey
) -> None:
    """A second decision beside the genuine one, as a thief would leave it."""
    decision = newest_decision(federation, plan)
    assert decision is not None
    other = decision.record.model_copy(update={"outcome": "held", "rule": "evaluation.quorum"})
    slot = round_slot(attempt_of(plan), Decision.kind)
    write_record(federation.plans, slot, seal(other, thief))


class TestSiloRevoked:
    def revoke(self, federation: SimulatedFederation, silo: str) -> Verified[Membership]:
        revoked = (Revocation(public_key=key_of(federation, silo)),)
        others = tuple(m for m in federation.pinned.record.silos if m.silo != silo)
        return federation.change(silos=others, revokes=revoked)

    def test_before_the_close_its_records_count_no_more(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        self.revoke(federation, "silo-c")
        federation.play(plan)
        report = report_of(federation, plan)
        assert report.outcome == "published"
        assert outcomes(report)["silo-c"] == ("rejected", "silo.revoked")
        assert "one that was revoked" in federation.silos["silo-c"].faults[-1]
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]
        assert "silo-c" not in outcomes(play_round(federation, 2))

    @pytest.mark.parametrize("merged", [False, True])
    def test_after_the_close_the_round_is_tried_again_without_it(
        self, federation: SimulatedFederation, merged: bool
    ) -> None:
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        close_round(federation.coordinator(), federation.look(plan))
        if merged:
            merge_round(federation.coordinator(), federation.look(plan))
        self.revoke(federation, "silo-c")
        federation.play(plan)
        assert report_of(federation, plan).rule == "silo.revoked"
        again = federation.open()
        assert (again.record.attempt, again.record.cohort) == (2, ("silo-a", "silo-b"))
        federation.play(again)
        assert report_of(federation, again).outcome == "published"

    def test_after_the_decision_nothing_changes(self, federation: SimulatedFederation) -> None:
        plan = federation.open()
        for _ in range(30):
            federation.silos_act()
            if look(federation.coordinator(), plan).stage is Stage.DECIDING:
                decide_round(federation.coordinator(), federation.look(plan))
                break
            advance(federation.coordinator(), plan)
        self.revoke(federation, "silo-c")
        federation.play(plan)
        report = report_of(federation, plan)
        assert (report.outcome, outcomes(report)["silo-c"]) == ("published", ("admitted", None))
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]

    def test_below_the_quorum_it_ends_and_the_quorum_says_so(
        self, make_federation: MakeFederation
    ) -> None:
        federation = make_federation({"quorum": 2}, a=Behaviour.HONEST, b=Behaviour.HONEST)
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        self.revoke(federation, "silo-b")
        federation.play(plan)
        assert report_of(federation, plan).rule == "quorum.not_reached"


class TestVoidPlans:
    def test_no_step_is_made_on_a_plan_that_became_void(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        federation.change_after(FeedPosition(), silos=federation.pinned.record.silos)
        c = federation.coordinator()
        assert look(c, plan).stage is Stage.VOID
        assert advance(c, plan) is Stage.VOID
        with pytest.raises(FederationOperatorError, match="that membership 2 made void"):
            close_round(c, look(c, plan))
        with pytest.raises(FederationOperatorError, match="that membership 2 made void"):
            abort_round(c, plan, "operator.abort", "Late.")
        assert not [key for key in federation.plans.objects if "/close/" in key]
        assert play_round(federation, 1).outcome == "published"


class TestWhatIsLeftBehind:
    def test_a_lost_old_key_leaves_the_report_to_the_new_one(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        new = federation.new_coordinator_key(keep_old=False)
        federation.change(coordinator_key=new.public_key_hex)
        abort_round(federation.coordinator(), plan, "operator.abort", "The old key is lost.")
        federation.play(plan)
        assert report_of(federation, plan).outcome == "aborted"
        assert play_round(federation, 1).outcome == "published"

    def test_a_second_report_of_an_old_key_changes_nothing(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.play(plan)
        old, report = federation.key, report_of(federation, plan)
        new = federation.new_coordinator_key()
        federation.change(coordinator_key=new.public_key_hex)
        other = report.model_copy(update={"purpose": "Something else"})
        slot = round_slot(attempt_of(plan), RoundReport.kind)
        write_record(federation.plans, slot, seal(other, old))
        assert report_of(federation, plan) == report
        assert next_round_of(federation) == 2

    def test_a_claim_of_another_attempt_is_passed_over(
        self, federation: SimulatedFederation
    ) -> None:
        first = federation.open()
        federation.play(first)
        close = look(federation.coordinator(), first).attempt.close
        assert close is not None
        second = federation.open(2)
        slot = round_slot(attempt_of(second), "close")
        federation.plans.put_once(claim_key(slot, 1), close.envelope)
        federation.play(second)
        assert report_of(federation, second).outcome == "published"

    def test_a_report_keeps_the_evidence_of_a_silo_that_was_revoked_later(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        federation.silos_act(UNTIL_SUBMITTED)
        abort_round(federation.coordinator(), plan, "operator.abort", "Not today.")
        federation.play(plan)
        TestSiloRevoked().revoke(federation, "silo-c")
        finish_latest_report(federation.coordinator())
        assert failed_claims(federation, "run-1-round-0001.json") == [[], []]

    def test_a_flood_beside_a_named_decision_does_not_hide_it(
        self, federation: SimulatedFederation
    ) -> None:
        plan = federation.open()
        while look(federation.coordinator(), plan).stage is not Stage.REPORTING:
            federation.silos_act()
            advance(federation.coordinator(), plan)
            federation.clock.sleep(20)
        slot = round_slot(attempt_of(plan), Decision.kind)
        for number in range(100):
            federation.plans.put_once(record_key(slot, f"{number:064x}"), b"junk")
        revoked = TestCoordinatorRevoked()
        head, names = revoked.head(federation), names_in(federation, plan)
        revoked.revoke(federation, revoked.stolen(federation), head, **names)
        assert look(federation.coordinator(), plan).stage is Stage.REPORTING


def names_in(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> dict[str, str]:
    """Of close and decision, by their keys: what lies beside them hides them from a reader."""
    prefix = {kind: round_slot(attempt_of(plan), kind) for kind in ("close", "decision")}
    found = {}
    for kind, slot in prefix.items():
        for key, data in federation.plans.objects.items():
            if key.startswith(slot) and key.endswith(".json") and data != b"junk":
                found[f"{kind}_digest"] = key.removeprefix(slot).removesuffix(".json")
    return found


class TestExpiry:
    def test_nothing_is_planned_or_followed_after_it(self, federation: SimulatedFederation) -> None:
        federation.change(expires_at=federation.clock.now() + timedelta(days=20))
        plan = federation.open()
        federation.silos_act()
        federation.clock.sleep(21 * 24 * 3600)
        with pytest.raises(UntrustedInputError, match="federation renew"):
            federation.open(2)
        federation.silos_act()
        assert "federation renew" in federation.silos["silo-a"].faults[-1]
        assert plan.record.round == 1

    def test_silos_are_told_before_it(
        self, federation: SimulatedFederation, caplog: pytest.LogCaptureFixture
    ) -> None:
        federation.change(expires_at=federation.clock.now() + timedelta(days=29))
        federation.silos_act(3)
        told = [record.message for record in caplog.records if "expires on" in record.message]
        assert len(told) == 1 and "renew" in told[0]


class TestRequests:
    """What is asked of the plans bucket does not grow with the rounds."""

    def counted(self, federation: SimulatedFederation) -> Counter[str]:
        """Operations on the plans bucket to open the next round and to look at it."""
        counts: Counter[str] = Counter()
        federation.plans.before = lambda operation, _key: counts.update([operation])
        c = federation.coordinator()
        c.feed.refresh()
        counts.clear()
        plan = federation.open(next_round_of(federation))
        look(federation.coordinator(), plan)
        federation.plans.before = None
        federation.play(plan)
        return counts

    @pytest.mark.long
    def test_opening_and_looking_cost_the_same_at_every_age(
        self, make_federation: MakeFederation
    ) -> None:
        federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
        play_round(federation, 1)
        second = self.counted(federation)
        for round_number in range(3, 9):
            play_round(federation, round_number)
            federation.change(silos=federation.pinned.record.silos)
        assert self.counted(federation) == second

    def test_a_coordinator_whose_home_was_lost_reads_the_newest(
        self, federation: SimulatedFederation
    ) -> None:
        play_round(federation, 1)
        published = play_round(federation, 2).published_adapter
        federation.change(silos=federation.pinned.record.silos)
        shutil.rmtree(federation.settings.home / "feed")
        plan = federation.open(next_round_of(federation))
        assert (plan.record.round, plan.record.starting_adapter) == (3, published)

    def test_an_aborted_attempt_behind_the_newest_membership_is_found(
        self, federation: SimulatedFederation
    ) -> None:
        play_round(federation, 1)
        plan = federation.open(2)
        abort_round(federation.coordinator(), plan, "operator.abort", "Not today.")
        federation.play(plan)
        federation.change(silos=federation.pinned.record.silos)
        shutil.rmtree(federation.settings.home / "feed")
        again = federation.open(2)
        assert (again.record.attempt, again.record.membership_number) == (2, 2)
        assert isinstance(read_abort(federation, plan), Abort)


def read_abort(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Abort | None:
    from aggregator.feed.reading import abort_of

    c = federation.coordinator()
    found = abort_of(c, read_federation(c), plan)
    return found.record if found else None
