"""What no fault and no restore may bring about: two valid records in one slot of storage."""

from collections import Counter

from data_contracts.protocol.bucket_layout import digest_in_key
from tests.simulator.federation import SimulatedFederation


def require_one_record_for_each_slot(federation: SimulatedFederation) -> None:
    """Every slot of every bucket holds one record; nobody here writes what does not verify."""
    for name, bucket in federation.storage.items():
        keys = [key for key in bucket.objects if digest_in_key(key) is not None]
        slots = Counter(key.rpartition("/")[0] for key in keys)
        twice = [slot for slot, count in slots.items() if count > 1]
        assert not twice, f"{name}: {twice}"
