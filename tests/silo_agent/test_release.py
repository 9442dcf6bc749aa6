"""The one way out: permission first, then the outbox, then storage, the same bytes for ever."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_contracts.artifact import artifact_of_file
from data_contracts.errors import StorageError
from data_contracts.records import Submission, Verdict
from infra.signing_keys import SigningKey, create_key
from silo_agent.kill_switch import KillSwitch
from silo_agent.release import Release, ReleaseForbiddenError
from tests.aggregator.federation_samples import federation
from tests.simulator.fake_clock import FakeClock
from tests.simulator.memory_bucket import InMemoryBucket

FED = federation()
SILO = FED.plan.record.cohort[0]


class Desk:
    """A release with its parts within reach."""

    def __init__(self, directory: Path) -> None:
        self.inbox = InMemoryBucket("inbox")
        self.clock = FakeClock(FED.plan.record.issued_at)
        self.switch = KillSwitch(directory)
        self.key: SigningKey = create_key(directory / "key.pem")
        self.directory = directory
        self.adapter = directory / "adapter.safetensors"
        save_file({"x": np.ones(3, dtype=np.float32)}, self.adapter)

    def release(self) -> Release:
        """A fresh one, as after a restart."""
        return Release(
            self.directory / "outbox", self.inbox, self.key, self.clock, self.switch.is_on
        )

    def verdict(self, *, passed: bool = True) -> Verdict:
        sample = FED.verdict(SILO).record
        return sample.model_copy(
            update={"passed": passed, "expires_at": self.clock.now() + timedelta(hours=1)}
        )

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
    desk.release().record(desk.submission(verdict.digest), blob=desk.adapter)
    assert order == ["put_once", "put_blob", "put_once"]


def test_no_submission_without_a_passing_verdict(desk: Desk) -> None:
    release = desk.release()
    with pytest.raises(ReleaseForbiddenError, match="passing, unexpired verdict"):
        release.record(desk.submission("0" * 64), blob=desk.adapter)
    failed = release.record(desk.verdict(passed=False))
    with pytest.raises(ReleaseForbiddenError):
        release.record(desk.submission(failed.digest), blob=desk.adapter)
    assert not [key for key in desk.inbox.objects if "submission" in key or "blobs" in key]


def test_no_submission_on_an_expired_verdict(desk: Desk) -> None:
    verdict = desk.release().record(desk.verdict())
    desk.clock.sleep(2 * 3600)
    with pytest.raises(ReleaseForbiddenError):
        desk.release().record(desk.submission(verdict.digest), blob=desk.adapter)


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
        desk.release().record(submission, blob=desk.adapter)
    assert not [key for key in desk.inbox.objects if key.startswith("blobs/")]
