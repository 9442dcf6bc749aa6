"""Rounds on a real storage, where each side has its own rights and no more."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from botocore.exceptions import ClientError

from aggregator.coordinator import Coordinator
from aggregator.evidence.look import look
from aggregator.federated_round import close_round, finish_latest_report
from aggregator.feed.reading import newest_attempt, read_federation
from aggregator.settings.federation import LedgerSection
from data_contracts.errors import FederationOperatorError, StorageError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from infra.stack.local_stack import RunningStorage
from infra.storage.object_store import AccessDeniedError, Bucket, Lock
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings
from tests.aggregator.ledger_samples import SILOS, key_of, place_of, reported, submitted
from tests.simulator.stored_federation import StoredFederation

pytestmark = [pytest.mark.long, pytest.mark.stack]


def made(
    storage: RunningStorage,
    tmp_path: Path,
    model: Path,
    ledger: LedgerSection,
    encryption: Literal["age"] | None = None,
) -> StoredFederation:
    home = tmp_path / "federation"
    federation = StoredFederation(home, model, ledger=ledger, encryption=encryption)
    federation.use(storage)
    for silo in SILOS:
        federation.add_silo(silo)
    federation.found()
    return federation


class Meddled(S3Bucket):
    """An inbox whose silo acts right before the coordinator's first lock in it.

    Locks are placed side by side: the others wait until the silo has acted.
    """

    act: Callable[[], object] | None = None

    def __init__(self, settings: S3Settings, name: str) -> None:
        super().__init__(settings, name)
        self.acting = threading.Lock()

    def retain(self, key: str, version: str, lock: Lock, *, bypass: bool = False) -> None:
        with self.acting:
            act, self.act = self.act, None
            if act is not None:
                act()
        super().retain(key, version, lock, bypass=bypass)


def meddled(federation: StoredFederation, acts: dict[str, Callable[[], object]]) -> Coordinator:
    def inbox(silo: str) -> Bucket:
        bucket = Meddled(federation.credentials[""], federation.inbox(silo).name)
        bucket.act = acts.get(silo)
        return bucket

    inboxes = {silo: inbox(silo) for silo in SILOS}
    return replace(federation.coordinator(), inbox=lambda silo: inboxes[silo])


def close_with(c: Coordinator, plan: Verified[RoundPlan]) -> dict[tuple[str, str], EvidenceRef]:
    close = close_round(c, look(c, plan))
    assert isinstance(close.record, Close)
    return {(ref.silo or "", ref.kind): ref for ref in close.record.held}


def in_inbox(federation: StoredFederation, silo: str, kind: str) -> tuple[S3Bucket, str, str]:
    inbox = federation.inbox(silo)
    (key,) = [info.key for info in inbox.list_keys("") if place_of(kind) in f"/{info.key}"]
    found = federation.coordinator().inbox(silo).stat(key)
    assert found is not None
    return inbox, key, found.version or ""  # type: ignore[return-value]


def test_a_round_rests_on_the_versions_that_were_judged(
    own_storage: RunningStorage, tmp_path: Path, tiny_model: Path
) -> None:
    """With encrypted adapters: what is judged, locked and fetched again is the ciphertext."""
    federation = made(own_storage, tmp_path, tiny_model, LedgerSection(), "age")
    plan = submitted(federation)
    own, adapter_key, judged = in_inbox(federation, "silo-a", LOCAL_ADAPTER)
    gone, verdict_key, removed = in_inbox(federation, "silo-b", "verdict")
    as_admin = {"Bucket": gone.name, "Key": verdict_key, "VersionId": removed}
    c = meddled(
        federation,
        {
            "silo-a": lambda: own.put(adapter_key, b"another"),
            "silo-b": lambda: federation.admin.delete_object(**as_admin),
        },
    )
    held = close_with(c, plan)
    assert held["silo-a", LOCAL_ADAPTER].version == judged
    assert {silo for silo, _ in held} == {"silo-a", "silo-c"}
    _nobody_takes_it_back(federation, plan, held["silo-c", "verdict"])
    shutil.rmtree(c.workspace)
    report = reported(federation, plan)
    assert report.outcome == "published"
    assert {s.silo: s.rule for s in report.silos}["silo-b"] == "silo.withdrew"
    _a_person_may_erase(federation, plan, held["silo-c", "verdict"])


def _nobody_takes_it_back(
    federation: StoredFederation, plan: Verified[RoundPlan], ref: EvidenceRef
) -> None:
    key, version, silo = key_of(plan, ref), ref.version or "", ref.silo or ""
    shorter = Lock("governance", federation.clock.now() + timedelta(days=30))
    for bucket in (federation.inbox(silo), federation.coordinator().inbox(silo)):
        for bypass in (False, True):
            with pytest.raises(AccessDeniedError):
                bucket.delete_version(key, version, bypass=bypass)
            with pytest.raises(AccessDeniedError):
                bucket.retain(key, version, shorter, bypass=bypass)
    with pytest.raises(ClientError, match="AccessDenied"):
        federation.admin.delete_object(
            Bucket=federation.inbox(silo).name, Key=key, VersionId=version
        )


def _a_person_may_erase(
    federation: StoredFederation, plan: Verified[RoundPlan], ref: EvidenceRef
) -> None:
    """In governance mode, with the right to pass over it; the report's files keep what they had."""
    c = federation.coordinator()
    before = {path: path.read_bytes() for path in c.reports.iterdir()}
    federation.admin.delete_object(
        Bucket=federation.inbox(ref.silo or "").name,
        Key=key_of(plan, ref),
        VersionId=ref.version,
        BypassGovernanceRetention=True,
    )
    finish_latest_report(federation.coordinator())
    assert {path: path.read_bytes() for path in c.reports.iterdir()} == before


def test_storage_without_versions_keeps_copies(
    own_storage: RunningStorage, tmp_path: Path, tiny_model: Path
) -> None:
    federation = made(own_storage, tmp_path, tiny_model, LedgerSection(place="copy"))
    ledger = {"Bucket": federation.coordinator().ledger.name}
    federation.admin.delete_bucket(**ledger)
    with pytest.raises(StorageError, match=r"a bucket named .*-ledger; found no such bucket"):
        federation.open()
    c = federation.coordinator()
    assert newest_attempt(c, read_federation(c)) is None
    federation.admin.create_bucket(**ledger)
    plan = submitted(federation)
    settings = federation.settings
    federation.settings = settings.model_copy(update={"ledger": LedgerSection()})
    with pytest.raises(FederationOperatorError, match=r"bucket with versions.*place to copy"):
        close_round(federation.coordinator(), federation.look(plan))
    federation.settings = settings
    held = close_with(federation.coordinator(), plan)
    assert {ref.version for ref in held.values()} == {None}
    for silo in SILOS:
        inbox = federation.inbox(silo)
        for info in inbox.list_keys("blobs/"):
            inbox.put(info.key, b"another")
    shutil.rmtree(federation.coordinator().workspace)
    assert reported(federation, plan).outcome == "published"
    assert len(federation.coordinator().ledger.list_keys("blobs/")) == 3
