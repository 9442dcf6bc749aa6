"""Erasures for the feed of `tests.infra.record_samples`."""

from typing import Any

from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Erasure, Membership
from data_contracts.protocol.records.erasure import ReplayedRound
from infra.signing_keys import SigningKey
from tests.infra.record_samples import COORDINATOR, FIRST, NOW

WITH_PART, WITHOUT = "a1" * 32, "b2" * 32


def erasure(
    number: int,
    after: str | None,
    key: SigningKey = COORDINATOR,
    under: Verified[Membership] = FIRST,
    **changes: Any,
) -> Verified[Erasure]:
    """Of silo-b, whose part is in WITH_PART alone."""
    record = Erasure(
        federation="fed",
        issued_at=NOW,
        feed_number=number,
        previous_digest=after,
        membership_number=under.record.number,
        membership_digest=under.digest,
        previous=None,
        silo="silo-b",
        method="replay",
        from_run="run-a",
        from_round=1,
        revoked=(WITH_PART,),
        starting_adapter=None,
        replay_run="run-b",
        replayed=(
            ReplayedRound(
                run="run-a", round=1, feed_number=1, plan_digest="c" * 64, published=WITH_PART
            ),
        ),
        seed_offset=0,
        program="0.1.0",
    )
    return seal(record.model_copy(update=changes), key)
