"""A prune of a real storage, with every side's own rights."""

from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.upkeep.storage_pruning import Need
from aggregator.upkeep.storage_room import prune_storage, storage_usage
from data_contracts.protocol.bucket_layout import blob_key, inbox_bucket, plans_bucket
from infra.stack.identities import ADMIN
from infra.stack.local_stack import add_identity
from infra.stack.seaweedfs import RunningStorage
from infra.storage.bucket_contents import S3Contents
from infra.storage.object_store import AccessDeniedError
from infra.storage.policies import pruning_policy
from infra.storage.s3_bucket import S3Bucket
from tests.simulator.disk import play_rounds
from tests.simulator.federation import FEDERATION
from tests.simulator.stored_federation import StoredFederation

pytestmark = [pytest.mark.long, pytest.mark.stack]


def test_a_storage_operator_prunes_and_nobody_else(
    own_storage: RunningStorage, tmp_path: Path, tiny_model: Path
) -> None:
    federation = StoredFederation(tmp_path, tiny_model)
    federation.use(own_storage)
    for name in ("silo-a", "silo-b"):
        federation.add_silo(name)
    federation.found()
    play_rounds(federation, 1, 2)
    plans, inbox = plans_bucket(FEDERATION), inbox_bucket(FEDERATION, "silo-a")
    own = federation.credentials[""]
    policy = pruning_policy(FEDERATION)
    operator = add_identity(own_storage, "storage-operator", policy, plans)

    usage = storage_usage(federation.coordinator(), lambda name: S3Contents(own, name))
    assert usage.absent == ("simulated-ledger",)
    assert [bucket.bucket for bucket in usage.buckets][:2] == [plans, inbox]
    with pytest.raises(AccessDeniedError):
        list(S3Contents(own, inbox).versions())
    for credential, name in ((own, plans), (federation.credentials["silo-a"], inbox)):
        stored = next(S3Contents(operator, name).versions())
        with pytest.raises(AccessDeniedError):
            S3Contents(credential, name).delete(stored)

    # What no record names, in the bucket without versions.
    unnamed = blob_key("0" * 64)
    S3Bucket(own, plans).put(unnamed, b"of nobody")

    # For the coordinator's clock a year has passed and retention is over, for the storage it runs.
    federation.clock.sleep(timedelta(days=400).total_seconds())
    tally = prune_storage(
        federation.coordinator(), lambda name: S3Contents(operator, name), is_trial=False
    )
    rows = {
        (b.bucket, kind, need): row for b in tally.buckets for (kind, need), row in b.rows.items()
    }
    assert rows[inbox, "status", Need.NONE].objects > 0
    assert rows[plans, "adapters", Need.NONE].objects == 1
    assert unnamed not in {stored.key for stored in S3Contents(own, plans).newest()}
    left = {stored.key for stored in S3Contents(operator, inbox).versions()}
    assert not any(key.startswith("status/") for key in left)
    assert {key.split("/")[2] for key in left if key.startswith("rounds/")} >= {"0002"}
    again = prune_storage(
        federation.coordinator(), lambda name: S3Contents(operator, name), is_trial=False
    )
    assert sum(bucket.unneeded().objects for bucket in again.buckets) == 0

    # Not even the administrator removes what is locked, unless he asks to pass over it.
    whole = S3Contents(own_storage.settings_for(ADMIN), inbox)
    locked = next(stored for stored in whole.versions() if whole.lock(stored) is not None)
    with pytest.raises(AccessDeniedError):
        whole.delete(locked)
