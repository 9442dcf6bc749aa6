"""The one way out: permission first, then the outbox, then storage, the same bytes for ever."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import SiloOperatorError, StorageError, UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.bucket_layout import attempt_of, record_key, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import RoundPlan, Status, Submission, Verdict
from infra.records.record_store import write_record
from infra.signing_keys import SigningKey, create_key
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.in_force import InForce
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import Outbox
from silo_agent.release.release import PlanRelease, Release, ReleaseForbiddenError
from tests.aggregator.federation_samples import federation
from tests.simulator.fake_clock import FakeClock
from tests.simulator.memory_bucket import InMemoryBucket

FED = federation()
SILO = FED.plan.record.cohort[0]
HOUR = timedelta(hours=1)
SAMPLE_STATUS = Status.on(
    FED.plan,
    FED.plan.record.issued_at,
    silo=SILO,
    number=1,
    phase="stopped",
    step=0,
    steps=0,
    tokens_per_second="0.0",
    eta_seconds=0,
)
PARTIES = Parties(FED.plan.record.federation, SILO, frozenset(), frozenset())


class Desk:
    """A release with its parts within reach."""

    def __init__(self, directory: Path) -> None:
        self.inbox = InMemoryBucket("inbox")
        self.clock = FakeClock(FED.plan.record.issued_at)
        self.switch = KillSwitch(directory)
        self.key: SigningKey = create_key(directory / "key.pem")
        self.directory = directory
        self.adapter = directory / "adapter.safetensors"
        self.in_force: ContractTerms | None = self.contract()
        save_file({"x": np.ones(3, dtype=np.float32)}, self.adapter)

    def release(self, plan: Verified[RoundPlan] = FED.plan) -> PlanRelease:
        """A fresh one, as after a restart."""
        made = Release(
            Outbox(self.directory / "outbox", self.key),
            self.inbox,
            self.clock,
            self.switch.is_on,
            InForce(lambda parties: self.in_force, lambda: PolicyFile(None, None, "none")),
        )
        return made.about(plan, PARTIES)

    def verdict(self, *, passed: bool = True) -> Verdict:
        sample = FED.verdict(SILO).record
        return sample.model_copy(update={"passed": passed, "expires_at": self.clock.now() + HOUR})

    def contract(self, **changes: Any) -> ContractTerms:
        """The contract that the plan pins, in force for a day."""
        values: dict[str, Any] = {
            "digest": FED.plan.record.contract_digest_of(SILO),
            "purposes": (FED.plan.record.purpose,),
            "expires_at": FED.plan.record.issued_at + 24 * HOUR,
        }
        return ContractTerms(**values | changes)

    def left(self) -> list[str]:
        """Keys in the inbox that only a submission would make."""
        return [key for key in self.inbox.objects if "submission" in key or "blobs" in key]

    def submission(self, verdict_digest: str) -> Submission:
        sample = FED.submission(SILO, FED.verdict(SILO)).record
        changes = {
            "verdict_digest": verdict_digest,
            "adapter": artifact_of_file(self.adapter),
        }
        return sample.model_copy(update=changes)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_submission_leaves_with_its_blob_first(desk: Desk) -> None:
    order: list[str] = []
    desk.inbox.before = lambda operation, key: order.append(operation)
    verdict = desk.release().record(desk.verdict())
    desk.release().record(desk.submission(verdict.digest), desk.adapter)
    assert order == ["list_keys", "put_once", "list_keys", "put_blob", "put_once"]


def test_no_submission_without_a_passing_verdict(desk: Desk) -> None:
    release = desk.release()
    with pytest.raises(ReleaseForbiddenError, match=r"expected a passing verdict.*; found none"):
        release.record(desk.submission("0" * 64), desk.adapter)
    failed = release.record(desk.verdict(passed=False))
    with pytest.raises(ReleaseForbiddenError, match=r"found verdict\.failed"):
        release.record(desk.submission(failed.digest), desk.adapter)
    assert desk.left() == []


def test_no_submission_on_another_verdict_or_without_grounds(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    with pytest.raises(ReleaseForbiddenError, match="found none"):
        desk.release().record(desk.submission("0" * 64), desk.adapter)
    with pytest.raises(ReleaseForbiddenError, match="found none"):
        desk.release().record(desk.submission(verdict.digest))
    assert desk.left() == []


OTHER_PLAN = federation(purpose="something else").plan


@pytest.mark.parametrize(
    ("rule", "terms"),
    [
        ("contract.changed", None),
        ("contract.changed", {"digest": "0" * 64}),
        ("contract.expired", {"expires_at": FED.plan.record.issued_at}),
        ("contract.egress", {"egress": ("status", "losses")}),
    ],
)
def test_the_release_asks_again_even_where_the_agent_would_not(
    desk: Desk, rule: str, terms: dict[str, Any] | None
) -> None:
    verdict = desk.release().record(desk.verdict())
    desk.in_force = None if terms is None else desk.contract(**terms)
    with pytest.raises(ReleaseForbiddenError, match=f"found {rule}.*nothing was sent"):
        desk.release().record(desk.submission(verdict.digest), desk.adapter)
    assert desk.left() == []
    assert not list((desk.directory / "outbox").rglob("blobs"))


def test_a_verdict_on_another_plan_opens_nothing(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    other = desk.release(OTHER_PLAN)
    with pytest.raises(ReleaseForbiddenError, match=r"found verdict\.other_contract.*nothing"):
        other.record(desk.submission(verdict.digest), desk.adapter)
    assert desk.left() == []


def test_a_verdict_in_the_outbox_that_another_key_signed_opens_nothing(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    (kept,) = (desk.directory / "outbox").rglob("verdict.json")
    other = create_key(desk.directory / "other.pem")
    kept.write_bytes(seal(verdict.record, other).envelope)
    theirs = Outbox(desk.directory / "outbox", other)
    assert theirs.read(attempt_of(FED.plan), Verdict) is not None, "a key that counts elsewhere"
    with pytest.raises(UntrustedInputError, match="signature of verdict"):
        desk.release().record(desk.submission(verdict.digest), desk.adapter)
    assert desk.left() == []


def test_no_submission_on_an_expired_verdict(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    desk.clock.sleep(2 * 3600)
    with pytest.raises(ReleaseForbiddenError, match=r"found verdict\.expired"):
        desk.release().record(desk.submission(verdict.digest), desk.adapter)


def test_the_kill_switch_stops_records_retries_and_statuses(desk: Desk) -> None:
    desk.switch.turn_on()
    with pytest.raises(ReleaseForbiddenError, match="kill switch"):
        desk.release().record(desk.verdict())
    assert desk.inbox.objects == {}


def test_a_retry_sends_the_very_bytes_of_the_outbox(desk: Desk) -> None:
    def fail(operation: str, key: str) -> None:
        raise StorageError("inbox", expected="an answer", found="503", action="try again")

    desk.inbox.before = fail
    with pytest.raises(StorageError):
        desk.release().record(desk.verdict())
    desk.inbox.before = None
    desk.clock.sleep(600)
    later = desk.verdict().model_copy(update={"issued_at": desk.clock.now()})
    again = desk.release().record(later)
    assert again.record.issued_at != later.issued_at, "the first signature is the one that counts"
    assert len(desk.inbox.objects) == 1
    desk.release().record(later)
    assert len(desk.inbox.objects) == 1


def test_another_file_under_the_adapters_digest_does_not_leave(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    submission = desk.submission(verdict.digest)
    desk.adapter.write_bytes(b"other bytes")
    with pytest.raises(ReleaseForbiddenError, match="nothing was sent"):
        desk.release().record(submission, desk.adapter)
    assert not [key for key in desk.inbox.objects if key.startswith("blobs/")]


def test_what_was_signed_before_does_not_leave_while_the_switch_is_on(desk: Desk) -> None:
    """The storage was away; then the silo operator stopped the agent."""
    outbox = desk.release().release.outbox
    outbox.keep(outbox.signed(desk.verdict()))
    desk.switch.turn_on()
    unsent = outbox.released(attempt_of(FED.plan))
    with pytest.raises(ReleaseForbiddenError, match="the kill switch to be off"):
        desk.release().send_unsent(unsent)
    assert desk.inbox.objects == {}
    desk.switch.turn_off()
    desk.release().send_unsent(unsent)
    assert len(desk.inbox.objects) == 1


def test_nothing_leaves_beside_what_another_machine_signed(desk: Desk) -> None:
    """A second record in the slot would take this silo's part in the round from it."""
    elsewhere = desk.verdict().model_copy(update={"findings_digest": "1" * 64})
    slot = round_slot(attempt_of(FED.plan), Verdict.kind)
    there = seal(elsewhere, desk.key)
    write_record(desk.inbox, slot, there)
    with pytest.raises(SiloOperatorError, match="it is on two machines"):
        desk.release().record(desk.verdict())
    assert list(desk.inbox.objects) == [record_key(slot, there.digest)]


def test_only_the_word_that_the_agent_stops_leaves_while_the_switch_is_on(desk: Desk) -> None:
    desk.switch.turn_on()
    status = SAMPLE_STATUS.model_copy(update={"phase": "training"})
    with pytest.raises(ValueError, match="expected the phase stopped"):
        desk.release().say_stopped(status)
    assert desk.inbox.objects == {}


def test_of_two_records_in_a_slot_that_storage_has_the_first_is_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = create_key(tmp_path / "key.pem")
    outbox = Outbox(tmp_path / "outbox", signer)
    first, second = (
        seal(FED.acceptance(SILO).record.model_copy(update={"policy_digest": text * 64}), signer)
        for text in "ab"
    )
    outbox.put_back([first, second])
    assert outbox.released(attempt_of(FED.plan)).acceptance == first
    assert "acceptance was signed twice" in caplog.text


def test_a_submission_of_another_key_is_not_gone_on_from(tmp_path: Path) -> None:
    own, other = (create_key(tmp_path / f"{name}.pem") for name in ("own", "other"))
    first = FED.submission(SILO, FED.verdict(SILO)).record
    outbox, foreign = (Outbox(tmp_path / "outbox", signer) for signer in (own, other))
    outbox.keep(outbox.signed(first))
    place, keys = (first.run, first.round), {own.public_key_hex}
    assert outbox.last_submission(*place, keys) == first
    second = first.model_copy(update={"attempt": first.attempt + 1})
    foreign.keep(foreign.signed(second))
    assert outbox.last_submission(*place, keys | {other.public_key_hex}) == second
    with pytest.raises(UntrustedInputError, match="signature of submission"):
        outbox.last_submission(*place, keys)


def test_losses_of_coalitions_are_asked_of_who_has_done_all_else(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", create_key(tmp_path / "key.pem"))
    attempt = FED.finished([FED.silo(silo) for silo in FED.plan.record.cohort])
    own, round_id = attempt.silos[SILO], attempt_of(FED.plan)
    assert own.acceptance and own.submission and own.evaluation
    shared = own.acceptance.record.model_copy(update={"shares_individual_delta": True})
    for record, may_be_asked in (
        (shared, False),
        (own.submission.record, False),
        (own.evaluation.record, True),
        (own.acceptance.record, False),
    ):
        outbox.keep(outbox.signed(record))
        assert outbox.released(round_id).may_be_asked is may_be_asked, record.kind
